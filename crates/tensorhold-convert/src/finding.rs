//! What is worth knowing about a file before it is trusted.

use tensorhold_core::ByteRange;

/// How much a thing in a file is to be feared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It is on the list of what checkpoints need, or changes nothing.
    Harmless,
    /// It is on no list. Whether an unpickler would do harm with it is not known.
    Unknown,
    /// An unpickler could be made to do harm with it.
    Dangerous,
}

impl Class {
    /// `harmless`, `unknown` or `dangerous`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Harmless => "harmless",
            Class::Unknown => "unknown",
            Class::Dangerous => "dangerous",
        }
    }
}

/// The number of a name in [`crate::Foreign::globals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GlobalId(pub u32);

/// A name that a pickle asks an unpickler to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// The module, such as `torch._utils`.
    pub module: String,
    /// The name in the module, such as `_rebuild_tensor_v2`; it may have dots.
    pub name: String,
    /// How much it is to be feared.
    pub class: Class,
    /// How often the file names it.
    pub n_mentions: u64,
    /// Whether the file calls it, or makes an object of it.
    pub is_called: bool,
    /// Where it is first named, from the start of the pickle that names it.
    pub position: u64,
    /// Where in the tree it is used, such as `root["model"]`; the first few.
    pub paths: Vec<String>,
    /// The pickle that names it where that is not the file's main one: a path in the tree, or an archive's entry.
    pub pickle: Option<String>,
}

impl Global {
    /// The dotted name.
    #[must_use]
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// An object that is on no list: it is kept as its name and its parts.
    Opaque,
    /// A container or object that contains itself.
    Cycle,
    /// A key stands twice in a dict; the last one counts.
    DuplicateKey,
    /// A storage or tensor that the file names and does not have.
    Missing,
    /// A tensor that the file describes wrongly.
    InvalidTensor,
    /// A pickle inside a value of another pickle.
    NestedPickle,
    /// Bytes that belong to nothing that the file says it has.
    ExtraBytes,
    /// The file is a valid file of a second format.
    Polyglot,
    /// Something about the archive that other readers may understand in another way.
    Container,
    /// Something in a pickle that no known writer writes.
    Pickle,
    /// Code that a loader of the format would run or compile.
    Code,
    /// Something that this library leaves out.
    LeftOut,
}

/// One thing that is worth knowing about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// How much it is to be feared.
    pub class: Class,
    /// What it is, as a sentence without a stop.
    pub message: String,
    /// Where in the tree it is.
    pub path: Option<String>,
    /// Where in the file it is.
    pub bytes: Option<ByteRange>,
}

impl Finding {
    /// A finding that says `message`.
    #[must_use]
    pub fn new(kind: FindingKind, class: Class, message: impl Into<String>) -> Finding {
        Finding {
            kind,
            class,
            message: message.into(),
            path: None,
            bytes: None,
        }
    }

    /// Says where in the tree it is.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Finding {
        self.path = Some(path.into());
        self
    }

    /// Says where in the file it is.
    #[must_use]
    pub fn with_bytes(mut self, bytes: ByteRange) -> Finding {
        self.bytes = Some(bytes);
        self
    }
}
