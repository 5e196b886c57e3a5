//! Copies from slots to parts of buffers.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "one part is a case like others"
)]

mod common;

use std::ops::Range;
use std::sync::Mutex;
use std::thread;

use common::{Double, on_doubles, pattern};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tensorhold_core::ErrorKind;
use tensorhold_device::{CopyQueue, Slot, SlotCopy, set_ring_limit};

/// What one case of the property does.
#[derive(Debug, Clone)]
struct Case {
    /// For each part, how many bytes lie before it, and how many it has.
    parts: Vec<(usize, usize)>,
    /// Pieces of parts end at each of these, which repeat.
    cuts: Vec<usize>,
    /// How many pieces go into a slot.
    n_pieces: usize,
    /// Whether a piece lies as far from the one before in the slot as it does on the device; these repeat.
    keeps: Vec<bool>,
    has_free_gaps: bool,
    n_threads: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let gap = prop_oneof![Just(0_usize), 1..300_usize, Just(256)];
    let size = prop_oneof![0..10_usize, 1..3000_usize];
    (
        prop::collection::vec((gap, size), 1..20),
        prop::collection::vec(1..2000_usize, 1..4),
        1..6_usize,
        prop::collection::vec(any::<bool>(), 1..7),
        any::<bool>(),
        1..4_usize,
    )
        .prop_map(
            |(parts, cuts, n_pieces, keeps, has_free_gaps, n_threads)| Case {
                parts,
                cuts,
                n_pieces,
                keeps,
                has_free_gaps,
                n_threads,
            },
        )
}

/// A piece of a part: which, and which bytes of it.
type Piece = (usize, Range<usize>);

fn pieces(case: &Case) -> Vec<Piece> {
    let mut cuts = case.cuts.iter().cycle();
    let mut pieces = Vec::new();
    for (index, &(_, len)) in case.parts.iter().enumerate() {
        let mut start = 0;
        while start < len {
            let end = len.min(start + cuts.next().unwrap());
            pieces.push((index, start..end));
            start = end;
        }
    }
    pieces
}

fn check(double: &Double, case: &Case) {
    let queue = CopyQueue::new(double.device(0)).unwrap();
    let mut end = 0;
    let ranges: Vec<_> = case
        .parts
        .iter()
        .map(|&(gap, len)| {
            let start = end + gap;
            end = start + len;
            start..end
        })
        .collect();
    // A margin that no copy may touch.
    let len = end + 300;
    let fresh = queue.allocate(len as u64).unwrap();
    let address = fresh.address();
    // SAFETY: the memory is kept by its owner; nobody else has it.
    let mut buffer = unsafe {
        tensorhold_device::DeviceBuffer::from_raw(&queue, address, len, fresh.into_owner())
    };
    if case.has_free_gaps {
        buffer = buffer.with_free_gaps();
    }
    let (before, wanted) = (pattern(1, len), pattern(2, len));
    double.write(address, &before);
    let parts = buffer.split(&ranges);
    let pieces = pieces(case);
    let groups = Mutex::new(pieces.chunks(case.n_pieces).enumerate());
    thread::scope(|scope| {
        for _ in 0..case.n_threads {
            scope.spawn(|| {
                loop {
                    let Some((number, group)) = groups.lock().unwrap().next() else {
                        break;
                    };
                    let mut slot = Slot::take(queue.device()).unwrap();
                    // The gaps that are sent along must not matter.
                    slot[..1 << 20].fill(0xEE);
                    let mut copies = Vec::new();
                    let (mut at, mut last) = (0, None);
                    for (nth, (index, range)) in group.iter().enumerate() {
                        let place = ranges[*index].start + range.start;
                        let keeps = case.keeps[(number + nth) % case.keeps.len()];
                        at += last.map_or(0, |last: usize| match keeps {
                            true => place - last,
                            false => 700,
                        });
                        slot[at..at + range.len()]
                            .copy_from_slice(&wanted[place..place + range.len()]);
                        copies.push(SlotCopy {
                            from: at..at + range.len(),
                            part: &parts[*index],
                            at: range.start,
                        });
                        at += range.len();
                        last = Some(place + range.len());
                    }
                    slot.send(&queue, number % CopyQueue::N_LANES, &copies)
                        .unwrap();
                }
            });
        }
    });
    let buffer = parts
        .into_iter()
        .filter_map(|part| part.join())
        .next()
        .unwrap();
    queue.synchronize().unwrap();
    let bytes = double.read(address, len);
    for range in &ranges {
        assert_eq!(bytes[range.clone()], wanted[range.clone()]);
    }
    let is_gap = |place: &usize| !ranges.iter().any(|range| range.contains(place));
    for place in (0..len).filter(is_gap) {
        let may_change = case.has_free_gaps && place < end;
        assert!(
            may_change || bytes[place] == before[place],
            "byte {place} was written to"
        );
    }
    drop(buffer);
}

