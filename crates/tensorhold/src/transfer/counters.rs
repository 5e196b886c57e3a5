//! What a transfer did, and what it took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tensorhold_io::Way;

use super::gds::GdsStats;

/// What a transfer did so far, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct TransferStats {
    /// The bytes that the plan wants.
    pub wanted_bytes: u64,
    /// The bytes that were read or copied out of files, with gaps that were read along.
    pub read_bytes: u64,
    /// The reads.
    pub n_reads: u64,
    /// Since the start; until the last read ended, once all have.
    pub elapsed: Duration,
    /// Of all workers together: reading, with the copy into place.
    pub reading: Duration,
    /// Of all workers together: waiting for room under the limit of memory.
    pub waiting: Duration,
    /// The threads besides the caller's.
    pub n_threads: usize,
    /// How each file was read.
    pub ways: Vec<Way>,
    /// What became of the wish that tensors go to devices past the host's memory, where a file was opened with it.
    pub gds: Option<GdsStats>,
}

impl TransferStats {
    /// Wanted bytes in a nanosecond, which is 10^9 bytes a second.
    #[must_use]
    pub fn gb_per_second(&self) -> f64 {
        self.wanted_bytes as f64 / self.elapsed.as_nanos().max(1) as f64
    }
}

#[derive(Debug)]
pub(super) struct Counters {
    start: Instant,
    read_bytes: AtomicU64,
    n_reads: AtomicU64,
    reading_ns: AtomicU64,
    waiting_ns: AtomicU64,
    last_ns: AtomicU64,
}

impl Counters {
    pub fn start() -> Counters {
        Counters {
            start: Instant::now(),
            read_bytes: AtomicU64::new(0),
            n_reads: AtomicU64::new(0),
            reading_ns: AtomicU64::new(0),
            waiting_ns: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
        }
    }

    pub fn count_read(&self, bytes: u64, begun: Instant) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        self.reading_ns
            .fetch_add(nanoseconds(now - begun), Ordering::Relaxed);
        self.last_ns
            .fetch_max(nanoseconds(now - self.start), Ordering::Relaxed);
    }

    pub fn count_wait(&self, begun: Instant) {
        self.waiting_ns
            .fetch_add(nanoseconds(begun.elapsed()), Ordering::Relaxed);
    }

    pub fn stats(
        &self,
        wanted_bytes: u64,
        ways: Vec<Way>,
        gds: Option<GdsStats>,
        n_threads: usize,
    ) -> TransferStats {
        let duration = |ns: &AtomicU64| Duration::from_nanos(ns.load(Ordering::Relaxed));
        TransferStats {
            wanted_bytes,
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            n_reads: self.n_reads.load(Ordering::Relaxed),
            elapsed: duration(&self.last_ns),
            reading: duration(&self.reading_ns),
            waiting: duration(&self.waiting_ns),
            n_threads,
            ways,
            gds,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
