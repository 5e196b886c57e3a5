//! When the disk is full.

use std::fs::File;
use std::io;

use crate::error::text;
use crate::platform;

pub(super) fn is_short(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The space that `file` could grow into; where it `is_ours`, what it holds already is given back first.
pub(super) fn free_bytes(file: &File, is_ours: bool) -> Option<u64> {
    if is_ours {
        // It is of no more use; should this be refused, the number is smaller than the truth.
        let _ = file.set_len(0);
    }
    platform::free_bytes(file)
}

pub(super) fn message(error: &io::Error, needed: u64, free: Option<u64>) -> String {
    let text = text(error);
    match free {
        Some(free) => {
            format!("cannot write: {text}: the file needs {needed} bytes, {free} are free")
        }
        None => format!("cannot write: {text}: the file needs {needed} bytes"),
    }
}
