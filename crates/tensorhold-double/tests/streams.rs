//! Streams, events, and the order that they make.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use std::time::{Duration, Instant};

use common::*;

const N: usize = 4096;

#[test]
fn a_copy_happens_after_the_call() {
    let double = Double::cuda("held=1");
    let (device, stream, event) = (double.malloc(N).unwrap(), double.stream(), double.event());
    let source = double.pinned(&[7; N]);
    assert_eq!(double.copy(device, source, N, TO_DEVICE, stream), 0);
    assert_eq!(double.record(event, stream), 0);
    assert_eq!(double.query_event(event), NOT_READY);
    assert_eq!(double.query(stream), NOT_READY);
    assert_eq!(double.report()["under_way"], 1);
    double.configure("held=0");
    assert_eq!(double.synchronize_event(event), 0);
    assert_eq!(double.query_event(event), 0);
    assert_eq!(double.query(stream), 0);
    assert_eq!(bytes_at(device, N), [7; N]);
    assert_eq!(double.report()["under_way"], 0);
}

#[test]
fn a_stream_keeps_its_order() {
    let double = Double::cuda("delay_us=300,seed=1");
    let (device, stream) = (double.malloc(N).unwrap(), double.stream());
    for value in 0..50 {
        let source = double.pinned(&[value; N]);
        assert_eq!(double.copy(device, source, N, TO_DEVICE, stream), 0);
    }
    let back = double.pinned(&[0; N]);
    assert_eq!(double.copy(back, device, N, TO_HOST, stream), 0);
    assert_eq!(double.synchronize(stream), 0);
    assert_eq!(bytes_at(back, N), [49; N]);
}

#[test]
fn a_stream_waits_for_an_event_of_another() {
    let double = Double::cuda("held=1");
    let (device, far) = (double.malloc(N).unwrap(), double.malloc(N).unwrap());
    let (first, second, event) = (double.stream(), double.stream(), double.event());
    let source = double.pinned(&[9; N]);
    double.copy(device, source, N, TO_DEVICE, first);
    double.record(event, first);
    assert_eq!(double.wait_event(second, event), 0);
    assert_eq!(double.destroy_event(event), 0);
    double.copy(far, device, N, DEVICE_TO_DEVICE, second);
    assert_eq!(double.query(second), NOT_READY);
    double.configure("held=0");
    assert_eq!(double.synchronize(second), 0);
    assert_eq!(bytes_at(far, N), [9; N]);
}

#[test]
fn who_waits_keeps_the_moment_that_it_asked_for() {
    let double = Double::cuda("held=1");
    let (busy, idle, waiting) = (double.stream(), double.stream(), double.stream());
    let event = double.event();
    // Recorded in an idle stream, the event has happened; the wait captures that.
    double.record(event, idle);
    double.wait_event(waiting, event);
    let (device, source) = (double.malloc(N).unwrap(), double.pinned(&[1; N]));
    double.copy(device, source, N, TO_DEVICE, busy);
    double.record(event, busy);
    assert_eq!(double.query(waiting), 0);
    assert_eq!(double.query_event(event), NOT_READY);
    // And back: the event stands for its last record.
    double.wait_event(waiting, event);
    double.record(event, idle);
    assert_eq!(double.query_event(event), 0);
    assert_eq!(double.query(waiting), NOT_READY);
    double.configure("held=0");
    assert_eq!(double.synchronize(waiting), 0);
}

#[test]
fn an_event_that_was_never_recorded_holds_nobody() {
    let double = Double::cuda("");
    let (stream, event) = (double.stream(), double.event());
    assert_eq!(double.wait_event(stream, event), 0);
    assert_eq!(double.query_event(event), 0);
    assert_eq!(double.synchronize_event(event), 0);
    assert_eq!(double.synchronize(stream), 0);
}

#[test]
fn a_destroyed_stream_finishes_its_work() {
    let double = Double::cuda("held=1");
    let (device, stream, event) = (double.malloc(N).unwrap(), double.stream(), double.event());
    let source = double.pinned(&[3; N]);
    double.copy(device, source, N, TO_DEVICE, stream);
    double.record(event, stream);
    assert_eq!(double.destroy_stream(stream), 0);
    assert_eq!(double.query_event(event), NOT_READY);
    double.configure("held=0");
    assert_eq!(double.synchronize_device(), 0);
    assert_eq!(double.query_event(event), 0);
    assert_eq!(bytes_at(device, N), [3; N]);
    assert_eq!(double.report()["streams"]["live"], 0);
    assert_eq!(double.violations(), [""; 0]);
}

