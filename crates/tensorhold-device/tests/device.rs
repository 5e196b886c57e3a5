//! Devices, and the threads that use them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "one part is a case like others"
)]

mod common;

use common::{Double, on_doubles};
use serde_json::json;
use tensorhold_core::ErrorKind;
use tensorhold_device::{CopyQueue, Device, Slot, SlotCopy, Vendor, release_ring};

/// The device that the program's own calls in this thread would use.
fn current(double: &Double) -> i32 {
    let mut device = -1_i32;
    let place = (&raw mut device).expose_provenance();
    assert_eq!(double.call("GetDevice", &[place]), 0);
    device
}

fn use_device(device: Device) {
    let queue = CopyQueue::new(device).unwrap();
    let parts = queue.allocate(100).unwrap().split(&[0..100]);
    let copy = SlotCopy {
        from: 0..100,
        part: &parts[0],
        at: 0,
    };
    Slot::take(device)
        .unwrap()
        .send(&queue, 0, &[copy])
        .unwrap();
    queue.begin_after(0).unwrap();
    queue.signal(0).unwrap();
    assert!(device.memory_bytes().unwrap().0 > 0);
}

on_doubles! {
    fn questions_make_no_context(double, "devices=3,integrated=1") {
        assert_eq!(double.runtime.n_devices().unwrap(), 3);
        let device = double.device(2);
        assert_eq!(device.ordinal(), 2);
        assert!(device.is_integrated().unwrap());
        assert_eq!(device.numa_node(), None);
        assert_eq!(double.report()["contexts"], json!([]));
        let name = match double.runtime.vendor() {
            Vendor::Cuda => "cuda:2",
            Vendor::Hip => "hip:2",
        };
        assert_eq!(device.to_string(), name);
    }

    fn only_the_device_that_is_used_has_a_context(double, "devices=3") {
        use_device(double.device(2));
        assert_eq!(double.report()["contexts"], json!([2]));
        assert_eq!(current(double), 0);
        double.assert_clean();
        assert_eq!(double.report()["contexts"], json!([2]));
    }

    fn the_thread_keeps_its_device(double, "devices=3") {
        assert_eq!(double.call("SetDevice", &[1]), 0);
        use_device(double.device(2));
        assert_eq!(current(double), 1);
        assert_eq!(double.report()["contexts"], json!([1, 2]));
        double.on_device(2, || assert_eq!(double.call("DeviceSynchronize", &[]), 0));
        release_ring();
        let n_calls = double.n_calls("SetDevice");
        double.device(1).select().unwrap();
        use_device(double.device(1));
        // It is the thread's device: nothing is switched.
        assert_eq!(double.n_calls("SetDevice"), n_calls + 1);
        double.assert_clean();
    }

    fn a_device_that_there_is_not_is_an_error(double, "devices=2") {
        let error = double.runtime.device(3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        assert_eq!(error.message(), "there is no device 3: this machine has 2");
        double.configure("devices=0");
        assert_eq!(double.runtime.n_devices().unwrap(), 0);
    }

    fn an_error_says_which_call_failed_and_where(double, "fail=StreamCreateWithFlags:1:999") {
        let error = CopyQueue::new(double.device(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device);
        let (prefix, device) = match double.runtime.vendor() {
            Vendor::Cuda => ("cuda", "cuda:1"),
            Vendor::Hip => ("hip", "hip:1"),
        };
        assert_eq!(
            error.message(),
            format!("`{prefix}StreamCreateWithFlags` failed on {device}: unknown error (code 999)")
        );
        double.assert_clean();
    }
}
