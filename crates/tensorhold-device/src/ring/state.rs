//! What the ring knows, under its lock.

use std::collections::VecDeque;

use tensorhold_core::Result;

use super::{Memory, RingUsage, limit};
use crate::device::Device;
use crate::pinned::Segment;
use crate::slot::Slot;
use crate::stream::Event;

pub(super) struct State {
    /// What was asked for by `set_ring_limit`.
    limit: Option<u64>,
    /// What it is without: that of the device that has asked last.
    pub(super) default_bytes: u64,
    segments: Vec<(u64, Segment)>,
    next_segment: u64,
    pub(super) free: Vec<Memory>,
    /// With copies under way, the oldest first.
    pub(super) flying: VecDeque<Memory>,
    /// How many are in the hands of threads.
    pub(super) n_lent: usize,
    /// How many are never used again.
    pub(super) n_lost: usize,
    /// How many slots each needs who says so.
    pub(super) needs: Vec<usize>,
    /// Whether a thread makes a segment just now.
    pub(super) is_growing: bool,
    /// Whether no more can be pinned, as far as is known.
    pub(super) is_stuck: bool,
    peak_slots: usize,
}

/// Segments that nobody uses, with their slots, to be freed when the lock is no longer held.
pub(super) struct Unused {
    // Events go first: they were made on the devices that the memory is unpinned from.
    _slots: Vec<Memory>,
    segments: Vec<(u64, Segment)>,
}

impl Unused {
    pub(super) fn size_bytes(&self) -> u64 {
        let sizes = self.segments.iter();
        sizes.map(|(_, segment)| segment.size_bytes() as u64).sum()
    }
}

impl State {
    pub(super) const fn new() -> State {
        State {
            limit: None,
            default_bytes: limit::DEFAULT_BYTES,
            segments: Vec::new(),
            next_segment: 0,
            free: Vec::new(),
            flying: VecDeque::new(),
            n_lent: 0,
            n_lost: 0,
            needs: Vec::new(),
            is_growing: false,
            is_stuck: false,
            peak_slots: 0,
        }
    }

    /// A slot whose copies have all happened, near to `device` where there is such.
    pub(super) fn lend(&mut self, device: Device) -> Option<Memory> {
        self.land_oldest();
        if self.free.is_empty() {
            self.land_all();
        }
        let is_near = |memory: &Memory| {
            let of = |(number, segment): &(u64, Segment)| {
                *number == memory.segment && segment.device() == device
            };
            self.segments.iter().any(of)
        };
        // The one that was given back last: its bytes may still be in the cache.
        let near = self.free.iter().rposition(is_near);
        let index = near.or(self.free.len().checked_sub(1))?;
        let memory = self.free.remove(index);
        self.note_lent();
        Some(memory)
    }

    /// The slot whose copies have been under way for longest.
    pub(super) fn lend_flying(&mut self) -> Option<Memory> {
        let memory = self.flying.pop_front()?;
        self.note_lent();
        Some(memory)
    }

    fn note_lent(&mut self) {
        self.n_lent += 1;
        self.peak_slots = self.peak_slots.max(self.n_lent + self.flying.len());
    }

    /// Frees those whose copies have happened, up to the first whose have not.
    fn land_oldest(&mut self) {
        while self.flying.front().is_some_and(has_landed) {
            self.free.extend(self.flying.pop_front());
        }
    }

    /// Frees all whose copies have happened.
    pub(super) fn land_all(&mut self) {
        let (landed, flying): (VecDeque<_>, _) = self.flying.drain(..).partition(has_landed);
        self.free.extend(landed);
        self.flying = flying;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn n_slots(&self) -> usize {
        self.segments
            .iter()
            .map(|(_, segment)| segment.n_slots())
            .sum()
    }

    /// How many slots the next segment is to have; 0 where the ring is not to grow.
    pub(super) fn growth(&self, limit_bytes: u64) -> usize {
        if self.is_growing || (self.is_stuck && !self.is_empty()) {
            return 0;
        }
        let room = self.room(limit_bytes).min(limit::SEGMENT_SLOTS);
        match self.needs.is_empty() {
            true => room,
            false => {
                let needed = self
                    .needs
                    .iter()
                    .fold(0_usize, |sum, &need| sum.saturating_add(need));
                room.min(needed.saturating_sub(self.n_slots() - self.n_lost))
            }
        }
    }

    /// How many slots fit under the limit.
    pub(super) fn room(&self, limit_bytes: u64) -> usize {
        limit::n_slots(limit_bytes).saturating_sub(self.n_slots())
    }

    pub(super) fn add(&mut self, segment: Segment) {
        let number = self.next_segment;
        self.next_segment += 1;
        let memory = |start| Memory {
            start,
            segment: number,
            event: None,
        };
        self.free.extend(segment.slots().map(memory));
        self.segments.push((number, segment));
    }

    pub(super) fn set_limit(&mut self, bytes: u64) {
        self.limit = Some(bytes);
        self.is_stuck = false;
    }

    /// What the ring may have, in bytes.
    ///
    /// # Errors
    /// `InvalidArgument` if the variable that says it is no number.
    pub(super) fn limit_bytes(&self) -> Result<u64> {
        limit::limit_bytes(self.limit, self.default_bytes)
    }

    /// How many slots the ring has over its limit.
    pub(super) fn excess_slots(&self) -> usize {
        let limit_bytes = self.limit_bytes().unwrap_or(self.default_bytes);
        self.n_slots().saturating_sub(limit::n_slots(limit_bytes))
    }

    /// Takes segments out, all slots of which are free, until they have `n_slots` or there are no more.
    pub(super) fn take_unused(&mut self, n_slots: usize) -> Unused {
        let mut taken = Vec::new();
        let mut n_taken = 0;
        while n_taken < n_slots {
            let is_free = |(number, segment): &(u64, Segment)| {
                let n_free = self.free.iter().filter(|memory| memory.segment == *number);
                n_free.count() == segment.n_slots()
            };
            let Some(index) = self.segments.iter().rposition(is_free) else {
                break;
            };
            let segment = self.segments.remove(index);
            n_taken += segment.1.n_slots();
            taken.push(segment);
            self.is_stuck = false;
        }
        let is_taken =
            |memory: &mut Memory| taken.iter().any(|(number, _)| *number == memory.segment);
        let slots = self.free.extract_if(.., is_taken).collect();
        Unused {
            _slots: slots,
            segments: taken,
        }
    }

    pub(super) fn usage(&self) -> RingUsage {
        let bytes = |is_pinned| {
            let segments = self.segments.iter();
            let such = segments.filter(|(_, segment)| segment.is_pinned() == is_pinned);
            such.map(|(_, segment)| segment.size_bytes() as u64).sum()
        };
        let slots_bytes = |n_slots: usize| (n_slots * Slot::BYTES) as u64;
        RingUsage {
            pinned_bytes: bytes(true),
            unpinned_bytes: bytes(false),
            limit_bytes: self.limit_bytes().unwrap_or(self.default_bytes),
            in_use_bytes: slots_bytes(self.n_lent + self.flying.len()),
            peak_in_use_bytes: slots_bytes(self.peak_slots),
        }
    }
}

fn has_landed(memory: &Memory) -> bool {
    memory.event.as_ref().is_none_or(Event::has_happened)
}
