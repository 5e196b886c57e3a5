//! The slots of the process: how many there are, who waits for one, what is given back.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "one part is a case like others"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Double, Held, on_doubles, pattern};
use tensorhold_core::{Error, ErrorKind};
use tensorhold_device::{
    CopyQueue, Device, DevicePart, RingNeed, Slot, SlotCopy, release_ring, ring_usage,
    set_ring_limit,
};

const MIB: u64 = 1 << 20;

fn queue(double: &Double) -> Arc<CopyQueue> {
    CopyQueue::new(double.device(0)).unwrap()
}

/// A part that a whole slot fits in.
fn part(queue: &Arc<CopyQueue>) -> DevicePart {
    let buffer = queue.allocate(Slot::BYTES as u64).unwrap();
    buffer.split(&[0..Slot::BYTES]).pop().unwrap()
}

fn send(slot: Slot, queue: &CopyQueue, part: &DevicePart) {
    let copy = SlotCopy {
        from: 0..1000,
        part,
        at: 0,
    };
    slot.send(queue, 0, &[copy]).unwrap();
}

/// The error of who is asked twice whether to go on waiting for a slot.
fn give_up(device: Device) -> Error {
    let mut n_left = 2;
    let taken = Slot::take_while(device, &mut || {
        n_left -= 1;
        match n_left {
            0 => Err(Error::new(ErrorKind::Interrupted, "enough")),
            _ => Ok(()),
        }
    });
    taken.unwrap_err()
}

/// Waits for what another thread does, for as long as a slow machine may take.
#[track_caller]
fn eventually(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(1));
    }
}

