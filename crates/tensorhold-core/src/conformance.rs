//! What the program that we match says for the same fault.

use alloc::format;
use alloc::string::String;

use crate::error::{Error, ErrorKind};

/// The words with which crate `safetensors` 0.8.0 reports the same fault; `None` where it reports
/// none.
///
/// # Source
/// The `Display` of its `SafeTensorError`, on which programs and tests depend.
#[must_use]
pub fn reference_message(error: &Error) -> Option<String> {
    let words = match error.kind() {
        ErrorKind::HeaderTooSmall => "header too small",
        ErrorKind::HeaderTooLarge => "header too large",
        ErrorKind::HeaderLength => "invalid header length",
        ErrorKind::HeaderUtf8 => "invalid UTF-8 in header",
        ErrorKind::HeaderJson => "invalid JSON in header",
        ErrorKind::InvalidOffset => {
            return Some(format!(
                "invalid offset for tensor `{}`",
                error.tensor().unwrap_or_default()
            ));
        }
        ErrorKind::SizeMismatch => "invalid shape, data type, or offset for tensor",
        ErrorKind::NotCovered => "incomplete metadata, file not fully covered",
        ErrorKind::Overflow => "overflow computing buffer size from shape and/or element type",
        ErrorKind::Misaligned => {
            "The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, this is invalid."
        }
        _ => return None,
    };
    Some(String::from(words))
}
