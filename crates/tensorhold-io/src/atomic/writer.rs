//! One thread's hand in a file that several threads write.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::time::Instant;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::{AtomicFile, DIRECT_BYTES, calls};

/// What positions, lengths and addresses of writes past the page cache are multiples of: no disk asks for more in practice,
/// and one that does refuses, whereupon the page cache is used.
const BLOCK_BYTES: usize = 4096;

/// Writes places of one [`AtomicFile`], whatever other threads write elsewhere in it; each thread has one of its own.
///
/// Writes that begin on a multiple of [`Writer::WRITE_BYTES`] and are about as long can go past the page cache, where
/// that is possible and faster. Small parts are gathered into one system call.
#[derive(Debug)]
pub struct Writer<'a> {
    file: &'a AtomicFile,
    /// Made when it is first needed.
    bounce: Option<Bounce>,
}

impl AtomicFile {
    /// Whether several threads write it faster than one: past the page cache, where file systems let them in together.
    #[must_use]
    pub fn deserves_threads(&self) -> bool {
        self.route.choose(self).is_some()
    }

    /// A writer for one thread.
    ///
    /// # Errors
    /// `InvalidArgument` if the target [takes no positions](AtomicFile::takes_positions).
    pub fn writer(&self) -> Result<Writer<'_>> {
        self.require_positions()?;
        Ok(Writer {
            file: self,
            bounce: None,
        })
    }
}

impl Writer<'_> {
    /// The size of a write that is worth a turn at the disk. A writer holds so much memory at most.
    pub const WRITE_BYTES: usize = 8 << 20;

    /// Writes `parts`, one after the other, from `position` on. Where a write of another thread has failed, nothing is done: that
    /// thread has the error, and the file cannot be committed.
    ///
    /// # Errors
    /// `Io` if the system refuses; the file can then not be committed.
    pub fn write(&mut self, position: u64, parts: &[&[u8]]) -> Result<()> {
        // From here on the flag is not looked at, lest its error hide the one of the thread that failed.
        if self.file.is_broken() {
            return Ok(());
        }
        let file = self.file.file()?;
        let size_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        if position.checked_add(size_bytes as u64).is_none() {
            return Err(self
                .file
                .error(ErrorKind::InvalidArgument, "bytes past 2^64"));
        }
        self.file.begin(file)?;
        let mut rest = Rest { parts, skip: 0 };
        let mut at = position;
        while rest.size_bytes() > 0 {
            let past = self.file.route.choose(self.file);
            let n_written = match past {
                Some(past) if rest.size_bytes() >= BLOCK_BYTES && is_whole_block(at) => {
                    self.write_past(past, at, &rest)?
                }
                _ => self.write_through(file, at, &rest)?,
            };
            at += n_written as u64;
            rest.advance(n_written);
        }
        Ok(())
    }

    /// Writes whole blocks from the front of `rest` past the page cache; how many bytes, 0 if that turned out impossible.
    fn write_past(&mut self, past: &File, position: u64, rest: &Rest<'_, '_>) -> Result<usize> {
        let begun = Instant::now();
        let file = self.file;
        let blocks = match rest.aligned() {
            Some(bytes) => bytes,
            None => {
                let bounce = self.bounce()?;
                let n = rest.copy_to(bounce) / BLOCK_BYTES * BLOCK_BYTES;
                &bounce[..n]
            }
        };
        let n_written = match write_blocks(file, past, blocks, position) {
            Ok(n) => n,
            Err(error) if calls::is_unsupported(&error) => {
                file.route.refuse();
                0
            }
            Err(error) => {
                let range = ByteRange::new(position, position + blocks.len() as u64);
                return Err(file.refused(&error, range));
            }
        };
        file.route.note_past(n_written, begun);
        file.reach(position + n_written as u64);
        Ok(n_written)
    }

    /// Writes the first part of `rest`, or as many small ones as fit together, through the page cache.
    fn write_through(
        &mut self,
        through: &File,
        position: u64,
        rest: &Rest<'_, '_>,
    ) -> Result<usize> {
        let file = self.file;
        let first = rest.first();
        let bytes = match first.len() >= DIRECT_BYTES || first.len() == rest.size_bytes() {
            true => &first[..first.len().min(Self::WRITE_BYTES)],
            false => {
                let bounce = self.bounce()?;
                let n = rest.copy_small_to(bounce);
                &bounce[..n]
            }
        };
        let _turn = file.route.take_turn();
        let begun = Instant::now();
        file.put_all(through, position, bytes)?;
        file.route.note_through(bytes.len(), begun);
        Ok(bytes.len())
    }

    fn bounce(&mut self) -> Result<&mut [u8]> {
        if self.bounce.is_none() {
            self.bounce = Some(Bounce::new(Self::WRITE_BYTES).ok_or_else(|| {
                let message = format!("no memory for {} bytes", Self::WRITE_BYTES);
                Error::new(ErrorKind::NoMemory, message)
            })?);
        }
        Ok(self.bounce.as_mut().expect("it was made above").bytes())
    }
}