on_doubles! {
    fn bytes_arrive_by_any_slots_in_any_order(double, "delay_us=200,seed=3,scribble=1") {
        set_ring_limit(16 << 20);
        let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
        runner.run(&cases(), |case| {
            check(double, &case);
            Ok(())
        }).unwrap();
        double.assert_clean();
    }

    fn neighbours_go_in_one_copy(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let check = |ranges: &[Range<usize>], unsent: Option<usize>, has_free_gaps: bool, n_calls: u64| {
            let fresh = queue.allocate(2048).unwrap();
            let address = fresh.address();
            // SAFETY: the memory is kept by its owner; nobody else has it.
            let buffer = unsafe { tensorhold_device::DeviceBuffer::from_raw(&queue, address, 2048, fresh.into_owner()) };
            let parts = match has_free_gaps {
                true => buffer.with_free_gaps(),
                false => buffer,
            }.split(ranges);
            let sent = ranges.iter().zip(&parts).enumerate().filter(|(index, _)| Some(*index) != unsent);
            let copies: Vec<_> = sent.map(|(_, (range, part))| {
                SlotCopy { from: 64 + range.start..64 + range.end, part, at: 0 }
            }).collect();
            double.reset();
            Slot::take(queue.device()).unwrap().send(&queue, 0, &copies).unwrap();
            assert_eq!(double.n_calls("MemcpyAsync"), n_calls, "{ranges:?}");
        };
        check(&[0..256, 256..300, 300..301], None, false, 1);
        check(&[0..200, 256..300, 512..1000], None, false, 3);
        check(&[0..200, 256..300, 512..1000], None, true, 1);
        // Nothing to copy is no copy, and a gap of 256 bytes is more than padding.
        check(&[0..0, 10..10], None, true, 0);
        check(&[0..256, 512..600], None, true, 2);
        // Another part lies in the gap.
        check(&[0..200, 210..220, 256..300], Some(1), true, 2);
        double.assert_no_violation();
    }

    fn copies_that_do_not_fit_are_refused_and_nothing_is_sent(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let other = CopyQueue::new(double.device(0)).unwrap();
        let parts = queue.allocate(100).unwrap().split(&[0..10, 50..100]);
        let foreign = other.allocate(100).unwrap().split(&[0..100]);
        let send = |lane, from, part, at| {
            Slot::take(queue.device()).unwrap().send(&queue, lane, &[
                SlotCopy { from: 0..1, part: &parts[0], at: 0 },
                SlotCopy { from, part, at },
            ])
        };
        for (lane, from, part, at) in [
            (0, 0..11, &parts[0], 0),
            (0, 0..1, &parts[0], 10),
            (0, 0..2, &parts[1], usize::MAX),
            (0, Slot::BYTES - 1..Slot::BYTES + 1, &parts[1], 0),
            (0, Range { start: 4, end: 3 }, &parts[1], 0),
            (0, 0..1, &foreign[0], 0),
            (2, 0..1, &parts[1], 0),
        ] {
            let error = send(lane, from, part, at).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        assert_eq!(double.n_calls("MemcpyAsync"), 0);
        send(1, Slot::BYTES - 1..Slot::BYTES, &parts[1], 49).unwrap();
        drop((parts, foreign, queue, other));
        double.assert_clean();
    }
}
