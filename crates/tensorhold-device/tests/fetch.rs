//! Copies from devices into slots.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::VecDeque;

use common::{Alive, Double, Held, on_doubles, pattern};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tensorhold_core::{ErrorKind, Result};
use tensorhold_device::{
    CopyQueue, Device, DeviceView, Fetching, Slot, SlotFetch, release_ring, ring_usage,
    set_ring_limit,
};

const LEN: usize = 20_000;
const PIECE_BYTES: usize = 3000;

/// Everything that a save does, with one fetch under way while the one before is used; the bytes.
fn save(double: &Double, device: Device, producer: usize) -> Result<Vec<u8>> {
    let queue = CopyQueue::new(device)?;
    let buffer = queue.allocate(LEN as u64)?;
    double.on_device(device.ordinal(), || {
        double.write(buffer.address(), &pattern(1, LEN))
    });
    queue.begin_after(producer)?;
    // SAFETY: the buffer outlives all that is fetched, and nobody writes to it.
    let view = unsafe { DeviceView::from_raw(&queue, buffer.address(), LEN) };
    let mut saved = Vec::new();
    let mut under_way = VecDeque::new();
    for (n, start) in (0..LEN).step_by(PIECE_BYTES).enumerate() {
        let part = view.part(start..LEN.min(start + PIECE_BYTES));
        let slot = match Slot::try_take(device)? {
            Some(slot) => slot,
            None => {
                finish(&mut saved, under_way.pop_front())?;
                Slot::take(device)?
            }
        };
        // In two runs.
        let half = part.len() / 2;
        let fetches = [
            SlotFetch {
                view: part.part(0..half),
                to: 100,
            },
            SlotFetch {
                view: part.part(half..part.len()),
                to: 5000,
            },
        ];
        under_way.push_back((slot.fetch(&queue, n % 2, &fetches)?, part.len()));
        if under_way.len() == 2 {
            finish(&mut saved, under_way.pop_front())?;
        }
    }
    while !under_way.is_empty() {
        finish(&mut saved, under_way.pop_front())?;
    }
    Ok(saved)
}