on_doubles! {
    fn the_ring_is_small_first_and_grows_while_copies_are_waited_for(double, "held=1") {
        assert_eq!(ring_usage().limit_bytes, 256 * MIB);
        assert_eq!(ring_usage().pinned_bytes, 0);
        let queue = queue(double);
        let part = part(&queue);
        let slots: Vec<_> = (0..8).map(|_| Slot::take(queue.device()).unwrap()).collect();
        assert_eq!(ring_usage().pinned_bytes, 64 * MIB);
        assert_eq!(ring_usage().in_use_bytes, 64 * MIB);
        for slot in slots {
            send(slot, &queue, &part);
        }
        assert_eq!(ring_usage().in_use_bytes, 64 * MIB);
        thread::scope(|scope| {
            let _held = Held(double);
            scope.spawn(|| {
                // It waits for a copy that does not happen yet.
                send(Slot::take(queue.device()).unwrap(), &queue, &part);
            });
            eventually(|| ring_usage().pinned_bytes == 128 * MIB);
        });
        queue.synchronize().unwrap();
        let usage = ring_usage();
        assert_eq!(usage.in_use_bytes, 0);
        assert_eq!(usage.peak_in_use_bytes, 64 * MIB);
        assert_eq!(release_ring(), 128 * MIB);
        drop((part, queue));
        double.assert_clean();
    }

    fn the_ring_of_a_device_with_the_host_s_memory_stays_small(double, "integrated=1") {
        let queue = queue(double);
        let part = part(&queue);
        let slots: Vec<_> = (0..8).map(|_| Slot::take(queue.device()).unwrap()).collect();
        assert_eq!(ring_usage().limit_bytes, 64 * MIB);
        thread::scope(|scope| {
            scope.spawn(|| send(Slot::take(queue.device()).unwrap(), &queue, &part));
            slots.into_iter().for_each(|slot| send(slot, &queue, &part));
        });
        assert_eq!(ring_usage().pinned_bytes, 64 * MIB);
        // Whoever says otherwise is right.
        set_ring_limit(72 * MIB);
        let slots: Vec<_> = (0..9).map(|_| Slot::take(queue.device()).unwrap()).collect();
        assert_eq!(ring_usage().pinned_bytes, 72 * MIB);
        drop((slots, part, queue));
        double.assert_clean();
    }

    fn the_ring_never_passes_its_limit(double, "delay_us=300,scribble=1") {
        set_ring_limit(88 * MIB);
        let queue = queue(double);
        let part = part(&queue);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| for _ in 0..40 {
                    send(Slot::take(queue.device()).unwrap(), &queue, &part);
                });
            }
        });
        queue.synchronize().unwrap();
        let usage = ring_usage();
        assert_eq!(usage.limit_bytes, 88 * MIB);
        assert!(usage.pinned_bytes <= 88 * MIB && usage.peak_in_use_bytes <= 88 * MIB, "{usage:?}");
        assert!(double.report()["pinned"]["peak_bytes"].as_u64().unwrap() <= 88 * MIB);
        drop((part, queue));
        double.assert_clean();
    }

    fn a_lower_limit_gives_back_what_is_not_in_use(double, "") {
        let queue = queue(double);
        set_ring_limit(80 * MIB);
        // The first segment has eight slots, and the second, which another thread makes, the rest.
        let mut slots: Vec<_> = (0..9).map(|_| Slot::take(queue.device()).unwrap()).collect();
        assert_eq!(ring_usage().pinned_bytes, 80 * MIB);
        set_ring_limit(8 * MIB);
        assert_eq!(ring_usage().pinned_bytes, 80 * MIB);
        slots.truncate(8);
        set_ring_limit(8 * MIB);
        assert_eq!(ring_usage().pinned_bytes, 64 * MIB);
        slots.clear();
        set_ring_limit(0);
        assert_eq!(ring_usage().pinned_bytes, 0);
        // One slot there always is.
        drop(Slot::take(queue.device()).unwrap());
        assert_eq!(ring_usage().pinned_bytes, 8 * MIB);
        drop(queue);
        double.assert_clean();
    }

    fn a_slot_waits_for_the_copies_from_it_and_no_others(double, "held=1,scribble=1") {
        set_ring_limit(8 * MIB);
        let queue = queue(double);
        let part = part(&queue);
        let mut slot = Slot::take(queue.device()).unwrap();
        slot[..1000].copy_from_slice(&pattern(5, 1000));
        send(slot, &queue, &part);
        let is_taken = AtomicBool::new(false);
        thread::scope(|scope| {
            let _held = Held(double);
            scope.spawn(|| {
                let mut slot = Slot::take(queue.device()).unwrap();
                is_taken.store(true, Ordering::SeqCst);
                slot.fill(0);
            });
            eventually(|| double.n_calls("EventSynchronize") == 1);
            assert!(!is_taken.load(Ordering::SeqCst));
            // The ring's lock is free meanwhile.
            assert_eq!(ring_usage().in_use_bytes, 8 * MIB);
            assert_eq!(release_ring(), 0);
        });
        queue.synchronize().unwrap();
        assert_eq!(double.read(part.address(), 1000), pattern(5, 1000));
        drop((part, queue));
        double.assert_clean();
    }

    fn who_waits_for_other_threads_gets_the_slot_that_one_gives_back(double, "") {
        set_ring_limit(8 * MIB);
        let device = double.device(0);
        let slot = Slot::take(device).unwrap();
        let (taken, is_taken) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let slot = Slot::take(device);
                taken.send(slot.is_ok()).unwrap();
            });
            assert!(is_taken.recv_timeout(Duration::from_millis(50)).is_err());
            drop(slot);
            assert!(is_taken.recv().unwrap());
        });
        double.assert_clean();
    }

    fn the_ring_grows_no_larger_than_those_need_who_say_so(double, "") {
        let queue = queue(double);
        let need = RingNeed::new(20 * MIB);
        let mut slots: Vec<_> = (0..3).map(|_| Slot::take(queue.device()).unwrap()).collect();
        assert_eq!(ring_usage().pinned_bytes, 24 * MIB);
        assert!(Slot::try_take(queue.device()).unwrap().is_none());
        assert_eq!(ring_usage().pinned_bytes, 24 * MIB);
        let other = RingNeed::new(1);
        slots.push(Slot::take(queue.device()).unwrap());
        assert_eq!(ring_usage().pinned_bytes, 32 * MIB);
        // Nobody says any more how much it is.
        drop((need, other));
        slots.push(Slot::take(queue.device()).unwrap());
        assert_eq!(ring_usage().pinned_bytes, 96 * MIB);
        drop((slots, queue));
        double.assert_clean();
    }

    fn who_waits_for_copies_may_give_up(double, "held=1,scribble=1") {
        set_ring_limit(8 * MIB);
        let queue = queue(double);
        let part = part(&queue);
        let mut slot = Slot::take(queue.device()).unwrap();
        slot[..1000].copy_from_slice(&pattern(3, 1000));
        send(slot, &queue, &part);
        {
            let _held = Held(double);
            assert_eq!(give_up(queue.device()).message(), "enough");
            assert_eq!(ring_usage().in_use_bytes, 8 * MIB);
        }
        let slot = Slot::take_while(queue.device(), &mut || Ok(())).unwrap();
        assert_eq!(double.read(part.address(), 1000), pattern(3, 1000));
        drop((slot, part, queue));
        double.assert_clean();
    }

    fn who_waits_for_other_threads_may_give_up(double, "") {
        set_ring_limit(8 * MIB);
        let slot = Slot::take(double.device(0)).unwrap();
        assert_eq!(give_up(double.device(0)).message(), "enough");
        drop(slot);
        drop(Slot::take(double.device(0)).unwrap());
        double.assert_clean();
    }

    fn a_thread_that_panics_gives_its_slot_back(double, "") {
        set_ring_limit(8 * MIB);
        let device = double.device(0);
        let panicked = thread::spawn(move || {
            let _slot = Slot::take(device).unwrap();
            panic!("as it must");
        });
        assert!(panicked.join().is_err());
        assert_eq!(ring_usage().in_use_bytes, 0);
        drop(Slot::take(device).unwrap());
        double.assert_clean();
    }

    fn a_slot_goes_from_one_device_to_the_other(double, "scribble=1,delay_us=100") {
        set_ring_limit(8 * MIB);
        for round in 0..6 {
            let queue = CopyQueue::new(double.device(round % 2)).unwrap();
            let part = part(&queue);
            let mut slot = Slot::take(double.device(0)).unwrap();
            slot[..1000].copy_from_slice(&pattern(round, 1000));
            send(slot, &queue, &part);
            queue.synchronize().unwrap();
            let read = double.on_device(round % 2, || double.read(part.address(), 1000));
            assert_eq!(read, pattern(round, 1000));
        }
        assert_eq!(ring_usage().pinned_bytes, 8 * MIB);
        double.assert_clean();
    }

    fn less_is_pinned_where_more_is_refused(double, "register_max_mb=20") {
        drop(Slot::take(double.device(0)).unwrap());
        let usage = ring_usage();
        assert_eq!((usage.pinned_bytes, usage.unpinned_bytes), (16 * MIB, 0));
        double.assert_clean();
    }

    fn memory_that_cannot_be_registered_is_allocated(double, "fail=HostRegister:0:801") {
        let mut slot = Slot::take(double.device(0)).unwrap();
        assert!(slot.iter().all(|&byte| byte == 0));
        slot.fill(1);
        drop(slot);
        assert_eq!(double.alive().host_allocations, 1);
        let usage = ring_usage();
        assert_eq!((usage.pinned_bytes, usage.unpinned_bytes), (64 * MIB, 0));
        double.assert_clean();
    }

    fn where_nothing_can_be_pinned_copies_are_slow_and_right(double, "pinned_mb=0,scribble=1") {
        let queue = queue(double);
        let part = part(&queue);
        for round in 0..20 {
            let mut slot = Slot::take(queue.device()).unwrap();
            slot[..1000].copy_from_slice(&pattern(round, 1000));
            send(slot, &queue, &part);
            queue.synchronize().unwrap();
            assert_eq!(double.read(part.address(), 1000), pattern(round, 1000));
        }
        let usage = ring_usage();
        assert_eq!((usage.pinned_bytes, usage.unpinned_bytes), (0, 64 * MIB));
        drop((part, queue));
        double.assert_clean();
    }

    fn memory_may_be_released_and_limits_changed_at_any_time(double, "delay_us=100,seed=2,scribble=1") {
        let queue = queue(double);
        let is_over = AtomicBool::new(false);
        let check = &|thread: usize| {
            let part = part(&queue);
            for round in 0..60 {
                let wanted = pattern(thread * 100 + round, 1000);
                let mut slot = Slot::take(queue.device()).unwrap();
                slot[..1000].copy_from_slice(&wanted);
                send(slot, &queue, &part);
                queue.synchronize().unwrap();
                assert!(double.read(part.address(), 1000) == wanted);
            }
        };
        thread::scope(|scope| {
            let senders: Vec<_> = (0..4).map(|thread| scope.spawn(move || check(thread))).collect();
            scope.spawn(|| {
                for round in 0_u64.. {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    match round % 3 {
                        0 => drop(release_ring()),
                        1 => set_ring_limit((round % 11) * 8 * MIB),
                        _ => assert!(ring_usage().in_use_bytes <= 88 * MIB),
                    }
                    thread::yield_now();
                }
            });
            let ended: Vec<_> = senders.into_iter().map(|sender| sender.join()).collect();
            is_over.store(true, Ordering::SeqCst);
            assert!(ended.iter().all(Result::is_ok));
        });
        // What the test itself has read: every slot was pinned.
        assert_eq!(double.report()["pageable"]["n"], 4 * 60);
        drop(queue);
        double.assert_clean();
    }

    fn what_is_released_is_the_system_s_again(double, "") {
        let resident_bytes = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
            pages * 4096
        };
        let before = resident_bytes();
        drop(Slot::take(double.device(0)).unwrap());
        assert!(resident_bytes() > before + 60 * MIB);
        assert_eq!(release_ring(), 64 * MIB);
        assert!(resident_bytes() < before + 20 * MIB);
        assert_eq!(release_ring(), 0);
        double.assert_clean();
    }

    fn a_limit_that_is_no_number_is_named(double, "") {
        // SAFETY: no other thread of this process reads or writes the environment now.
        unsafe { std::env::set_var("TENSORHOLD_PINNED_MB", "lots") };
        let error = Slot::take(double.device(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.message(), "`TENSORHOLD_PINNED_MB` is `lots`, which is no number of MiB");
        // SAFETY: as above.
        unsafe { std::env::set_var("TENSORHOLD_PINNED_MB", "16") };
        drop(Slot::take(double.device(0)).unwrap());
        let usage = ring_usage();
        assert_eq!((usage.pinned_bytes, usage.limit_bytes), (16 * MIB, 16 * MIB));
        double.assert_clean();
    }
}