/// Writes all of `blocks`; fewer where the system stopped within a block.
fn write_blocks(file: &AtomicFile, past: &File, blocks: &[u8], position: u64) -> io::Result<usize> {
    let mut n_written = 0;
    while n_written < blocks.len() && n_written % BLOCK_BYTES == 0 {
        let at = position + n_written as u64;
        match (file.calls.write_direct)(past, &blocks[n_written..], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => n_written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What was written stays; the rest is then found to be unsupported, too.
            Err(error) if n_written > 0 && calls::is_unsupported(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(n_written)
}

fn is_whole_block(position: u64) -> bool {
    position.is_multiple_of(BLOCK_BYTES as u64)
}

/// Parts of which the first bytes are done.
struct Rest<'a, 'b> {
    parts: &'b [&'a [u8]],
    /// The bytes of the first part that are done.
    skip: usize,
}

impl<'a> Rest<'a, '_> {
    fn size_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum::<usize>() - self.skip
    }

    fn advance(&mut self, n_bytes: usize) {
        self.skip += n_bytes;
        while let Some((first, others)) = self.parts.split_first()
            && first.len() <= self.skip
        {
            self.skip -= first.len();
            self.parts = others;
        }
    }

    /// What is left of the first part that has bytes.
    fn first(&self) -> &'a [u8] {
        self.iter().next().unwrap_or_default()
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let skips = std::iter::once(self.skip).chain(std::iter::repeat(0));
        self.parts
            .iter()
            .zip(skips)
            .map(|(part, skip)| &part[skip..])
            .filter(|part| !part.is_empty())
    }

    /// The whole blocks of the first part, where its address allows to write them as they lie and they are many.
    fn aligned(&self) -> Option<&'a [u8]> {
        let first = self.first();
        let blocks = first.len() / BLOCK_BYTES * BLOCK_BYTES;
        let is_aligned = first.as_ptr().addr().is_multiple_of(BLOCK_BYTES);
        (is_aligned && blocks >= DIRECT_BYTES).then(|| &first[..blocks.min(Writer::WRITE_BYTES)])
    }

    /// Copies as much as `into` holds; how many bytes.
    fn copy_to(&self, into: &mut [u8]) -> usize {
        copy(self.iter(), into)
    }

    /// Copies up to the first large part, or as much as `into` holds; how many bytes.
    fn copy_small_to(&self, into: &mut [u8]) -> usize {
        copy(
            self.iter().take_while(|part| part.len() < DIRECT_BYTES),
            into,
        )
    }
}

fn copy<'a>(parts: impl Iterator<Item = &'a [u8]>, into: &mut [u8]) -> usize {
    let mut filled = 0;
    for part in parts {
        let n = part.len().min(into.len() - filled);
        into[filled..filled + n].copy_from_slice(&part[..n]);
        filled += n;
        if filled == into.len() {
            break;
        }
    }
    filled
}

/// Memory that a disk can fetch from.
#[derive(Debug)]
struct Bounce {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned by this value alone, and freeing it is not bound to a thread.
unsafe impl Send for Bounce {}

impl Bounce {
    /// `len` zeros, more than none; `None` where there is no memory.
    fn new(len: usize) -> Option<Bounce> {
        let layout = Layout::from_size_align(len.max(1), BLOCK_BYTES).ok()?;
        // SAFETY: the layout has at least one byte.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Bounce { ptr, layout })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `ptr` leads to `layout.size()` initialised bytes, which are borrowed from this value exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from `alloc_zeroed` with this layout, and is freed once.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}
