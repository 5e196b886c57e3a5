//! Writing onto the target itself, where nothing better is possible.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Once;

use super::calls::{Calls, is_unsupported};
use super::temporary::Temporary;
use super::{Durability, sync};
use crate::platform::{self, Privacy};

/// A target that is overwritten.
#[derive(Debug)]
pub(super) struct InPlace {
    /// The target, where it was not there before.
    created: Option<Temporary>,
    old_size_bytes: u64,
    begun: Once,
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
            begun: Once::new(),
            calls,
        }
    }

    /// The old bytes go before the first new one comes, so that a half written file is too short rather than a mixture.
    pub(super) fn begin(&self, file: &File) {
        self.begun.call_once(|| {
            // Where it is refused the old bytes are overwritten, and the length is set in the end.
            let _ = (self.calls.set_length)(file, 0);
        });
    }

    /// Whether the old bytes are gone.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_completed()
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

/// Copies the finished file `from` onto `target`, which is made if it is not there.
pub(super) fn copy_onto(
    from: &Path,
    target: &Path,
    durability: Durability,
    calls: &Calls,
) -> io::Result<()> {
    let mut from = File::open(from)?;
    let size_bytes = from.metadata()?.len();
    let old_size_bytes = target.metadata().map_or(0, |metadata| metadata.len());
    require_space(&from, old_size_bytes, size_bytes)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    let mut to = match options.clone().truncate(true).open(target) {
        Err(error) if is_unsupported(&error) => options.open(target)?,
        other => other?,
    };
    io::copy(&mut from, &mut to)?;
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