#[test]
fn only_blocking_streams_are_ordered_with_the_default_stream() {
    let double = Double::cuda("held=1");
    let (blocking, free) = (double.blocking_stream(), double.stream());
    let (device, source) = (double.malloc(N).unwrap(), double.pinned(&[5; N]));
    double.copy(device, source, N, TO_DEVICE, 0);
    assert_eq!(double.query(free), 0);
    assert_eq!(double.query(blocking), NOT_READY);
    double.configure("held=0");
    assert_eq!(double.synchronize(0), 0);
    double.configure("held=1");
    double.copy(device, source, N, TO_DEVICE, blocking);
    let event = double.event();
    double.record(event, 0);
    assert_eq!(double.query_event(event), NOT_READY);
    double.configure("held=0");
    assert_eq!(double.synchronize_event(event), 0);
    assert_eq!(double.query(blocking), 0);
}

#[test]
fn streams_of_a_device_share_its_bus() {
    // 8 MB at 0.1 GB/s are 80 ms, however many streams carry them.
    let double = Double::cuda("gb_per_s=0.1");
    let (one, other) = (double.stream(), double.stream());
    let size = 4_000_000;
    let (device, source) = (
        double.malloc(2 * size).unwrap(),
        double.pinned(&vec![1; size]),
    );
    let started = Instant::now();
    double.copy(device, source, size, TO_DEVICE, one);
    double.copy(device + size, source, size, TO_DEVICE, other);
    double.synchronize_device();
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[test]
fn a_delay_passes_before_a_copy_begins() {
    let double = Double::cuda("delay_us=20000,latency_us=10000");
    let (device, stream) = (double.malloc(N).unwrap(), double.stream());
    let source = double.pinned(&[1; N]);
    let started = Instant::now();
    double.copy(device, source, N, TO_DEVICE, stream);
    assert_eq!(double.synchronize(stream), 0);
    assert!(started.elapsed() >= Duration::from_millis(30));
}

#[test]
fn handles_that_are_none_are_refused_and_told() {
    let double = Double::cuda("");
    let (stream, event) = (double.stream(), double.event());
    double.destroy_stream(stream);
    double.destroy_event(event);
    assert_eq!(double.synchronize(stream), INVALID_HANDLE);
    assert_eq!(double.record(event, 0), INVALID_HANDLE);
    assert_eq!(double.destroy_event(event), INVALID_HANDLE);
    let violations = double.violations();
    assert_eq!(violations.len(), 3);
    assert!(
        violations.iter().all(|text| text.contains("was destroyed")),
        "{violations:?}"
    );
    assert_ne!(double.stream(), stream, "handles are never used twice");
}

#[test]
fn an_event_belongs_to_its_device() {
    let double = Double::cuda("devices=2");
    let event = double.event();
    double.set_device(1);
    let stream = double.stream();
    assert_eq!(double.record(event, stream), INVALID_HANDLE);
    double.assert_one_violation("of device 0 recorded in a stream of device 1");
}

#[test]
fn many_threads_may_call_at_once() {
    let double = Double::cuda("delay_us=50,seed=3,scribble=1");
    std::thread::scope(|scope| {
        for value in 0..8_u8 {
            let double = &double;
            scope.spawn(move || {
                double.set_device(usize::from(value % 2));
                let (stream, event) = (double.stream(), double.event());
                for _ in 0..50 {
                    let device = double.malloc(N).unwrap();
                    let source = double.pinned(&[value; N]);
                    double.copy(device, source, N, TO_DEVICE, stream);
                    double.record(event, stream);
                    assert_eq!(double.synchronize_event(event), 0);
                    assert_eq!(bytes_at(device, N), [value; N]);
                    assert_eq!(double.free(device), 0);
                    assert_eq!(double.free_host(source), 0);
                }
                assert_eq!(double.destroy_event(event), 0);
                assert_eq!(double.destroy_stream(stream), 0);
            });
        }
    });
    let report = double.report();
    assert_eq!(double.violations(), [""; 0]);
    assert_eq!(report["copied"]["host_to_device"]["n"], 400);
    assert_eq!(report["streams"]["live"], 0);
    assert_eq!(report["streams"]["total"], 8);
    assert_eq!(report["devices"][1]["bytes"], 0);
    assert_eq!(report["pinned"]["bytes"], 0);
}
