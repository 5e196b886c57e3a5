//! Whether writes go through the page cache or past it.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::way::Way;
use super::{AtomicFile, Durability};
use crate::platform;

/// The page cache takes a mebibyte in a fifth of this; what takes longer waits for memory or for the disk.
const SLOW_NS: u64 = 700_000;

/// So many writes of each kind are measured before one is preferred.
const TRIALS: u64 = 2;

/// How the writes of one file went so far.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// The file once more, opened to be written past the page cache; `None` where it cannot be.
    past_cache: OnceLock<Option<File>>,
    is_refused: AtomicBool,
    through: Pace,
    past: Pace,
    /// Held by the thread that writes through the page cache.
    turn: Mutex<()>,
}

impl Route {
    /// Where the next write goes: the file to write past the page cache, or `None` for the ordinary one.
    ///
    /// What must reach the disk anyway goes there at once. Else the page cache is preferred until it turns out slow: then
    /// the disk is tried, and whatever was faster lately is used.
    pub(super) fn choose(&self, file: &AtomicFile) -> Option<&File> {
        if self.is_refused.load(Ordering::Relaxed) || !is_wanted(file, &self.through, &self.past) {
            return None;
        }
        self.past_cache.get_or_init(|| open(file)).as_ref()
    }

    /// The file system does not take what was tried.
    pub(super) fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// The right to write through the page cache. File systems let one thread at a time into a file, and those that
    /// wait for it there take the processor from it.
    pub(super) fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_past(&self, size_bytes: usize, begun: Instant) {
        self.past.note(size_bytes, begun.elapsed());
    }

    pub(super) fn note_through(&self, size_bytes: usize, begun: Instant) {
        self.through.note(size_bytes, begun.elapsed());
    }

    pub(super) fn close(&mut self) {
        self.past_cache = OnceLock::from(None);
    }
}

fn is_wanted(file: &AtomicFile, through: &Pace, past: &Pace) -> bool {
    if file
        .size_hint
        .is_none_or(|size| size < file.calls.direct_from_bytes)
    {
        return false;
    }
    if file.durability != Durability::None {
        return true;
    }
    if through.n_writes() < TRIALS || through.ns_per_mib() < SLOW_NS {
        return false;
    }
    past.n_writes() < TRIALS || past.ns_per_mib() < through.ns_per_mib()
}

fn open(file: &AtomicFile) -> Option<File> {
    let Way::Rename { temporary, .. } = &file.way else {
        return None;
    };
    let ordinary = file.file.as_ref()?;
    if platform::is_network(ordinary) || platform::is_in_memory(ordinary) {
        return None;
    }
    (file.calls.open_direct)(temporary.path()).ok()
}

/// How long writes take, the fastest of the last ones counting most: now and then one waits for other programs.
#[derive(Debug, Default)]
struct Pace {
    n_writes: AtomicU64,
    ns_per_mib: AtomicU64,
}

impl Pace {
    /// Small writes say more of the system call than of the way.
    const MIN_BYTES: usize = 1 << 20;

    fn note(&self, size_bytes: usize, took: Duration) {
        if size_bytes < Pace::MIN_BYTES {
            return;
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let now = ns / (size_bytes / Pace::MIN_BYTES) as u64;
        // Two threads at once may lose a measurement, which does no harm.
        let next = match self.n_writes.fetch_add(1, Ordering::Relaxed) {
            0 => now,
            _ => now.min(self.ns_per_mib().saturating_mul(5) / 4),
        };
        self.ns_per_mib.store(next, Ordering::Relaxed);
    }

    fn n_writes(&self) -> u64 {
        self.n_writes.load(Ordering::Relaxed)
    }

    fn ns_per_mib(&self) -> u64 {
        self.ns_per_mib.load(Ordering::Relaxed)
    }
}
