//! Gives pages of a file back to the system once their bytes were carried elsewhere.
//!
//! The system gives no page up of which only a part is named, and holds many pages as one. So neighbours that were carried
//! are named together with what is new, and everything once more at the end.

use std::sync::{Arc, Mutex, PoisonError};

use tensorhold_core::ByteRange;

use super::calls::Calls;
use crate::Pread;

/// So much is carried before its pages are given back: a call for each of many small reads would be dear.
pub(super) const WAITING_BYTES: u64 = 32 << 20;

/// So far beside what was carried may pages lie that hold a part of it: the largest that systems hold as one.
const REACH_BYTES: u64 = 2 << 20;

/// What is no further apart is one, with what the system has read ahead between.
const CLOSE_BYTES: u64 = 256 << 10;

/// What was carried of one file.
#[derive(Debug)]
pub(super) struct Behind {
    file: Arc<Pread>,
    carried: Mutex<Carried>,
    calls: &'static Calls,
}

#[derive(Debug, Default)]
struct Carried {
    /// Ascending, and further apart than what is close.
    all: Vec<ByteRange>,
    /// Not given back yet.
    waiting: Vec<ByteRange>,
    waiting_bytes: u64,
}

impl Behind {
    pub(super) fn new(file: &Arc<Pread>, calls: &'static Calls) -> Behind {
        Behind {
            file: Arc::clone(file),
            carried: Mutex::default(),
            calls,
        }
    }

    /// Notes that the bytes of `range` are wanted no more, and gives pages back if there are enough.
    pub(super) fn note(&self, range: ByteRange) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        let due = carried.add(range);
        drop(carried);
        self.give_back(due);
    }

    fn give_back(&self, ranges: Vec<ByteRange>) {
        for range in ranges {
            (self.calls.give_back)(self.file.file(), range.start, range.len());
        }
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let carried = self
            .carried
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut carried.all);
        self.give_back(all);
    }
}

impl Carried {
    /// Adds `range`; gives what is to be given back now.
    fn add(&mut self, range: ByteRange) -> Vec<ByteRange> {
        let close = self.join(range);
        let near = ByteRange::new(
            close.start.max(range.start.saturating_sub(REACH_BYTES)),
            close.end.min(range.end.saturating_add(REACH_BYTES)),
        );
        self.waiting.push(near);
        self.waiting_bytes += range.len();
        if self.waiting_bytes < WAITING_BYTES {
            return Vec::new();
        }
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Joins `range` with those that are close to it; gives what they are together.
    fn join(&mut self, range: ByteRange) -> ByteRange {
        let is_before = |other: &ByteRange| other.end.saturating_add(CLOSE_BYTES) < range.start;
        let begins_in_time =
            |other: &ByteRange| other.start <= range.end.saturating_add(CLOSE_BYTES);
        let first = self.all.partition_point(is_before);
        let end = self.all.partition_point(begins_in_time);
        let joined = self.all[first..end].iter().fold(range, |joined, other| {
            ByteRange::new(joined.start.min(other.start), joined.end.max(other.end))
        });
        self.all.splice(first..end, [joined]);
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut carried = Carried::default();
        for &(start, end) in ranges {
            carried.add(ByteRange::new(start << 10, end << 10));
        }
        let all = carried.all.iter();
        all.map(|range| (range.start >> 10, range.end >> 10))
            .collect()
    }

    #[test]
    fn neighbours_are_one_in_whatever_order_they_come() {
        assert_eq!(joined(&[(0, 8), (8, 16)]), [(0, 16)]);
        assert_eq!(joined(&[(900, 1000), (0, 100)]), [(0, 100), (900, 1000)]);
        let three = [(900, 1000), (0, 100), (300, 700)];
        assert_eq!(joined(&three), [(0, 1000)]);
        assert_eq!(joined(&[(0, 100), (5000, 5001), (20, 30)]).len(), 2);
    }

    #[test]
    fn what_waits_is_given_back_when_it_is_enough_with_what_it_touches() {
        let mib = |start: u64, end: u64| ByteRange::new(start << 20, end << 20);
        let mut carried = Carried::default();
        assert_eq!(carried.add(mib(100, 131)), []);
        assert_eq!(carried.add(mib(131, 139)), [mib(100, 131), mib(129, 139)]);
        assert_eq!(carried.add(mib(139, 160)), []);
        assert_eq!(carried.add(mib(0, 11)), [mib(137, 160), mib(0, 11)]);
    }
}
