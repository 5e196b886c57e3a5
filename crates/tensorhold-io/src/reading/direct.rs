//! Reads past the page cache: the disk writes into our memory itself.
//!
//! It does so only in whole blocks, to addresses that suit it. The whole blocks of a read go to the first such address in the
//! destination, and are moved from there to where they belong: the few bytes between the two cost a pass over memory that is
//! about to be in the cache, against another piece of memory to read to and copy from. What hangs over at the two
//! ends, and small reads, go through a block of ours.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tensorhold_core::Result;

use super::calls::Calls;
use super::ring::{MIN_RING_BYTES, Reader, Rings};
use crate::{Buffer, interrupt};

/// What goes through our memory at once; only small reads do.
const BOUNCE_BYTES: usize = 1 << 20;

/// Below this, two reads of a block for the ends are more than one of everything.
const MIN_BODY_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    memory_alignment: usize,
    /// A power of two, as the other.
    block_bytes: usize,
    is_refused: AtomicBool,
    /// Memory that is not in use at the moment.
    bounces: Mutex<Vec<Buffer>>,
    rings: Rings,
    calls: &'static Calls,
}

/// The bytes could not be read this way.
pub(super) enum Failure {
    /// The system refused, or the file ended; another way says why, or can.
    Refused,
    Interrupted(tensorhold_core::Error),
}

impl Direct {
    /// `file`, to be read directly; `None` where that cannot be.
    pub(super) fn open(file: &File, calls: &'static Calls) -> Option<Direct> {
        let direct = (calls.open_direct)(file).ok()?;
        let (memory_alignment, block_bytes) = (calls.direct_alignment)(&direct)?;
        (block_bytes <= BOUNCE_BYTES && memory_alignment <= BOUNCE_BYTES).then_some(Direct {
            file: direct,
            memory_alignment,
            block_bytes,
            is_refused: AtomicBool::new(false),
            bounces: Mutex::default(),
            rings: Rings::new(calls),
            calls,
        })
    }

    /// Whether the file system took back what it promised.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    pub(super) fn read_at(&self, position: u64, into: &mut [u8]) -> Result<(), Failure> {
        let over = (position % self.block_bytes as u64) as usize;
        let first = (self.block_bytes - over) % self.block_bytes;
        let aligned = into.as_ptr().align_offset(self.memory_alignment);
        let room = into.len().saturating_sub(first.max(aligned));
        let len = room / self.block_bytes * self.block_bytes;
        if len < MIN_BODY_BYTES {
            return self.read_bounced(position, into);
        }
        let blocks = &mut into[aligned..aligned + len];
        for (index, piece) in blocks.chunks_mut(interrupt::PIECE_BYTES).enumerate() {
            let at = position + (first + index * interrupt::PIECE_BYTES) as u64;
            self.fill_whole(at, piece)?;
        }
        if aligned != first {
            into.copy_within(aligned..aligned + len, first);
        }
        let end = position + (first + len) as u64;
        self.read_bounced(position, &mut into[..first])?;
        self.read_bounced(end, &mut into[first + len..])
    }

    fn read_bounced(&self, position: u64, into: &mut [u8]) -> Result<(), Failure> {
        if into.is_empty() {
            return Ok(());
        }
        let mut memory = self.take_bounce().ok_or(Failure::Refused)?;
        let result = self.read_through(&mut memory, position, into);
        self.bounces().push(memory);
        result
    }

    fn read_through(
        &self,
        memory: &mut Buffer,
        position: u64,
        mut into: &mut [u8],
    ) -> Result<(), Failure> {
        let first = memory.as_ptr().align_offset(self.memory_alignment);
        let memory = memory
            .get_mut(first..first + BOUNCE_BYTES)
            .ok_or(Failure::Refused)?;
        let mut position = position;
        while !into.is_empty() {
            let over = (position % self.block_bytes as u64) as usize;
            let (now, later) = into.split_at_mut(into.len().min(BOUNCE_BYTES - over));
            let needed = over + now.len();
            let blocks = &mut memory[..needed.next_multiple_of(self.block_bytes)];
            self.fill(position - over as u64, blocks, needed)?;
            now.copy_from_slice(&blocks[over..needed]);
            position += now.len() as u64;
            into = later;
        }
        Ok(())
    }

    /// Fills whole `blocks` from `position` on, by the reader that is faster if they are many.
    fn fill_whole(&self, position: u64, blocks: &mut [u8]) -> Result<(), Failure> {
        let needed = blocks.len();
        if needed < MIN_RING_BYTES {
            return self.fill(position, blocks, needed);
        }
        let (reader, trial) = self.rings.next();
        let started = Instant::now();
        let is_done_so = match reader {
            Reader::Plain => self.fill(position, blocks, needed).map(|()| true)?,
            Reader::Ring => self.fill_by_ring(position, blocks)?,
        };
        if is_done_so {
            self.rings.record(trial, needed, started.elapsed());
        }
        Ok(())
    }

    /// Gives `false` where some of it had to be read plainly.
    fn fill_by_ring(&self, position: u64, mut blocks: &mut [u8]) -> Result<bool, Failure> {
        interrupt::check().map_err(Failure::Interrupted)?;
        let Some(pieces) = self.rings.read(&self.file, position, blocks) else {
            let needed = blocks.len();
            return self.fill(position, blocks, needed).map(|()| false);
        };
        let mut position = position;
        let mut is_whole = true;
        for piece in pieces {
            let (now, later) = blocks.split_at_mut(piece.len);
            let n_read = piece.n_read / self.block_bytes * self.block_bytes;
            is_whole &= n_read == piece.len;
            self.fill(
                position + n_read as u64,
                &mut now[n_read..],
                piece.len - n_read,
            )?;
            position += piece.len as u64;
            blocks = later;
        }
        Ok(is_whole)
    }

    /// Fills whole `blocks` from `position` on, of which the file may lack what is behind the first `needed` bytes.
    fn fill(&self, position: u64, blocks: &mut [u8], needed: usize) -> Result<(), Failure> {
        let mut n_read = 0;
        while n_read < needed {
            interrupt::check().map_err(Failure::Interrupted)?;
            let at = position + n_read as u64;
            match (self.calls.read_direct)(&self.file, &mut blocks[n_read..], at) {
                Ok(n) if n_read + n >= needed => return Ok(()),
                // The rest of a block cannot be asked for, so it is read again.
                Ok(n) if n >= self.block_bytes => n_read += n / self.block_bytes * self.block_bytes,
                Ok(_) => return Err(Failure::Refused),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.is_refused.store(true, Ordering::Relaxed);
                    return Err(Failure::Refused);
                }
            }
        }
        Ok(())
    }

    fn take_bounce(&self) -> Option<Buffer> {
        let kept = self.bounces().pop();
        kept.or_else(|| Buffer::allocate((BOUNCE_BYTES + self.memory_alignment) as u64).ok())
    }

    fn bounces(&self) -> std::sync::MutexGuard<'_, Vec<Buffer>> {
        self.bounces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
