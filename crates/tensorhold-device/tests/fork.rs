//! A child of a process that uses devices.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::panic;

use common::on_doubles;
use tensorhold_core::{Error, ErrorKind};
use tensorhold_device::{
    CopyQueue, DevicePart, RingUsage, Runtime, Slot, SlotCopy, release_ring, ring_usage,
    set_ring_limit,
};

/// Whether `work` gives `true` in a child of this process.
fn in_a_child(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses no thread or lock of the parent's but the allocator's, which the C library sees to, and
    // ends without going back.
    match unsafe { libc::fork() } {
        0 => {
            let is_right = panic::catch_unwind(panic::AssertUnwindSafe(work)).unwrap_or(false);
            // SAFETY: it does not return.
            unsafe { libc::_exit(i32::from(!is_right)) }
        }
        child => {
            let mut status = -1;
            // SAFETY: `status` is alive and of the kind that is written.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            status == 0
        }
    }
}

fn copy(part: &DevicePart) -> SlotCopy<'_> {
    SlotCopy {
        from: 0..50,
        part,
        at: 0,
    }
}

fn is_refused<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| {
        error.kind() == ErrorKind::Device
            && error.message() == "devices do not survive a fork; start the process with spawn"
    })
}

on_doubles! {
    fn a_child_is_refused_and_touches_nothing(double, "delay_us=5000") {
        let device = double.device(0);
        let queue = CopyQueue::new(device).unwrap();
        let parts = queue.allocate(100).unwrap().split(&[0..50, 50..100]);
        let sent = Slot::take(device).unwrap();
        let (held, kept) = (Slot::take(device).unwrap(), Slot::take(device).unwrap());
        sent.send(&queue, 0, &[copy(&parts[0])]).unwrap();
        let before = ring_usage();
        // The child drops all that is in here; the parent takes it back.
        let mine = Cell::new(Some((queue, parts, held, kept)));
        assert!(in_a_child(|| {
            let (queue, parts, held, kept) = mine.take().unwrap();
            let is_right = is_refused(Runtime::find())
                && is_refused(double.runtime.n_devices())
                && is_refused(double.runtime.device(0))
                && is_refused(device.memory_bytes())
                && is_refused(device.is_integrated())
                && is_refused(device.select())
                && is_refused(CopyQueue::new(device))
                && is_refused(queue.signal(0))
                && is_refused(queue.begin_after(0))
                && is_refused(queue.synchronize())
                && is_refused(queue.allocate(1))
                && is_refused(Slot::take(device))
                && is_refused(held.send(&queue, 1, &[copy(&parts[1])]))
                && device.numa_node().is_none()
                && ring_usage() == RingUsage::default()
                && release_ring() == 0;
            set_ring_limit(1);
            drop((kept, parts, queue));
            let report = double.report();
            is_right && report["n_violations"] == 0 && report["calls_after_fork"] == 0
        }));
        let (queue, parts, held, kept) = mine.take().unwrap();
        assert_eq!(ring_usage().limit_bytes, before.limit_bytes);
        held.send(&queue, 1, &[copy(&parts[1])]).unwrap();
        queue.synchronize().unwrap();
        drop((kept, parts, queue));
        double.assert_clean();
    }

    fn a_child_may_use_devices_where_its_parent_has_only_looked_for_the_runtime(double, "") {
        let found = Runtime::find().unwrap();
        assert_eq!(ring_usage().pinned_bytes, 0);
        assert!(in_a_child(|| {
            let device = found.device(0).unwrap();
            drop(Slot::take(device).unwrap());
            release_ring() > 0
        }));
        double.assert_no_violation();
    }
}
