//! Rows out of slots, side by side on the device.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Double, on_doubles, pattern};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tensorhold_core::ErrorKind;
use tensorhold_device::{CopyQueue, Slot, SlotRows};

/// What one slot carries, for one part each.
#[derive(Debug, Clone)]
struct Rows {
    width: usize,
    /// How much lies between two of them in the slot.
    gap: usize,
    n_rows: usize,
    /// How far from the ones before they begin in the slot.
    way: usize,
    /// Bytes of the part before them.
    at: usize,
}

fn rows() -> impl Strategy<Value = Rows> {
    let width = prop_oneof![0..4_usize, 1..300_usize];
    let gap = prop_oneof![Just(0_usize), 1..5_usize, 1..5000_usize];
    (width, gap, 0..40_usize, 0..100_usize, 0..50_usize).prop_map(
        |(width, gap, n_rows, way, at)| Rows {
            width,
            gap,
            n_rows,
            way,
            at,
        },
    )
}

/// Sends all of `slots`, and compares every byte of the device.
fn check(double: &Double, slots: &[Vec<Rows>]) {
    let queue = CopyQueue::new(double.device(0)).unwrap();
    let mut end = 0;
    let mut ranges = Vec::new();
    for rows in slots.iter().flatten() {
        // A margin that no copy may touch lies behind each.
        ranges.push(end..end + rows.at + rows.width * rows.n_rows);
        end += rows.at + rows.width * rows.n_rows + 16;
    }
    let buffer = queue.allocate(end as u64 + 1).unwrap();
    let mut expected = pattern(1, end);
    let address = buffer.address();
    double.write(address, &expected);
    let parts = buffer.split(&ranges);
    let mut next = 0;
    for (number, all) in slots.iter().enumerate() {
        let mut slot = Slot::take(queue.device()).unwrap();
        let bytes = pattern(number + 2, 1 << 21);
        slot[..bytes.len()].copy_from_slice(&bytes);
        let (mut end, mut sent) = (0, Vec::new());
        for rows in all {
            let &Rows {
                width,
                gap,
                n_rows,
                way,
                at,
            } = rows;
            // What is copied is scribbled over.
            let from = end + way;
            let pitch = width + gap;
            sent.push(SlotRows {
                from,
                width,
                pitch,
                n_rows,
                part: &parts[next],
                at,
            });
            for row in 0..n_rows {
                let to = ranges[next].start + at + row * width;
                let start = from + row * pitch;
                expected[to..to + width].copy_from_slice(&bytes[start..start + width]);
            }
            end = from + pitch * n_rows;
            next += 1;
        }
        slot.send_rows(&queue, number % CopyQueue::N_LANES, &sent)
            .unwrap();
    }
    let buffer = parts.into_iter().find_map(|part| part.join());
    queue.synchronize().unwrap();
    assert!(double.read(address, end) == expected, "{slots:?}");
    drop(buffer);
}

on_doubles! {
    fn rows_of_any_width_arrive_side_by_side(double, "delay_us=200,seed=5,scribble=1") {
        let slots = prop::collection::vec(prop::collection::vec(rows(), 1..5), 1..4);
        let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
        runner.run(&slots, |slots| {
            check(double, &slots);
            Ok(())
        }).unwrap();
        double.assert_clean();
    }

    fn rows_go_in_one_call_and_without_what_lies_between(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let parts = queue.allocate(700).unwrap().split(&[0..300, 300..700]);
        let rows = |from, width, pitch, n_rows, part| SlotRows { from, width, pitch, n_rows, part, at: 0 };
        double.reset();
        // What is one row behind the other takes no call of two dimensions.
        let sent = [
            rows(10, 1, 1000, 300, &parts[0]),
            rows(11, 4, 1000, 50, &parts[1]),
            rows(7, 0, 9, 100, &parts[1]),
            rows(7, 9, 9, 0, &parts[1]),
            rows(9, 100, 0, 1, &parts[1]),
        ];
        Slot::take(queue.device()).unwrap().send_rows(&queue, 1, &sent).unwrap();
        queue.synchronize().unwrap();
        assert_eq!(double.n_calls("Memcpy2DAsync"), 2);
        assert_eq!(double.n_calls("MemcpyAsync"), 1);
        assert_eq!(double.report()["copied"]["host_to_device"]["bytes"], 300 + 200 + 100);
        drop((parts, queue));
        double.assert_clean();
    }

    fn rows_that_do_not_fit_are_refused_and_nothing_is_sent(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let other = CopyQueue::new(double.device(0)).unwrap();
        let parts = queue.allocate(100).unwrap().split(&[0..50, 50..100]);
        let foreign = other.allocate(100).unwrap().split(std::slice::from_ref(&(0..100)));
        let ok = SlotRows { from: 0, width: 5, pitch: 7, n_rows: 10, part: &parts[1], at: 0 };
        let send = |rows: SlotRows<'_>| {
            Slot::take(queue.device()).unwrap().send_rows(&queue, 0, &[ok, rows])
        };
        let last = Slot::BYTES - 9 * 7 - 5;
        for rows in [
            SlotRows { n_rows: 11, ..ok },
            SlotRows { at: 1, ..ok },
            SlotRows { at: usize::MAX, ..ok },
            SlotRows { pitch: 4, ..ok },
            SlotRows { from: last + 1, ..ok },
            SlotRows { from: usize::MAX, ..ok },
            SlotRows { pitch: usize::MAX / 4, ..ok },
            SlotRows { width: usize::MAX, pitch: usize::MAX, ..ok },
            SlotRows { width: 0, pitch: 0, n_rows: usize::MAX, from: usize::MAX, ..ok },
            SlotRows { part: &foreign[0], ..ok },
        ] {
            let error = send(rows).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        assert_eq!(double.n_calls("Memcpy2DAsync"), 0);
        send(SlotRows { from: last, part: &parts[0], ..ok }).unwrap();
        assert_eq!(double.n_calls("Memcpy2DAsync"), 2);
        drop((parts, foreign, queue, other));
        double.assert_clean();
    }
}
