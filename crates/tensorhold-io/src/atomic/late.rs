//! What is known only once all bytes are written: the file's name, or that its head needs more room.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use tensorhold_core::{ErrorKind, Result, Sink};

use super::target::{self, Target};
use super::way::Way;
use super::{AtomicFile, BUFFER_BYTES};
use crate::platform;

impl AtomicFile {
    /// Puts the file in the place of another target, `file_name` in the same folder: for a set of files whose names
    /// tell how many they are.
    ///
    /// # Errors
    /// Those of [`create`](AtomicFile::create) and [`commit`](AtomicFile::commit); `InvalidArgument` if the bytes went
    /// straight to the first target.
    pub fn commit_as(mut self, file_name: &OsStr) -> Result<()> {
        if self.name.file_name() == Some(file_name) {
            return self.commit();
        }
        let Way::Rename { temporary, .. } = &self.way else {
            return Err(self.error(
                ErrorKind::InvalidArgument,
                "the file is written in place, so the name cannot change",
            ));
        };
        let temporary = temporary.path().to_owned();
        self.name.set_file_name(file_name);
        let (path, attributes) = match Target::resolve(&self.name)? {
            Target::File { path, old } => {
                let attributes = old.map(|old| platform::attributes(&path, &old));
                (path, attributes)
            }
            Target::Nameless { metadata, .. } | Target::Other { metadata, .. } => {
                return Err(target::no_file(&self.name, &metadata));
            }
        };
        self.target = path;
        if let Way::Rename { old, .. } = &mut self.way {
            *old = attributes;
        }
        if self.file.is_none() {
            let file = File::open(temporary).map_err(|error| self.cannot(error, "reopen"))?;
            self.set_attributes(&file)?;
        }
        self.commit()
    }

    /// Writes all bytes from `position` on to `sink`.
    ///
    /// # Errors
    /// `Io` if the system refuses, as it does for a device, FIFO or socket; those of the sink.
    pub fn copy_to(&mut self, position: u64, sink: &mut dyn Sink) -> Result<()> {
        self.flush()?;
        let path = match &self.way {
            Way::Rename { temporary, .. } => temporary.path(),
            Way::InPlace(_) => &self.target,
            Way::Stream => {
                return Err(self.error(ErrorKind::Io, "cannot read back what it was given"));
            }
        };
        let file = File::open(path).map_err(|error| self.cannot(error, "read back"))?;
        let mut piece = vec![0; BUFFER_BYTES];
        let mut at = position;
        loop {
            match platform::read_at(&file, &mut piece, at) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    sink.write(&piece[..n])?;
                    at += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cannot(error, "read back")),
            }
        }
    }
}
