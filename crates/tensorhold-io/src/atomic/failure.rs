//! What is said when a save goes wrong.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::way::Way;
use super::{AtomicFile, space};
use crate::error::{io_error, kind, text};
use crate::live;

impl AtomicFile {
    pub(super) fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        Error::new(kind, message).with_file(self.name.display().to_string())
    }

    pub(super) fn cannot(&self, error: io::Error, doing: &str) -> Error {
        io_error(error, &self.name, doing)
    }

    /// Fails where overwriting `file` would change memory of this process.
    pub(super) fn require_unmapped(&self, file: &File) -> Result<()> {
        match live::is_mapped(file) {
            true => Err(self.mapped()),
            false => Ok(()),
        }
    }

    /// The target can only be overwritten, and what is to be written may lie in it.
    pub(super) fn mapped(&self) -> Error {
        const ADVICE: &str = "save to another file, or load with `backend=\"pread\"`";
        let error = self.error(
            ErrorKind::Io,
            "cannot overwrite in place: tensors of this process are views of the file",
        );
        match &self.way {
            Way::Rename { temporary, .. } => {
                error.with_hint(format!("{}; {ADVICE}", complete_at(temporary.path())))
            }
            _ => error.with_hint(ADVICE),
        }
    }

    /// A write was refused: the file is of no more use.
    pub(super) fn refused(&self, error: &io::Error, bytes: ByteRange) -> Error {
        self.is_broken.store(true, Ordering::Relaxed);
        let needed = self.size_hint.unwrap_or(0).max(bytes.end);
        let message = match space::is_short(error) {
            true => space::message(error, needed, self.free_bytes()),
            false => format!("cannot write: {}", text(error)),
        };
        let refused = Error::new(kind(error), message)
            .with_file(self.name.display().to_string())
            .with_os_error(error.raw_os_error())
            .with_bytes(bytes);
        match &self.way {
            Way::InPlace(in_place) if in_place.has_begun() => refused.with_hint(
                "the file had to be overwritten in place, as no new file can be made beside it; it is incomplete now",
            ),
            _ if error.kind() == io::ErrorKind::FileTooLarge => refused.with_hint(format!(
                "this file system takes no file of {needed} bytes; save in shards"
            )),
            Way::Rename { old: Some(_), .. } => refused.with_hint("the old file is as it was"),
            _ => refused,
        }
    }

    /// The free space of the file system; that of the folder of a device says nothing.
    fn free_bytes(&self) -> Option<u64> {
        let is_ours = match self.way {
            Way::Rename { .. } => true,
            Way::InPlace(_) => false,
            Way::Stream => return None,
        };
        space::free_bytes(self.file.as_ref()?, is_ours)
    }
}

/// The rename failed, but the bytes are all there.
pub(super) fn left_behind(error: Error, temporary: &Path) -> Error {
    error.with_hint(complete_at(temporary))
}

fn complete_at(temporary: &Path) -> String {
    format!(
        "the new file is complete and lies at `{}`",
        temporary.display()
    )
}
