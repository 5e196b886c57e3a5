//! Files that are replaced whole or not at all.

mod calls;
mod failure;
mod in_place;
mod late;
mod route;
mod space;
mod target;
mod temporary;
mod way;
mod writer;

#[cfg(all(test, unix))]
mod faults;
#[cfg(all(test, unix))]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tensorhold_core::{ByteRange, ErrorKind, Result, Sink};

use self::calls::{Calls, SYSTEM, is_unknown, is_unsupported};
use self::route::Route;
pub use self::target::real_target;
use self::way::Way;
pub use self::writer::Writer;
use crate::{interrupt, io_error, platform};

/// Small pieces are gathered up to this size.
const BUFFER_BYTES: usize = 1 << 20;

/// Pieces from this size on go to the system without a copy.
const DIRECT_BYTES: usize = 128 << 10;

/// What must be on the disk when a save returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// Nothing: the system writes when it likes. After a crash of the machine the file can be the old one, the new one or,
    /// on some file systems, an empty one; after a crash of the program it is old or new.
    None,
    /// The bytes, before they get the file's name: after a crash of the machine the file is the old one or the new one.
    #[default]
    Data,
    /// The bytes and the name: after a crash of the machine the file is the new one.
    Full,
}

/// Puts the names in a folder on the disk, where the file system can do that.
///
/// # Errors
/// `Io`.
pub fn sync_folder(folder: &Path) -> Result<()> {
    match (SYSTEM.sync_directory)(folder) {
        Err(error) if !is_unknown(&error) => Err(io_error(error, folder, "sync the folder")),
        _ => Ok(()),
    }
}

/// A file that takes its target's place when it is committed, and leaves no trace when it is dropped before.
///
/// The bytes go to `.NAME.RANDOM.tmp` in the target's folder, which `commit` renames. A new file gets the mode that
/// the umask or the folder's default rules give, a replaced one keeps its mode and, where the system allows it, its
/// owner. Of a symbolic link, the file it leads to is replaced, or created. Of a file with several hard
/// links, only the given name gets the new bytes; the other names keep the old.
///
/// Where that cannot be done, it is done in the next best way:
/// - A device, FIFO or socket is written to, byte after byte, and stays what it is. Opening a FIFO waits for its reader.
/// - Where the file system cannot have a temporary file there, or the target has no name, as a file that only an open
///   descriptor leads to, the target is overwritten in place. This is not atomic: a failure after the first byte leaves the
///   target incomplete, which the error says.
/// - Where the file system cannot rename, as onto a file that is a mount of its own, the complete temporary file is
///   copied onto the target. Should that fail, the temporary file stays, and the error says where.
///
/// What the system forbids is not done in another way: a folder without the right to make files in it is
/// refused, and so is a target that exists and may not be written to, although its folder might allow the rename.
///
/// Nothing is overwritten in place while a [`Map`](crate::Map) of it lives in this process: the bytes to be written may be
/// those of the map, which would go with the file's. The target is then as it was.
#[derive(Debug)]
pub struct AtomicFile {
    /// As the caller named it, for messages.
    name: PathBuf,
    /// Where it really lies.
    target: PathBuf,
    way: Way,
    /// `None` once all is written and closed.
    file: Option<File>,
    buffer: Vec<u8>,
    /// How many bytes of the sink went to the file; those in the buffer come next.
    n_flushed: u64,
    /// The end of the last byte that was written.
    end: AtomicU64,
    size_hint: Option<u64>,
    is_broken: AtomicBool,
    route: Route,
    durability: Durability,
    calls: &'static Calls,
}

impl AtomicFile {
    /// A file that will be `target`. With `size_hint`, space for so many bytes is set aside where the file system can.
    ///
    /// # Errors
    /// `NotRegularFile` if the target is a directory, `NotFound` if its folder is not there, `PermissionDenied` if the
    /// folder or the target may not be written to, `Io` if the space is not there, the system refuses, or the target
    /// could only be overwritten in place and is mapped by this process.
    pub fn create(
        target: &Path,
        size_hint: Option<u64>,
        durability: Durability,
    ) -> Result<AtomicFile> {
        AtomicFile::create_with(target, size_hint, durability, &SYSTEM)
    }

    /// Writes `bytes` from `position` on. Threads may write different places at the same time; nothing is buffered, and the
    /// file ends with the last byte that was written by any of them or by the [`Sink`].
    ///
    /// # Errors
    /// `Io` if the system refuses; the file can then not be committed. `InvalidArgument` if the target
    /// [takes no positions](AtomicFile::takes_positions).
    pub fn write_at(&self, position: u64, bytes: &[u8]) -> Result<()> {
        self.require_positions()?;
        self.put_at(position, bytes)
    }

