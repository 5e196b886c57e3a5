//! Bytes that the page cache holds, copied out of it or shown in it.
//!
//! A map shows them without a system call for each copy, but touching a page that was cut off the file ends the process.
//! So each use holds a lease: who wants to cut the file waits until the use is over.

use std::fs::File;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use tensorhold_core::ByteRange;

use super::calls::Calls;
use super::copy;
use super::lease::Lease;
use super::speeds::{Speeds, Trial};
use crate::platform;

/// Below this, a lease and a visit to the page tables cost more than a read.
pub(super) const MIN_COPY_BYTES: usize = 1 << 20;

/// As [`MIN_COPY_BYTES`], against reading bytes of which only some are wanted.
const MIN_SHOW_BYTES: u64 = 64 << 10;

/// So much may be shown before its pages are let go of: little beside a machine's memory, where the system wants them back.
pub(super) const FORGET_BYTES: usize = 256 << 20;

/// What is no further apart is let go of together.
const CLOSE_BYTES: usize = 2 << 20;

#[derive(Debug)]
pub(super) struct Warm {
    lease: Lease,
    map: MmapRaw,
    /// Which of [`ALL`] is fastest depends on what cannot be asked: how large the pages are that the cache holds the file in,
    /// and whether the destination was touched before.
    speeds: Speeds<{ ALL.len() }>,
    /// What was shown and still has its pages in the tables.
    shown: Mutex<Vec<Range<usize>>>,
    /// How much that may be, in bytes.
    max_shown: usize,
    calls: &'static Calls,
}

impl Warm {
    /// `None` where the file cannot be mapped or leased. Of what is shown, `max_shown` bytes may stay in the page tables.
    pub(super) fn open(
        file: &File,
        size_bytes: u64,
        max_shown: usize,
        calls: &'static Calls,
    ) -> Option<Warm> {
        let own = (calls.reopen)(file).ok()?;
        let len = usize::try_from(size_bytes).ok().filter(|len| *len > 0)?;
        let map = MmapOptions::new()
            .len(len)
            .no_reserve_swap()
            .map_raw_read_only(&own)
            .ok()?;
        let lease = Lease::new(own, calls);
        let warm = Warm {
            lease,
            map,
            speeds: Speeds::default(),
            shown: Mutex::default(),
            max_shown,
            calls,
        };
        warm.lease.hold(0)?;
        Some(warm)
    }

    /// The same for bytes that are read again at once: they are left in the processor's caches.
    pub(super) fn passed_on(self) -> Warm {
        Warm {
            speeds: Speeds::of_first(N_THROUGH_CACHES),
            ..self
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.lease.is_refused()
    }

    /// What the next copy should be made by, and what to [`record`](Warm::record) how long it took with.
    pub(super) fn next(&self) -> (Copying, Trial) {
        let trial = self.speeds.next();
        (ALL[trial.index()], trial)
    }

    pub(super) fn record(&self, trial: Trial, len: usize, took: Duration) {
        self.speeds.record(trial, len, took);
    }

    /// Fills `into` from the map; `false` where the bytes must be read.
    pub(super) fn copy(&self, position: u64, into: &mut [u8], copying: Copying) -> bool {
        let range = ByteRange::new(position, position.saturating_add(into.len() as u64));
        self.show(range, &mut |bytes| match copying {
            Copying::Stream => copy::stream(bytes, into),
            _ => into.copy_from_slice(bytes),
        })
    }

    /// Shows the bytes of `range` in place, if all of them are in the page cache: some of them may be of no interest, and are not
    /// to be read from the disk.
    pub(super) fn with_bytes(&self, range: ByteRange, use_: &mut dyn FnMut(&[u8])) -> bool {
        let is_cached = |range: ByteRange| {
            (self.calls.counted_bytes)(self.lease.file(), range.start, range.len())
                .is_some_and(|cached| cached >= range.len())
        };
        range.len() >= MIN_SHOW_BYTES && is_cached(range) && self.show(range, use_)
    }

    fn show(&self, range: ByteRange, use_: &mut dyn FnMut(&[u8])) -> bool {
        let places = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok());
        let Some((start, end)) = places.filter(|(_, end)| *end <= self.map.len()) else {
            return false;
        };
        let Some(_held) = self.lease.hold(range.end) else {
            return false;
        };
        // SAFETY: the range lies in the map, which is readable and lives as long as `self`. While the lease is held the file
        // reaches at least to its end, so that there is a page behind each byte, and nobody has it open for writing, so
        // that the bytes do not change.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.map.as_ptr().wrapping_add(start), end - start)
        };
        if (self.calls.populate)(bytes).is_err() {
            return false;
        }
        use_(bytes);
        self.forget_in_time(start..end);
        true
    }

    /// Lets go of what was shown once it is much: taking pages from the tables interrupts the other threads, however few they are.
    fn forget_in_time(&self, shown: Range<usize>) {
        let mut waiting = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(shown);
        if waiting.iter().map(Range::len).sum::<usize>() < self.max_shown {
            return;
        }
        let mut all = std::mem::take(&mut *waiting);
        drop(waiting);
        all.sort_unstable_by_key(|range| range.start);
        for close in all.chunk_by(|a, b| b.start.saturating_sub(a.end) <= CLOSE_BYTES) {
            let start = close[0].start;
            let end = close.iter().map(|range| range.end).max().unwrap_or(start);
            // SAFETY: the range lies in the map, which is a whole file's and read-only. Who reads there meanwhile finds the
            // same bytes again.
            unsafe { platform::forget(self.map.as_ptr().wrapping_add(start), end - start) };
        }
    }
}

/// How bytes come out of the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copying {
    /// By the system.
    Read,
    /// From the map, through the processor's caches.
    Map,
    /// From the map, past them.
    Stream,
}

const ALL: [Copying; 3] = [Copying::Read, Copying::Map, Copying::Stream];

/// The first of [`ALL`] leave in the caches what they have copied.
const N_THROUGH_CACHES: usize = 2;
