//! Ranges of bytes.

use core::fmt;

/// A half-open range of bytes, `start..end`, with `start <= end`.
///
/// Whether it counts from the start of the file (a position) or from the start of the data or of a
/// tensor (an offset) is said where it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl ByteRange {
    /// The range `start..end`.
    ///
    /// # Panics
    /// If `end < start`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> ByteRange {
        assert!(start <= end, "a byte range must not end before it starts");
        ByteRange { start, end }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether there are no bytes in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The same bytes counted from `by` bytes earlier, or `None` past 2^64.
    #[must_use]
    pub const fn checked_add(self, by: u64) -> Option<ByteRange> {
        match (self.start.checked_add(by), self.end.checked_add(by)) {
            (Some(start), Some(end)) => Some(ByteRange { start, end }),
            _ => None,
        }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// A range of bytes in one of the files of a checkpoint; it knows no tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The index of the file in the checkpoint's list of files.
    pub file: usize,
    /// The bytes, counted from the start of that file.
    pub range: ByteRange,
}
