//! Writing onto the target itself, where nothing better is possible.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use super::calls::Calls;
use super::temporary::Temporary;
use super::{Durability, sync};
use crate::live;
use crate::platform::{self, Privacy};

/// A target that is overwritten.
#[derive(Debug)]
pub(super) struct InPlace {
    /// The target, where it was not there before.
    created: Option<Temporary>,
    old_size_bytes: u64,
    /// Whether the old bytes could go, once that was tried.
    begun: OnceLock<bool>,
    calls: &'static Calls,
}

impl InPlace {
    pub(super) fn open(
        path: &Path,
        old: &Metadata,
        calls: &'static Calls,
    ) -> io::Result<(InPlace, File)> {
        let file = platform::open_for_writing(path, old)?;
        Ok((InPlace::new(None, old.len(), calls), file))
    }

    pub(super) fn create(path: &Path, calls: &'static Calls) -> io::Result<(InPlace, File)> {
        let file = (calls.create_new)(path, Privacy::Ordinary)?;
        let created = Temporary::of(path.to_owned());
        Ok((InPlace::new(Some(created), 0, calls), file))
    }

    fn new(created: Option<Temporary>, old_size_bytes: u64, calls: &'static Calls) -> InPlace {
        InPlace {
            created,
            old_size_bytes,
            begun: OnceLock::new(),
            calls,
        }
    }

    /// The old bytes go before the first new one comes, so that a half written file is too short rather than a mixture.
    ///
    /// `false` if this process has the file mapped: then nothing may be written.
    #[must_use]
    pub(super) fn begin(&self, file: &File) -> bool {
        *self.begun.get_or_init(|| {
            if live::is_mapped(file) {
                return false;
            }
            // Where it is refused the old bytes are overwritten, and the length is set in the end.
            let _ = (self.calls.set_length)(file, 0);
            true
        })
    }

    /// Whether the old bytes are gone.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get() == Some(&true)
    }

    pub(super) fn keep(&mut self) {
        if let Some(created) = &mut self.created {
            created.keep();
        }
    }

    /// Fails, before the old bytes are touched, where the new ones have no room.
    pub(super) fn require_space(&self, file: &File, size_bytes: u64) -> io::Result<()> {
        require_space(file, self.old_size_bytes, size_bytes)
    }
}

/// The finished file `from`, to read, and `target`, to write, which is made if it is not there; its bytes are as they were.
pub(super) fn open_both(from: &Path, target: &Path) -> io::Result<(File, File)> {
    let from = File::open(from)?;
    let old_size_bytes = target.metadata().map_or(0, |metadata| metadata.len());
    require_space(&from, old_size_bytes, from.metadata()?.len())?;
    let to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(target)?;
    Ok((from, to))
}

/// Puts the bytes of `from` in the place of those of `to`, which lies at `target`.
pub(super) fn copy(
    mut from: File,
    mut to: File,
    target: &Path,
    durability: Durability,
    calls: &Calls,
) -> io::Result<()> {
    if (calls.set_length)(&to, 0).is_err() {
        // Some file systems cut a file only while opening it, and some never: then it is overwritten as it is.
        let _ = OpenOptions::new().write(true).truncate(true).open(target);
    }
    let size_bytes = io::copy(&mut from, &mut to)?;
    if to.metadata()?.len() > size_bytes {
        (calls.set_length)(&to, size_bytes)?;
    }
    sync(&to, durability, calls)?;
    (calls.close)(to)
}

fn require_space(file: &File, old_size_bytes: u64, size_bytes: u64) -> io::Result<()> {
    match platform::free_bytes(file) {
        Some(free) if free.saturating_add(old_size_bytes) < size_bytes => Err(platform::no_space()),
        _ => Ok(()),
    }
}
