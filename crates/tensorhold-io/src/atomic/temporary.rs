//! A file that goes away unless it is kept.

use std::fs::{self, File};
use std::io;
use std::iter::repeat_with;
use std::path::{Path, PathBuf};

use super::calls::Calls;
use crate::platform::Privacy;

/// What file systems allow for one name.
const MAX_NAME_BYTES: usize = 255;

const RANDOM_CHARACTERS: usize = 10;

/// What [`temporary_name`] puts around the target's name.
const FRAME_BYTES: usize = "..".len() + RANDOM_CHARACTERS + ".tmp".len();

const ATTEMPTS: usize = 100;

#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    is_kept: bool,
}

impl Temporary {
    /// A new file in the folder of `target`.
    pub(super) fn create(
        target: &Path,
        privacy: Privacy,
        calls: &Calls,
    ) -> io::Result<(Temporary, File)> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let mut name = &name[..name.floor_char_boundary(MAX_NAME_BYTES - FRAME_BYTES)];
        let mut last = io::ErrorKind::AlreadyExists.into();
        for _ in 0..ATTEMPTS {
            let path = target.with_file_name(temporary_name(name));
            match (calls.create_new)(&path, privacy) {
                Ok(file) => return Ok((Temporary::of(path), file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                // Some file systems allow less.
                Err(error) if error.kind() == io::ErrorKind::InvalidFilename && name.len() > 9 => {
                    name = &name[..name.floor_char_boundary(9)];
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The file at `path`, which was created just now.
    pub(super) fn of(path: PathBuf) -> Temporary {
        Temporary {
            path,
            is_kept: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_kept {
            // There is nobody left to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn temporary_name(name: &str) -> String {
    let random: String = repeat_with(fastrand::alphanumeric)
        .take(RANDOM_CHARACTERS)
        .collect();
    format!(".{name}.{random}.tmp")
}
