//! Memory of devices, and its owners.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "one part is a case like others"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Double, on_doubles};
use tensorhold_core::ErrorKind;
use tensorhold_device::{CopyQueue, DeviceBuffer, DevicePart, Slot, SlotCopy};

/// An owner that notes how many copies are under way when it goes, plus one.
struct Owner {
    double: usize,
    n_under_way: Arc<AtomicU64>,
}

impl Owner {
    fn new(double: &Double, n_under_way: &Arc<AtomicU64>) -> Box<Owner> {
        Box::new(Owner {
            double: std::ptr::from_ref(double).expose_provenance(),
            n_under_way: Arc::clone(n_under_way),
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: each test drops its owners before its double.
        let double = unsafe { &*std::ptr::with_exposed_provenance::<Double>(self.double) };
        let n = double.report()["under_way"].as_u64().unwrap();
        self.n_under_way.store(n + 1, Ordering::SeqCst);
    }
}

fn send(queue: &CopyQueue, parts: &[DevicePart]) {
    for (lane, part) in parts.iter().enumerate() {
        let copy = SlotCopy {
            from: 0..part.len(),
            part,
            at: 0,
        };
        Slot::take(queue.device())
            .unwrap()
            .send(queue, lane % 2, &[copy])
            .unwrap();
    }
}

on_doubles! {
    fn the_owner_goes_when_no_copy_is_under_way(double, "delay_us=20000") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let memory = queue.allocate(4000).unwrap();
        let n_under_way = Arc::new(AtomicU64::new(0));
        let parts = || {
            n_under_way.store(0, Ordering::SeqCst);
            let owner = Owner::new(double, &n_under_way);
            // SAFETY: `memory` outlives all copies.
            unsafe { DeviceBuffer::from_raw(&queue, memory.address(), 4000, owner) }
                .split(&[0..1000, 1000..4000])
        };
        // Without being joined, as after a failure.
        let abandoned = parts();
        send(&queue, &abandoned);
        drop(abandoned);
        assert_eq!(n_under_way.load(Ordering::SeqCst), 1);
        // Joined, and dropped all the same.
        let joined = parts();
        send(&queue, &joined);
        drop(joined.into_iter().filter_map(DevicePart::join).next().unwrap());
        assert_eq!(n_under_way.load(Ordering::SeqCst), 1);
        // Taken out: nothing waits.
        let taken = parts();
        send(&queue, &taken);
        drop(taken.into_iter().filter_map(DevicePart::join).next().unwrap().into_owner());
        assert_eq!(n_under_way.load(Ordering::SeqCst), 3);
        drop((memory, queue));
        double.assert_clean();
    }

    fn only_the_last_part_of_a_whole_buffer_gives_it_back(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let buffer = queue.allocate(1000).unwrap();
        let address = buffer.address();
        assert_eq!((address % 256, buffer.len(), buffer.is_empty()), (0, 1000, false));
        let mut parts = buffer.split(&[0..10, 10..10, 600..1000]);
        assert_eq!(parts[2].address(), address + 600);
        assert_eq!((parts[2].len(), parts[1].is_empty()), (400, true));
        let last = parts.pop().unwrap();
        assert!(parts.into_iter().all(|part| part.join().is_none()));
        let buffer = last.join().unwrap();
        assert_eq!((buffer.address(), buffer.len()), (address, 1000));
        let mut parts = buffer.split(&[0..1, 1..2]);
        drop(parts.pop());
        assert!(parts.pop().unwrap().join().is_none());
        assert_eq!(double.alive().allocations, 0);
        assert_eq!(queue.allocate(0).unwrap().address(), 0);
        drop(queue);
        double.assert_clean();
    }

    fn memory_that_was_taken_out_is_freed_after_its_copies(double, "delay_us=20000,scribble=1") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let parts = queue.allocate(4000).unwrap().split(&[0..1000, 1000..4000]);
        send(&queue, &parts);
        let buffer = parts.into_iter().filter_map(DevicePart::join).next().unwrap();
        drop(buffer.into_owner());
        drop(queue);
        double.assert_clean();
    }

    fn a_device_that_is_full_says_what_it_has(double, "memory_mb=1") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let kept = queue.allocate(1 << 19).unwrap();
        let error = queue.allocate(600_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoMemory);
        let device = queue.device();
        assert_eq!(
            error.message(),
            format!("device {device} has no room for 600000 bytes: 524288 of 1048576 are free")
        );
        // The program's own calls do not hear of it.
        assert_eq!(double.call("GetLastError", &[]), 0);
        drop(kept);
        queue.allocate(600_000).unwrap();
        drop(queue);
        double.assert_clean();
    }
}