    /// Whether [`write_at`](AtomicFile::write_at) is possible: not if the target is a device, FIFO or socket.
    #[must_use]
    pub fn takes_positions(&self) -> bool {
        !matches!(self.way, Way::Stream)
    }

    /// Does everything but the last step: after it all bytes are as durable as asked for, closed, and not yet the
    /// target. So several files can be made ready before the first of them is committed.
    ///
    /// # Errors
    /// `Io` if the system refuses; the file can then not be committed.
    pub fn prepare(&mut self) -> Result<()> {
        let prepared = self.flush().and_then(|()| self.finish());
        if prepared.is_err() {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        prepared
    }

    /// Puts the file in the target's place.
    ///
    /// # Errors
    /// `Io`, `PermissionDenied` or `NotRegularFile` if the system refuses; the message says so if that leaves anything but the
    /// old file.
    pub fn commit(mut self) -> Result<()> {
        self.prepare()?;
        match &mut self.way {
            Way::Stream => return Ok(()),
            Way::InPlace(in_place) => in_place.keep(),
            Way::Rename { temporary, .. } => {
                // From here on the new bytes are complete, and nothing but the rename may lose them.
                temporary.keep();
                let temporary = temporary.path().to_owned();
                self.replace(&temporary)
                    .map_err(|error| failure::left_behind(error, &temporary))?;
            }
        }
        self.sync_folder()
    }

    fn create_with(
        name: &Path,
        size_hint: Option<u64>,
        durability: Durability,
        calls: &'static Calls,
    ) -> Result<AtomicFile> {
        let (target, way, file) = way::open(name, calls)?;
        let mut created = AtomicFile {
            name: name.to_owned(),
            target,
            way,
            file: Some(file),
            buffer: Vec::new(),
            n_flushed: 0,
            end: AtomicU64::new(0),
            size_hint,
            is_broken: AtomicBool::new(false),
            route: Route::default(),
            durability,
            calls,
        };
        created.require_overwritable()?;
        created.reserve()?;
        Ok(created)
    }

    fn require_positions(&self) -> Result<()> {
        match self.takes_positions() {
            true => Ok(()),
            false => Err(self.error(
                ErrorKind::InvalidArgument,
                "takes bytes only one after the other",
            )),
        }
    }

    fn require_overwritable(&self) -> Result<()> {
        match (&self.way, &self.file) {
            (Way::InPlace(_), Some(file)) => self.require_unmapped(file),
            _ => Ok(()),
        }
    }

    /// Fails now rather than after the last but one gigabyte.
    fn reserve(&mut self) -> Result<()> {
        let (Some(file), Some(size_bytes)) = (&self.file, self.size_hint) else {
            return Ok(());
        };
        let reserved = match &self.way {
            Way::Rename { .. } => (self.calls.allocate)(file, size_bytes),
            Way::InPlace(in_place) => in_place.require_space(file, size_bytes),
            Way::Stream => Ok(()),
        };
        reserved.map_err(|error| self.refused(&error, ByteRange::new(0, size_bytes)))
    }

    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let flushed = self.put(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        flushed
    }

    /// Writes the next bytes of the sink.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match self.way {
            Way::Stream => self.put_next(bytes)?,
            _ => self.put_at(self.n_flushed, bytes)?,
        }
        self.n_flushed += bytes.len() as u64;
        Ok(())
    }

    fn put_at(&self, position: u64, bytes: &[u8]) -> Result<()> {
        let file = self.open_file()?;
        let Some(end) = position.checked_add(bytes.len() as u64) else {
            return Err(self.error(ErrorKind::InvalidArgument, "bytes past 2^64"));
        };
        self.begin(file)?;
        for (n, piece) in bytes.chunks(interrupt::PIECE_BYTES).enumerate() {
            interrupt::check()?;
            self.put_all(file, position + (n * interrupt::PIECE_BYTES) as u64, piece)?;
        }
        self.reach(end);
        Ok(())
    }

    /// Writes `bytes`, however often the system must be asked.
    fn put_all(&self, file: &File, position: u64, bytes: &[u8]) -> Result<()> {
        let end = position + bytes.len() as u64;
        let mut n_written = 0;
        while n_written < bytes.len() {
            let at = position + n_written as u64;
            match (self.calls.write_at)(file, &bytes[n_written..], at) {
                Ok(n @ 1..) => n_written += n,
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return Err(self.refused(&error, ByteRange::new(at, end)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => interrupt::check()?,
                Err(error) => return Err(self.refused(&error, ByteRange::new(at, end))),
            }
        }
        if self.durability != Durability::None {
            // So the disk works while the next bytes come, and has little left to do when it must be waited for.
            platform::start_writing_back(file, position, bytes.len());
        }
        self.reach(end);
        Ok(())
    }

    /// The file has bytes up to `end`.
    fn reach(&self, end: u64) {
        self.end.fetch_max(end, Ordering::Relaxed);
    }

    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Before the first byte.
    fn begin(&self, file: &File) -> Result<()> {
        match &self.way {
            Way::InPlace(in_place) if !in_place.begin(file) => {
                self.is_broken.store(true, Ordering::Relaxed);
                Err(self.mapped())
            }
            _ => Ok(()),
        }
    }

    fn put_next(&self, bytes: &[u8]) -> Result<()> {
        let mut file = self.open_file()?;
        let start = self.n_flushed;
        let range = ByteRange::new(start, start.saturating_add(bytes.len() as u64));
        let mut rest = bytes;
        while !rest.is_empty() {
            interrupt::check()?;
            match file.write(rest) {
                Ok(0) => return Err(self.refused(&io::ErrorKind::WriteZero.into(), range)),
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    platform::wait_for_room(file);
                }
                Err(error) => return Err(self.refused(&error, range)),
            }
        }
        Ok(())
    }

    /// Length, mode, durability, close.
    fn finish(&mut self) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let file = self.open_file()?;
        if self.takes_positions() {
            self.set_length(file)?;
        }
        self.set_attributes(file)?;
        sync(file, self.durability, self.calls).map_err(|error| self.cannot(error, "sync"))?;
        self.route.close();
        match self.file.take().map(self.calls.close) {
            Some(Err(error)) => Err(self.cannot(error, "close")),
            _ => Ok(()),
        }
    }

    fn set_attributes(&self, file: &File) -> Result<()> {
        let Way::Rename { old: Some(old), .. } = &self.way else {
            return Ok(());
        };
        match (self.calls.set_attributes)(file, old) {
            // Without modes in the file system, or the right to set them, the new file stays private to its owner.
            Err(error)
                if !is_unsupported(&error) && error.kind() != io::ErrorKind::PermissionDenied =>
            {
                Err(self.cannot(error, "set the mode"))
            }
            _ => Ok(()),
        }
    }

    fn set_length(&self, file: &File) -> Result<()> {
        let end = self.end.load(Ordering::Relaxed);
        self.begin(file)?;
        // Also where the size hint, and so the space set aside, was too large.
        match file.metadata() {
            Ok(metadata) if metadata.len() != end => (self.calls.set_length)(file, end)
                .map_err(|error| self.cannot(error, "cut the file to its length")),
            _ => Ok(()),
        }
    }

    fn replace(&self, temporary: &Path) -> Result<()> {
        target::require_replaceable(&self.target, &self.name)?;
        match (self.calls.rename)(temporary, &self.target) {
            Ok(()) => Ok(()),
            Err(error) if is_unsupported(&error) => self.copy_onto_target(temporary),
            Err(error) => Err(self.cannot(error, "replace")),
        }
    }

    fn copy_onto_target(&self, temporary: &Path) -> Result<()> {
        let cannot = |error| self.cannot(error, "replace");
        let (from, to) = in_place::open_both(temporary, &self.target).map_err(cannot)?;
        self.require_unmapped(&to)?;
        in_place::copy(from, to, &self.target, self.durability, self.calls).map_err(cannot)?;
        // The copy is made; a file system that refuses this as well is left with two.
        let _ = std::fs::remove_file(temporary);
        Ok(())
    }

    fn sync_folder(&self) -> Result<()> {
        let (Durability::Full, Some(folder)) = (self.durability, self.target.parent()) else {
            return Ok(());
        };
        match (self.calls.sync_directory)(folder) {
            Err(error) if !is_unknown(&error) => Err(self.cannot(
                error,
                "sync the folder; the new file is in place, but a crash may undo that",
            )),
            _ => Ok(()),
        }
    }

    fn open_file(&self) -> Result<&File> {
        let file = self.file()?;
        match self.is_broken() {
            false => Ok(file),
            true => Err(self.error(ErrorKind::Io, "an earlier write failed")),
        }
    }

    fn file(&self) -> Result<&File> {
        let written = || self.error(ErrorKind::Closed, "everything was written already");
        self.file.as_ref().ok_or_else(written)
    }
}

impl Sink for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.open_file()?;
        if self.buffer.len() + bytes.len() > BUFFER_BYTES || bytes.len() >= DIRECT_BYTES {
            self.flush()?;
        }
        if bytes.len() >= DIRECT_BYTES {
            return self.put(bytes);
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(BUFFER_BYTES);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}

fn sync(file: &File, durability: Durability, calls: &Calls) -> io::Result<()> {
    match (calls.sync)(file, durability) {
        Err(error) if !is_unknown(&error) => Err(error),
        _ => Ok(()),
    }
}