fn finish(saved: &mut Vec<u8>, first: Option<(Fetching<'_>, usize)>) -> Result<()> {
    if let Some((fetching, len)) = first {
        append(saved, &fetching.wait()?, len);
    }
    Ok(())
}

fn append(saved: &mut Vec<u8>, slot: &[u8], len: usize) {
    saved.extend(&slot[100..100 + len / 2]);
    saved.extend(&slot[5000..5000 + len - len / 2]);
}

/// What may stay behind where a call of this name fails, as for loads.
fn may_stay(name: &str) -> Alive {
    let none = Alive::default();
    match name {
        "StreamDestroy" => Alive { streams: 1, ..none },
        "EventDestroy" => Alive { events: 1, ..none },
        "Free" | "DeviceSynchronize" => Alive {
            allocations: 1,
            ..none
        },
        "HostUnregister" => Alive {
            registrations: 1,
            ..none
        },
        "SetDevice" => Alive {
            streams: 1,
            events: 1,
            allocations: 1,
            registrations: 1,
            host_allocations: 1,
        },
        _ => none,
    }
}

fn check_left(name: &str, nth: u64, before: Alive, after: Alive) {
    let may = may_stay(name);
    for (before, after, may) in [
        (before.streams, after.streams, may.streams),
        (before.events, after.events, may.events),
        (before.allocations, after.allocations, may.allocations),
        (before.registrations, after.registrations, may.registrations),
        (
            before.host_allocations,
            after.host_allocations,
            may.host_allocations,
        ),
    ] {
        assert!(
            (before..=before + may).contains(&after),
            "call {nth} of {name}: from {before} to {after}"
        );
    }
}

/// Lets each call of `name` fail in turn, until there are no more in a save; gives how many there were.
fn fail_each(double: &Double, device: Device, name: &str) -> u64 {
    for nth in 1.. {
        double.reset();
        let producer = double.on_device(device.ordinal(), || double.stream());
        let before = double.alive();
        double.configure(&format!("scribble=1,delay_us=200,fail={name}:{nth}:999"));
        let saved = save(double, device, producer);
        double.on_device(device.ordinal(), || double.call("DeviceSynchronize", &[]));
        release_ring();
        let report = double.report();
        double.configure("fail=");
        release_ring();
        assert_eq!(
            report["n_violations"], 0,
            "call {nth} of {name}: {}",
            report["violations"]
        );
        check_left(name, nth, before, double.alive());
        assert_eq!(ring_usage().in_use_bytes, 0, "call {nth} of {name}");
        assert_eq!(double.call("StreamDestroy", &[producer]), 0);
        match saved {
            Ok(bytes) => assert!(bytes == pattern(1, LEN), "call {nth} of {name}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Device, "{error}"),
        }
        if report["failures"] == 0 {
            return nth - 1;
        }
    }
    unreachable!()
}

/// Pieces of a device's memory: how many bytes lie before each, how many it has, and whether it lies as far from the one before
/// in the slot.
type Pieces = Vec<(usize, usize, bool)>;

fn check_pieces(double: &Double, pieces: &Pieces, lane: usize) {
    let queue = CopyQueue::new(double.device(0)).unwrap();
    let len: usize = pieces.iter().map(|(gap, len, _)| gap + len).sum();
    let buffer = queue.allocate(len.max(1) as u64).unwrap();
    let bytes = pattern(len, len);
    double.write(buffer.address(), &bytes);
    // SAFETY: the buffer outlives the fetch.
    let view = unsafe { DeviceView::from_raw(&queue, buffer.address(), len) };
    let mut slot = Slot::take(queue.device()).unwrap();
    slot.fill(0xAA);
    let (mut at, mut to, mut fetches) = (0, 17, Vec::new());
    let mut expected = vec![0xAA; Slot::BYTES];
    for &(gap, len, keeps) in pieces {
        at += gap;
        to += if keeps { gap } else { gap + 1 };
        fetches.push(SlotFetch {
            view: view.part(at..at + len),
            to,
        });
        expected[to..to + len].copy_from_slice(&bytes[at..at + len]);
        (at, to) = (at + len, to + len);
    }
    let fetched = slot.fetch(&queue, lane, &fetches).unwrap().wait().unwrap();
    assert!(*fetched == expected[..], "{pieces:?}");
}

on_doubles! {
    fn slots_get_the_bytes_of_the_pieces_and_nothing_else(double, "delay_us=100,seed=4,scribble=1") {
        set_ring_limit(16 << 20);
        let gap = prop_oneof![Just(0_usize), 1..300_usize];
        let strategy = (prop::collection::vec((gap, 0..3000_usize, any::<bool>()), 0..20), 0..2_usize);
        let run = TestRunner::new(Config::with_cases(40)).run(&strategy, |(pieces, lane)| {
            check_pieces(double, &pieces, lane);
            Ok(())
        });
        run.unwrap();
        double.assert_clean();
    }

    fn neighbours_are_one_copy(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let buffer = queue.allocate(4096).unwrap();
        let of = |start, len| {
            // SAFETY: the buffer outlives all fetches.
            unsafe { DeviceView::from_raw(&queue, buffer.address() + start, len) }
        };
        let view = of(0, 4096);
        let check = |fetches: &[(DeviceView<'_>, usize)], n_calls| {
            double.reset();
            let fetches: Vec<_> = fetches.iter().map(|&(view, to)| SlotFetch { view, to }).collect();
            Slot::take(queue.device()).unwrap().fetch(&queue, 0, &fetches).unwrap().wait().unwrap();
            assert_eq!(double.n_calls("MemcpyAsync"), n_calls, "{fetches:?}");
        };
        check(&[(view.part(0..100), 8), (view.part(100..100), 50), (view.part(100..300), 108)], 1);
        check(&[(view.part(0..100), 8), (view.part(100..300), 109)], 2);
        check(&[(view.part(0..100), 8), (view.part(101..300), 109)], 2);
        // Of neighbouring allocations no copy may be one.
        check(&[(of(0, 100), 8), (of(100, 200), 108)], 2);
        check(&[(view.part(3..3), 8)], 0);
        drop(buffer);
        drop(queue);
        double.assert_clean();
    }

    fn fetches_that_do_not_fit_are_refused_and_nothing_is_submitted(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let other = CopyQueue::new(double.device(0)).unwrap();
        let buffer = queue.allocate(100).unwrap();
        // SAFETY: the buffer outlives all fetches.
        let view = |queue| unsafe { DeviceView::from_raw(queue, buffer.address(), 100) };
        for (lane, view, to) in [
            (0, view(&*queue), Slot::BYTES - 99),
            (0, view(&*queue), usize::MAX),
            (0, view(&*other), 0),
            (2, view(&*queue), 0),
        ] {
            let first = SlotFetch { view: view.part(0..1), to: 0 };
            let error = Slot::take(queue.device()).unwrap()
                .fetch(&queue, lane, &[first, SlotFetch { view, to }])
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        assert_eq!((double.n_calls("MemcpyAsync"), ring_usage().in_use_bytes), (0, 0));
    }

    fn several_fetches_are_under_way_at_once_and_each_is_waited_for_alone(double, "held=1") {
        let _held = Held(double);
        let device = double.device(1);
        let queues = [CopyQueue::new(device).unwrap(), CopyQueue::new(device).unwrap()];
        let buffers = queues.each_ref().map(|queue| queue.allocate(LEN as u64).unwrap());
        let fetch = |n: usize| {
            // SAFETY: the buffers outlive the fetches.
            let view = unsafe { DeviceView::from_raw(&queues[n], buffers[n].address(), LEN) };
            let slot = Slot::take(device).unwrap();
            slot.fetch(&queues[n], 0, &[SlotFetch { view, to: 0 }]).unwrap()
        };
        let fetches = [fetch(0), fetch(1)];
        assert_eq!(double.report()["under_way"], 2);
        assert_eq!(ring_usage().in_use_bytes, 2 * Slot::BYTES as u64);
        double.configure("held=0");
        for fetching in fetches {
            fetching.wait().unwrap();
        }
        assert_eq!(ring_usage().in_use_bytes, 0);
        drop(buffers);
        drop(queues);
        double.assert_clean();
    }

    fn a_fetch_that_is_dropped_gives_its_slot_back_when_it_has_happened(double, "delay_us=20000") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let buffer = queue.allocate(LEN as u64).unwrap();
        // SAFETY: the buffer outlives the fetch.
        let view = unsafe { DeviceView::from_raw(&queue, buffer.address(), LEN) };
        let slot = Slot::take(queue.device()).unwrap();
        drop(slot.fetch(&queue, 1, &[SlotFetch { view, to: 0 }]).unwrap());
        assert_eq!(double.report()["under_way"], 0);
        assert_eq!(ring_usage().in_use_bytes, 0);
        drop(buffer);
        drop(queue);
        double.assert_clean();
    }

    fn where_nothing_can_be_pinned_fetches_are_slow_and_right(double, "pinned_mb=0,delay_us=200") {
        let saved = save(double, double.device(1), 0).unwrap();
        assert!(saved == pattern(1, LEN));
        assert!(ring_usage().unpinned_bytes > 0);
        double.assert_clean();
    }

    fn who_tries_to_take_a_slot_does_not_wait(double, "") {
        set_ring_limit(16 << 20);
        let device = double.device(0);
        let slots = [Slot::take(device).unwrap(), Slot::take(device).unwrap()];
        assert!(Slot::try_take(device).unwrap().is_none());
        drop(slots);
        assert!(Slot::try_take(device).unwrap().is_some());
        double.assert_clean();
    }

    fn what_is_fetched_is_what_the_producer_had_written(double, "delay_us=2000,seed=6") {
        for producer in [0, double.stream()] {
            let queue = CopyQueue::new(double.device(0)).unwrap();
            let buffer = queue.allocate(LEN as u64).unwrap();
            double.write(buffer.address(), &pattern(1, LEN));
            double.configure("held=1");
            let written = pattern(2, LEN);
            let from = written.as_ptr().expose_provenance();
            assert_eq!(double.call("HostRegister", &[from, LEN, 1]), 0);
            assert_eq!(double.call("MemcpyAsync", &[buffer.address(), from, LEN, 1, producer]), 0);
            queue.begin_after(producer).unwrap();
            // SAFETY: the buffer outlives the fetch.
            let view = unsafe { DeviceView::from_raw(&queue, buffer.address(), LEN) };
            let slot = Slot::take(queue.device()).unwrap();
            let fetching = slot.fetch(&queue, 1, &[SlotFetch { view, to: 0 }]).unwrap();
            double.configure("held=0");
            assert!(fetching.wait().unwrap()[..LEN] == written[..]);
            assert_eq!(double.call("HostUnregister", &[from]), 0);
        }
        double.assert_no_violation();
    }

    fn each_call_may_fail(double, "") {
        set_ring_limit(24 << 20);
        for device in [0, 1] {
            for name in [
                "GetDevice", "SetDevice", "DeviceSynchronize", "Malloc", "Free", "HostRegister", "HostUnregister",
                "MemcpyAsync", "StreamCreateWithFlags", "StreamDestroy", "StreamSynchronize", "StreamWaitEvent",
                "EventCreateWithFlags", "EventRecord", "EventSynchronize", "EventDestroy",
            ] {
                let n_calls = fail_each(double, double.device(device), name);
                assert!(n_calls > 0 || name == "SetDevice" || name == "DeviceSynchronize", "{name}");
            }
        }
    }

    fn a_fetch_that_fails_late_is_an_error_and_loses_its_slots(double, "delay_us=100,fail=MemcpyAsync:3:700:async") {
        set_ring_limit(24 << 20);
        let error = save(double, double.device(0), 0).unwrap_err();
        assert!(error.message().contains("an illegal memory access was encountered (code 700)"), "{error}");
        assert_eq!(ring_usage().in_use_bytes, 0);
        release_ring();
        double.assert_no_violation();
    }
}
