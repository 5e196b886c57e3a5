//! What is to be replaced, and where it really lies.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use tensorhold_core::{Error, ErrorKind, Result};

use crate::error::io_error;
use crate::open::not_regular;
use crate::platform;

/// As many links in a row as Linux follows.
const MAX_LINKS: usize = 40;

const NEEDED: &str = "a file is to be written";

#[derive(Debug)]
pub(super) enum Target {
    /// A regular file, or nothing yet.
    File {
        path: PathBuf,
        old: Option<Metadata>,
    },
    /// A regular file that only an open descriptor leads to, so that no rename could replace it.
    Nameless { path: PathBuf, metadata: Metadata },
    /// A device, FIFO or socket.
    Other { path: PathBuf, metadata: Metadata },
}

impl Target {
    pub(super) fn resolve(path: &Path) -> Result<Target> {
        let refused = |error| io_error(error, path, "write");
        // The system itself follows the links first, so that whatever rules it has about them hold.
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let real = follow(path).map_err(refused)?;
                require_file_name(&real, path)?;
                return Ok(Target::File {
                    path: real,
                    old: None,
                });
            }
            other => other.map_err(refused)?,
        };
        if metadata.is_dir() {
            return Err(no_file(path, &metadata));
        }
        if !metadata.is_file() {
            let path = path.to_owned();
            return Ok(Target::Other { path, metadata });
        }
        require_writable(path)?;
        let real = follow(path).map_err(refused)?;
        let is_found = fs::symlink_metadata(&real)
            .is_ok_and(|found| platform::is_same_file(&found, &metadata));
        Ok(match is_found {
            true => Target::File {
                path: real,
                old: Some(metadata),
            },
            false => Target::Nameless {
                path: path.to_owned(),
                metadata,
            },
        })
    }
}

/// The one path of the regular file that a save to `path` would replace or make, whatever links lead to it; `None` for anything
/// else than a file or nothing.
#[must_use]
pub fn real_target(path: &Path) -> Option<PathBuf> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return None,
    }
    let real = follow(path).ok()?;
    let folder = real.parent()?.canonicalize();
    match (folder, real.file_name()) {
        (Ok(folder), Some(name)) => Some(folder.join(name)),
        _ => Some(real),
    }
}

/// What lies at `name` cannot be replaced by a file.
pub(super) fn no_file(name: &Path, metadata: &Metadata) -> Error {
    not_regular(name, metadata, NEEDED)
}

/// Checks once more that the rename will replace a regular file or nothing.
pub(super) fn require_replaceable(target: &Path, name: &Path) -> Result<()> {
    match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(metadata) if metadata.is_symlink() => Err(io_error(
            io::Error::other("a symbolic link took its place meanwhile"),
            name,
            "replace",
        )),
        Ok(metadata) => Err(no_file(name, &metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(error, name, "replace")),
    }
}

fn require_writable(path: &Path) -> Result<()> {
    platform::require_writable(path).map_err(|error| {
        let hint = platform::permission_hint(path, &error);
        let error = io_error(error, path, "replace");
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })
}

/// The place that `path` leads to, whether anything is there or not, independent of the working directory.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_symlink() => {
                let link = fs::read_link(&place)?;
                place = place.parent().unwrap_or(Path::new("")).join(link);
            }
            _ => break,
        }
    }
    std::path::absolute(place)
}

fn require_file_name(real: &Path, name: &Path) -> Result<()> {
    let ends_as_folder = |path: &Path| {
        let text = path.as_os_str().as_encoded_bytes();
        text.last()
            .is_some_and(|last| std::path::is_separator(char::from(*last)))
    };
    if real.file_name().is_some() && !ends_as_folder(real) && !ends_as_folder(name) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotRegularFile,
        format!("names a directory, where {NEEDED}"),
    )
    .with_file(name.display().to_string()))
}
