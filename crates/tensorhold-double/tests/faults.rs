//! Failures that a test asks for.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::*;

const N: usize = 64;

#[test]
fn the_call_that_was_named_fails() {
    let double = Double::cuda("fail=Malloc:2:2,fail=EventRecord:1:700");
    let first = double.malloc(N).unwrap();
    assert_eq!(double.malloc(N), Err(2));
    assert_eq!(double.take_last_error(), 2);
    assert!(double.malloc(N).is_ok());
    assert_eq!(double.free(first), 0);
    let event = double.event();
    assert_eq!(double.record(event, 0), 700);
    assert_eq!(double.record(event, 0), 0);
    let report = double.report();
    assert_eq!(report["failures"], 2);
    assert_eq!(report["calls"]["Malloc"], 3);
    assert_eq!(
        report["devices"][0]["live"], 1,
        "a call that fails does nothing"
    );
}

#[test]
fn every_call_can_fail_until_it_is_taken_back() {
    let double = Double::cuda("fail=HostRegister:0:801");
    let bytes = [0; N];
    for _ in 0..3 {
        assert_eq!(double.register(&bytes), 801);
    }
    assert_eq!(double.configure("fail="), 0);
    assert_eq!(double.register(&bytes), 0);
}

#[test]
fn calls_are_counted_from_the_configuration() {
    let double = Double::cuda("");
    double.malloc(N).unwrap();
    double.configure("fail=Malloc:1:2");
    assert_eq!(double.malloc(N), Err(2));
}

#[test]
fn a_copy_can_fail_late() {
    let double = Double::cuda("fail=MemcpyAsync:1:700:async");
    let (device, stream) = (double.malloc(N).unwrap(), double.stream());
    let source = double.pinned(&[1; N]);
    assert_eq!(double.copy(device, source, N, TO_DEVICE, stream), 0);
    assert_eq!(double.synchronize(stream), 700);
    assert_eq!(double.copy(device, source, N, TO_DEVICE, stream), 700);
    assert_eq!(double.malloc(N), Err(700));
    // What gives back goes on, so that leaks can be told.
    assert_eq!(double.free(device), 0);
    assert_eq!(double.free_host(source), 0);
    assert_eq!(double.destroy_stream(stream), 0);
    double.reset();
    assert!(double.malloc(N).is_ok());
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let double = Double::cuda("devices=3");
    for text in [
        "devices=4,unknown=1",
        "devices=4,held=2",
        "devices=4,devices",
        "devices=-1",
        "devices=4,fail=Nothing:1:2",
        "devices=4,fail=Malloc:1:0",
        "devices=4,fail=Malloc:1:2:async",
        "devices=4,gb_per_s=-1",
        "devices=4,memory_mb=99999999999999999",
    ] {
        assert_eq!(double.configure(text), 1, "{text}");
    }
    assert_eq!(double.n_devices(), Ok(3));
}
