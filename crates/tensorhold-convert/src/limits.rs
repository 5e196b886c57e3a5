//! How much a file may ask for before it is refused.

/// Caps on what reading one foreign file may cost; the defaults are far over what real checkpoints need.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Pickle operations in the whole file.
    pub operations: u64,
    /// Values that a file makes, and children of values, counted together.
    pub nodes: u64,
    /// Containers inside containers, where a reader has to follow them one by one.
    pub depth: u32,
    /// Bytes of one pickle that are read; the data of tensors does not count.
    pub pickle_bytes: u64,
    /// Bytes of one integer in a pickle.
    pub integer_bytes: u64,
    /// Bytes of one string that is kept in memory.
    pub text_bytes: u64,
    /// Bytes that may come out of compressed entries that are read as a whole.
    pub inflated_bytes: u64,
    /// How many times its compressed size an entry may be.
    pub inflate_ratio: u64,
    /// Entries of an archive, tensors of a table.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            operations: 1 << 27,
            nodes: 1 << 25,
            depth: 1000,
            pickle_bytes: 1 << 30,
            integer_bytes: 4096,
            text_bytes: 1 << 28,
            inflated_bytes: 1 << 29,
            inflate_ratio: 1100,
            entries: 1 << 22,
        }
    }
}
