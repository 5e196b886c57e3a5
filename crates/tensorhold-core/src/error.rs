//! What can be wrong with a file, a request or the system, and where.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::fmt;

use crate::escape::{Escaped, Named};
use crate::extent::ByteRange;

/// The result of everything in this project.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What kind of thing went wrong: the part of an error that a program decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file has fewer than the 8 bytes of the header length.
    HeaderTooSmall,
    /// The header length is over the limit of 100 000 000.
    HeaderTooLarge,
    /// The header length points past the end of the file.
    HeaderLength,
    /// The header is not UTF-8.
    HeaderUtf8,
    /// The header is not the JSON that the format asks for.
    HeaderJson,
    /// A tensor's name stands twice in the header.
    DuplicateTensor,
    /// A key of `__metadata__` stands twice (strict rules).
    DuplicateKey,
    /// A tensor's bytes do not follow the ones before them: a hole, an overlap, or an end before the start.
    InvalidOffset,
    /// A tensor's bytes are more or fewer than its shape and dtype ask for.
    SizeMismatch,
    /// A shape's size passes 2^64.
    Overflow,
    /// A count of sub-byte elements ends inside a byte.
    Misaligned,
    /// The file is longer or shorter than its tensors.
    NotCovered,
    /// The header uses what the published format forbids or leaves as a trap (strict rules).
    Forbidden,
    /// The file is no safetensors file but something else that could be named.
    ForeignFormat,
    /// The file ends before the bytes that were asked for.
    Truncated,
    /// No tensor has this name.
    TensorNotFound,
    /// A slice does not fit the tensor.
    InvalidSlice,
    /// An index file is not as it must be, or disagrees with its shards.
    InvalidIndex,
    /// A tensor given to a save cannot be stored, or the parts of a quantized weight do not suit each other.
    InvalidTensor,
    /// What a configuration says of quantized weights is not as it must be.
    InvalidConfig,
    /// It is known what this is, but it is not read.
    Unsupported,
    /// An argument has a value that is not allowed.
    InvalidArgument,
    /// No file is there.
    NotFound,
    /// The system does not let us.
    PermissionDenied,
    /// The path leads to a directory, a FIFO, a device or a socket where a regular file is needed.
    NotRegularFile,
    /// The handle was closed.
    Closed,
    /// There is no memory for the bytes that were asked for.
    NoMemory,
    /// A device, or the runtime that it is used by, is not there or refused.
    Device,
    /// Whoever asked for it wants it no more.
    Interrupted,
    /// Any other refusal of the operating system.
    Io,
}

/// What went wrong, where, and what to do.
///
/// It prints as `file: what (tensor …, bytes …)` and, where there is something to do, a second line
/// `hint: …`. What came from a file is [`Escaped`]. The parts are there one by one for programs.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    file: Option<String>,
    tensor: Option<String>,
    bytes: Option<ByteRange>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn core::error::Error + Send + Sync>>,
    os_error: Option<i32>,
}

impl Error {
    /// An error of `kind` that says `message`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            file: None,
            tensor: None,
            bytes: None,
            hint: None,
            source: None,
            os_error: None,
        }))
    }

    /// The file ends at `size_bytes`, before the `wanted` bytes from `position` on.
    #[must_use]
    pub fn truncated(position: u64, wanted: u64, size_bytes: u64) -> Error {
        let end = position.saturating_add(wanted);
        Error::new(
            ErrorKind::Truncated,
            alloc::format!(
                "file ends at byte {size_bytes}, {} bytes short",
                end.saturating_sub(size_bytes)
            ),
        )
        .with_bytes(ByteRange {
            start: position,
            end,
        })
    }

    /// Names the file it happened in; a name that is there already stays.
    #[must_use]
    pub fn with_file(mut self, file: impl Into<String>) -> Error {
        self.0.file.get_or_insert_with(|| file.into());
        self
    }

    /// Names the tensor it is about; a name that is there already stays.
    #[must_use]
    pub fn with_tensor(mut self, name: impl Into<String>) -> Error {
        self.0.tensor.get_or_insert_with(|| name.into());
        self
    }

    /// Says which bytes of the file it is about, counted from the start of the file.
    #[must_use]
    pub fn with_bytes(mut self, bytes: ByteRange) -> Error {
        self.0.bytes.get_or_insert(bytes);
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Error {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl core::error::Error + Send + Sync + 'static) -> Error {
        self.0.source = Some(Box::new(source));
        self
    }

    /// Keeps the operating system's error number.
    #[must_use]
    pub fn with_os_error(mut self, os_error: Option<i32>) -> Error {
        self.0.os_error = os_error;
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, without where and what to do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file it happened in.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// The tensor it is about.
    #[must_use]
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// The bytes it is about, counted from the start of the file.
    #[must_use]
    pub fn bytes(&self) -> Option<ByteRange> {
        self.0.bytes
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The operating system's error number.
    #[must_use]
    pub fn os_error(&self) -> Option<i32> {
        self.0.os_error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            message,
            file,
            tensor,
            bytes,
            hint,
            ..
        } = &*self.0;
        if let Some(file) = file {
            write!(f, "{}: ", Escaped(file))?;
        }
        write!(f, "{}", Escaped(message))?;
        let tensor = tensor.as_deref().map(Named);
        // A message that names its tensor needs no second naming.
        let tensor = tensor.filter(|tensor| !message.contains(&tensor.to_string()));
        match (tensor, bytes) {
            (Some(tensor), Some(bytes)) => write!(f, " (tensor {tensor}, bytes {bytes})")?,
            (Some(tensor), None) => write!(f, " (tensor {tensor})")?,
            (None, Some(bytes)) => write!(f, " (bytes {bytes})")?,
            (None, None) => {}
        }
        match hint {
            Some(hint) => write!(f, "\nhint: {}", Escaped(hint)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.kind(), self.to_string())
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_a_file_cannot_control_the_terminal() {
        let error = Error::new(
            ErrorKind::TensorNotFound,
            "no tensor `\u{1b}[2J`\nhint: run this",
        )
        .with_file("a\u{202e}b")
        .with_tensor("\u{9b}1m")
        .with_hint("look");
        assert_eq!(
            error.to_string(),
            "a\\u{202e}b: no tensor `\\u{1b}[2J`\\u{a}hint: run this (tensor `\\u{9b}1m`)\nhint: look"
        );
    }

    #[test]
    fn a_tensor_that_the_message_names_is_not_named_again() {
        let error = Error::new(ErrorKind::InvalidOffset, "tensor `a` starts late")
            .with_tensor("a")
            .with_bytes(ByteRange::new(3, 4));
        assert_eq!(error.to_string(), "tensor `a` starts late (bytes 3..4)");
    }
}
