//! What can be wrong with a file, a tensor or a request.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::Utf8Error;

use tensorhold_core::{Error, ErrorKind};

use super::Dtype;

/// Reading a header as the published crate does takes 14 times its size, which one that is refused is not worth if it is
/// longer than this.
const MAX_REREAD_BYTES: usize = 1 << 20;

/// What went wrong when tensors were read or written.
#[derive(Debug)]
pub enum SafeTensorError {
    /// The header is no UTF-8.
    InvalidHeader(Utf8Error),
    /// The header is not the JSON that the format asks for, or a tensor's name stands twice in it.
    InvalidHeaderDeserialization(serde_json::Error),
    /// The header is longer than 100 000 000 bytes.
    HeaderTooLarge,
    /// There are fewer than the 8 bytes of the header length.
    HeaderTooSmall,
    /// The header passes the end of the file.
    InvalidHeaderLength,
    /// No tensor has this name.
    TensorNotFound(String),
    /// A tensor's bytes are more or fewer than its shape and dtype ask for.
    TensorInvalidInfo,
    /// The bytes of the tensor of this name do not follow the ones before them.
    InvalidOffset(String),
    /// The operating system refused.
    #[cfg(feature = "std")]
    IoError(std::io::Error),
    /// No header can be written for these tensors: a name is given twice, or is `__metadata__`.
    JsonError(serde_json::Error),
    /// A tensor of this type and shape does not have this number of bytes.
    InvalidTensorView(Dtype, Vec<usize>, usize),
    /// The file does not end where its last tensor does.
    MetadataIncompleteBuffer,
    /// The size of a shape passes what can be counted.
    ValidationOverflow,
    /// The last element of a tensor of elements narrower than a byte ends inside a byte.
    MisalignedSlice,
}

use SafeTensorError::*;

impl SafeTensorError {
    /// Why no header can be laid out for tensors.
    pub(super) fn from_layout(error: &Error) -> SafeTensorError {
        SafeTensorError::from_kind(error).unwrap_or_else(|| refused(error.message()))
    }

    /// Why a file is refused whose header would be `text`.
    #[cold]
    pub(super) fn from_header(error: &Error, text: &[u8]) -> SafeTensorError {
        if matches!(
            error.kind(),
            ErrorKind::HeaderTooSmall | ErrorKind::HeaderTooLarge | ErrorKind::HeaderLength
        ) {
            return SafeTensorError::from_layout(error);
        }
        let text = match core::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => return InvalidHeader(error),
        };
        // Of several faults the published crate reports the one that it comes upon first, and programs read line, column and
        // category of JSON errors, which serde_json alone can make. So the header is read once more in its way.
        // Not so for what it finds last or never.
        let is_settled = matches!(
            error.kind(),
            ErrorKind::DuplicateTensor | ErrorKind::NotCovered
        );
        if !is_settled
            && text.len() <= MAX_REREAD_BYTES
            && let Some(error) = super::metadata::published_fault(text)
        {
            return error;
        }
        SafeTensorError::from_kind(error).unwrap_or_else(|| {
            InvalidHeaderDeserialization(serde::de::Error::custom(error.message()))
        })
    }

    fn from_kind(error: &Error) -> Option<SafeTensorError> {
        Some(match error.kind() {
            ErrorKind::HeaderTooSmall => HeaderTooSmall,
            ErrorKind::HeaderTooLarge => HeaderTooLarge,
            ErrorKind::HeaderLength => InvalidHeaderLength,
            ErrorKind::InvalidOffset => {
                InvalidOffset(error.tensor().unwrap_or_default().to_string())
            }
            ErrorKind::SizeMismatch => TensorInvalidInfo,
            ErrorKind::Overflow => ValidationOverflow,
            ErrorKind::Misaligned => MisalignedSlice,
            ErrorKind::NotCovered => MetadataIncompleteBuffer,
            _ => return None,
        })
    }
}

/// A refusal that the interface has no kind for.
pub(super) fn refused(message: &str) -> SafeTensorError {
    JsonError(serde::ser::Error::custom(message))
}

#[cfg(feature = "std")]
impl From<std::io::Error> for SafeTensorError {
    fn from(error: std::io::Error) -> SafeTensorError {
        IoError(error)
    }
}

impl From<serde_json::Error> for SafeTensorError {
    fn from(error: serde_json::Error) -> SafeTensorError {
        JsonError(error)
    }
}

impl fmt::Display for SafeTensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidHeader(error) => write!(f, "invalid UTF-8 in header: {error}"),
            InvalidHeaderDeserialization(error) => write!(f, "invalid JSON in header: {error}"),
            HeaderTooLarge => f.write_str("header too large"),
            HeaderTooSmall => f.write_str("header too small"),
            InvalidHeaderLength => f.write_str("invalid header length"),
            TensorNotFound(name) => write!(f, "tensor `{name}` not found"),
            TensorInvalidInfo => f.write_str("invalid shape, data type, or offset for tensor"),
            InvalidOffset(name) => write!(f, "invalid offset for tensor `{name}`"),
            #[cfg(feature = "std")]
            IoError(error) => write!(f, "I/O error: {error}"),
            JsonError(error) => write!(f, "JSON error: {error}"),
            InvalidTensorView(dtype, shape, n_bytes) => {
                write!(f, "tensor of type {dtype} and shape (")?;
                for (index, size) in shape.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{size}")?;
                }
                write!(f, ") can't be created from {n_bytes} bytes")
            }
            MetadataIncompleteBuffer => f.write_str("incomplete metadata, file not fully covered"),
            ValidationOverflow => {
                f.write_str("overflow computing buffer size from shape and/or element type")
            }
            MisalignedSlice => f.write_str(crate::slice::MISALIGNED),
        }
    }
}

impl core::error::Error for SafeTensorError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            InvalidHeader(error) => Some(error),
            InvalidHeaderDeserialization(error) | JsonError(error) => Some(error),
            #[cfg(feature = "std")]
            IoError(error) => Some(error),
            _ => None,
        }
    }
}
