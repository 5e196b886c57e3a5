//! Opens regular files, and nothing else.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::error::io_error;
use crate::interrupt::retried;
use crate::platform;

/// `path` opened for reading, if it leads to a regular file.
///
/// It never blocks: what is no regular file is refused before it is opened, and should a FIFO take the
/// file's place in between, opening it does not wait for a writer.
///
/// # Errors
/// `NotRegularFile` for a directory, FIFO, socket or device; `NotFound` and `PermissionDenied` as the system
/// says; `Io` for its other refusals. The system's number is in the error's `os_error`.
pub fn open_regular(path: &Path) -> Result<File> {
    let refused = |error: io::Error| {
        let hint = platform::permission_hint(path, &error);
        let error = io_error(error, path, "open");
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    };
    // Opening a device can act on it, so its kind is looked at first, and again once it is open.
    require_regular(path, &retried(|| fs::metadata(path)).map_err(refused)?)?;
    let file = platform::open_without_blocking(path).map_err(refused)?;
    require_regular(path, &retried(|| file.metadata()).map_err(refused)?)?;
    Ok(file)
}

/// What tells one state of a file from another: equal identities mean equal bytes, as far as the file
/// system's clock can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The file system it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size.
    pub size_bytes: u64,
    /// When its bytes were last changed, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// When its bytes or attributes were last changed, which no program can set back; 0 on Windows.
    pub changed_ns: i128,
}

/// The identity of an open file.
///
/// # Errors
/// `Io` if the system does not tell.
pub fn identity(file: &File) -> Result<FileIdentity> {
    retried(|| platform::identity(file))
        .map_err(|error| crate::error::cannot(&error, "identify the file"))
}

/// Whether the file lies on a network, cluster or user-space file system, where a map can fail or stall
/// at any access. `false` where the system does not tell.
#[must_use]
pub fn is_network(file: &File) -> bool {
    platform::is_network(file)
}

/// How many of `size_bytes` of `file` from `position` are in the page cache, in whole pages; `None` where the system does not tell.
#[must_use]
pub fn cached_bytes(file: &File, position: u64, size_bytes: u64) -> Option<u64> {
    platform::cached_bytes(file, position, size_bytes)
}

/// `file` opened once more, for whoever reads it past the page cache by descriptor.
///
/// # Errors
/// `Io` where the file system has no such reads.
pub fn open_direct(file: &File) -> Result<File> {
    if platform::is_in_memory(file) {
        return Err(no_direct_reads());
    }
    let direct = retried(|| platform::open_direct_to_wait(file))
        .map_err(|error| crate::error::cannot(&error, "open for direct reads"))?;
    match platform::direct_alignment(&direct) {
        Some(_) => Ok(direct),
        None => Err(no_direct_reads()),
    }
}

fn no_direct_reads() -> Error {
    Error::new(ErrorKind::Io, "the file system has no direct reads")
}

fn require_regular(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let error = not_regular(path, metadata, "a regular file is needed");
    Err(if metadata.is_dir() && holds_safetensors(path) {
        error.with_hint("to read all weights of a folder, open it as a checkpoint")
    } else {
        error
    })
}

/// The error that says what lies at `path` and what is `needed`.
pub(crate) fn not_regular(path: &Path, metadata: &fs::Metadata, needed: &str) -> Error {
    let (name, os_error) = platform::kind_of(metadata);
    Error::new(
        ErrorKind::NotRegularFile,
        format!("is {name}, where {needed}"),
    )
    .with_file(path.display().to_string())
    .with_os_error(os_error)
}

fn holds_safetensors(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                Path::new(&entry.file_name())
                    .extension()
                    .is_some_and(|extension| extension == "safetensors")
            })
        })
    })
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    #[test]
    fn a_fifo_that_took_a_files_place_does_not_block_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(platform::open_without_blocking(&path).is_ok());
    }
}
