//! Large direct reads cut in pieces that are in flight at once.
//!
//! One thread then keeps several disks busy; on a single disk, or with many threads, it gains little or loses. So it is tried
//! against plain reads.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::Calls;
use super::speeds::{Speeds, Trial};
use crate::interrupt;
use crate::platform::{MAX_RING_READS, Ring};

/// Below this there is too little to cut.
pub(super) const MIN_RING_BYTES: usize = 4 << 20;

/// No piece but the last is shorter, and all are multiples of it: a block is never longer.
const PIECE_UNIT_BYTES: usize = 1 << 20;

const _: () = assert!(interrupt::PIECE_BYTES <= 2 * PIECE_UNIT_BYTES * MAX_RING_READS);

/// By so much a ring must be faster: what it wins by less is noise, and not worth a descriptor and memory of the system.
const RING_HANDICAP: f64 = 1.05;

/// How a large read can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Plain,
    Ring,
}

const ALL: [Reader; 2] = [Reader::Plain, Reader::Ring];

pub(super) struct Rings {
    /// Those that are not in use at the moment.
    idle: Mutex<Vec<Ring>>,
    is_refused: AtomicBool,
    speeds: Speeds<{ ALL.len() }>,
    calls: &'static Calls,
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings")
            .field("is_refused", &self.is_refused)
            .field("speeds", &self.speeds)
            .finish_non_exhaustive()
    }
}

/// How much of one piece is there.
pub(super) struct Piece {
    pub len: usize,
    pub n_read: usize,
}

impl Rings {
    pub(super) fn new(calls: &'static Calls) -> Rings {
        Rings {
            idle: Mutex::default(),
            is_refused: AtomicBool::new(false),
            speeds: Speeds::default(),
            calls,
        }
    }

    /// How the next large read should be made, and what to [`record`](Rings::record) how long it took with.
    pub(super) fn next(&self) -> (Reader, Option<Trial>) {
        if self.is_refused.load(Ordering::Relaxed) {
            return (Reader::Plain, None);
        }
        let trial = self.speeds.next();
        (ALL[trial.index()], Some(trial))
    }

    pub(super) fn record(&self, trial: Option<Trial>, len: usize, took: Duration) {
        let Some(trial) = trial else { return };
        let took = match ALL[trial.index()] {
            Reader::Plain => took,
            Reader::Ring => took.mul_f64(RING_HANDICAP),
        };
        self.speeds.record(trial, len, took);
    }

    /// Reads whole `blocks` from `position` on; `None` where there is no ring.
    pub(super) fn read(&self, file: &File, position: u64, blocks: &mut [u8]) -> Option<Vec<Piece>> {
        let mut ring = self.take()?;
        let piece_bytes = blocks
            .len()
            .div_ceil(MAX_RING_READS)
            .next_multiple_of(PIECE_UNIT_BYTES);
        let (results, entered) =
            ring.read(file, position, blocks, piece_bytes, self.calls.enter_ring);
        if entered.as_ref().is_err_and(is_final) {
            self.refuse();
        } else if ring.is_usable() {
            self.idle().push(ring);
        }
        let pieces = blocks.chunks_mut(piece_bytes).zip(results);
        Some(
            pieces
                .map(|(piece, result)| self.piece(piece, result))
                .collect(),
        )
    }

    fn piece(&self, bytes: &mut [u8], result: io::Result<usize>) -> Piece {
        let result = (self.calls.ring_result)(bytes, result);
        if result.as_ref().is_err_and(is_final) {
            self.refuse();
        }
        Piece {
            len: bytes.len(),
            n_read: result.unwrap_or(0).min(bytes.len()),
        }
    }

    fn take(&self) -> Option<Ring> {
        let kept = self.idle().pop().filter(Ring::is_usable);
        kept.or_else(|| {
            let ring = (self.calls.set_up_ring)();
            if ring.as_ref().is_err_and(is_final) {
                self.refuse();
            }
            ring.ok()
        })
    }

    fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Ring>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the same would fail again.
fn is_final(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy
    )
}
