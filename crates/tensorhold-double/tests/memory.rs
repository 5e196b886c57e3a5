//! Memory: what is allocated, pinned and copied, and what a runtime would not forgive.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::*;

const N: usize = 4096;

#[test]
fn device_memory_ends_where_the_configuration_says() {
    let double = Double::cuda("memory_mb=1");
    let half = double.malloc(1 << 19).unwrap();
    assert_eq!(half % 256, 0);
    let other = double.malloc(1 << 19).unwrap();
    assert_eq!(double.memory_info(), (0, 1 << 20));
    assert_eq!(double.malloc(1), Err(MEMORY));
    assert_eq!(double.free(half), 0);
    assert_eq!(double.malloc((1 << 19) + 1), Err(MEMORY));
    assert_eq!(double.set_device(1), 0);
    assert!(
        double.malloc(1 << 20).is_ok(),
        "each device has memory of its own"
    );
    assert_eq!(double.free(other), 0);
    let report = double.report();
    assert_eq!(report["devices"][0]["bytes"], 0);
    assert_eq!(report["devices"][0]["peak_bytes"], 1 << 20);
    assert_eq!(report["devices"][0]["total"], 2);
    assert_eq!(report["devices"][1]["live"], 1);
}

#[test]
fn nothing_can_be_allocated_and_freed() {
    let double = Double::cuda("");
    assert_eq!(double.malloc(0), Ok(0));
    assert_eq!(double.free(0), 0);
    assert_eq!(double.host_alloc(0), Ok(0));
    assert_eq!(double.free_host(0), 0);
    assert_eq!(double.copy(0, 0, 0, TO_DEVICE, 0), 0);
    assert_eq!(double.violations(), [""; 0]);
}

#[test]
fn registered_memory_is_not_registered_again() {
    let double = Double::cuda("");
    let bytes = vec![0; 4 * N];
    assert_eq!(double.register(&bytes[N..3 * N]), 0);
    assert_eq!(double.register(&bytes[N..3 * N]), ALREADY_REGISTERED);
    assert_eq!(double.register(&bytes[..N + 1]), ALREADY_REGISTERED);
    assert_eq!(double.register(&bytes), ALREADY_REGISTERED);
    assert_eq!(double.register(&bytes[2 * N..]), ALREADY_REGISTERED);
    assert_eq!(double.register(&bytes[3 * N..]), 0);
    assert_eq!(double.register(&bytes[..0]), INVALID_VALUE);
    assert_eq!(double.report()["pinned"]["bytes"], 3 * N);
    assert_eq!(double.unregister(&bytes[N..]), 0);
    assert_eq!(double.unregister(&bytes[3 * N..]), 0);
    assert_eq!(double.violations(), [""; 0]);
    assert_eq!(double.unregister(&bytes[N..]), NOT_REGISTERED);
    double.assert_one_violation("where none begins");
    assert_eq!(double.report()["pinned"]["peak_bytes"], 3 * N);
}

#[test]
fn registrations_are_refused_over_their_limits() {
    let double = Double::cuda("register_max_mb=1,pinned_mb=3");
    let bytes = vec![0; 4 << 20];
    let each: Vec<&[u8]> = bytes.chunks(1 << 20).collect();
    assert_eq!(double.register(&bytes[..(1 << 20) + 1]), MEMORY);
    assert_eq!(double.register(each[0]), 0);
    assert_eq!(double.register(each[1]), 0);
    let allocated = double.host_alloc(1 << 20).unwrap();
    assert_eq!(double.register(each[2]), MEMORY);
    assert_eq!(double.host_alloc(1), Err(MEMORY));
    assert_eq!(double.free_host(allocated), 0);
    assert_eq!(double.register(each[2]), 0);
}

#[test]
fn a_copy_of_pageable_memory_has_happened_when_the_call_returns() {
    let double = Double::cuda("delay_us=2000");
    let (device, stream) = (double.malloc(N).unwrap(), double.stream());
    let source = vec![4_u8; N];
    assert_eq!(
        double.copy(device, source.as_ptr() as usize, N, TO_DEVICE, stream),
        0
    );
    assert_eq!(bytes_at(device, N), [4; N]);
    let mut back = vec![0_u8; N];
    assert_eq!(
        double.copy(back.as_mut_ptr() as usize, device, N, TO_HOST, stream),
        0
    );
    assert_eq!(back, [4; N]);
    let report = double.report();
    assert_eq!(report["pageable"]["n"], 2);
    assert_eq!(report["pageable"]["bytes"], 2 * N);
    assert_eq!(report["foreign"]["n"], 0);
}

#[test]
fn memory_that_is_not_known_may_stand_for_a_devices() {
    let double = Double::cuda("held=1");
    let tensor = vec![0_u8; N];
    let (source, stream) = (double.pinned(&[6; N]), double.stream());
    assert_eq!(
        double.copy(tensor.as_ptr() as usize, source, N, TO_DEVICE, stream),
        0
    );
    assert_eq!(double.query(stream), NOT_READY);
    double.configure("held=0");
    assert_eq!(double.synchronize(stream), 0);
    assert_eq!(bytes_at(tensor.as_ptr() as usize, N), [6; N]);
    let report = double.report();
    assert_eq!(report["foreign"]["bytes"], N);
    assert_eq!(report["pageable"]["n"], 0);
    assert_eq!(double.violations(), [""; 0]);
}

#[test]
fn the_direction_can_be_left_to_the_runtime() {
    let double = Double::cuda("");
    let (device, far) = (double.malloc(N).unwrap(), double.malloc(N).unwrap());
    let (source, back) = (double.pinned(&[8; N]), double.pinned(&[0; N]));
    assert_eq!(double.copy(device, source, N, DEFAULT, 0), 0);
    assert_eq!(double.copy(far, device, N, DEFAULT, 0), 0);
    assert_eq!(double.copy(back, far, N, DEFAULT, 0), 0);
    assert_eq!(double.synchronize(0), 0);
    assert_eq!(double.copy_waited(source, back, N, DEFAULT), 0);
    assert_eq!(bytes_at(source, N), [8; N]);
    let copied = &double.report()["copied"];
    for way in [
        "host_to_device",
        "device_to_device",
        "device_to_host",
        "host_to_host",
    ] {
        assert_eq!(copied[way]["n"], 1, "{way}");
    }
}

#[test]
fn a_direction_that_is_wrong_is_refused() {
    let double = Double::cuda("");
    let (device, source) = (double.malloc(N).unwrap(), double.pinned(&[0; N]));
    assert_eq!(double.copy(source, device, N, TO_DEVICE, 0), INVALID_VALUE);
    double.assert_one_violation("pinned host memory for a device's");
    assert_eq!(double.copy(device, source, N, 5, 0), 21);
    assert_eq!(
        double.copy(device, source, N, HOST_TO_HOST, 0),
        INVALID_VALUE
    );
}

#[test]
fn a_pitched_copy_moves_columns() {
    let double = Double::cuda("");
    let source: Vec<u8> = (0..60).collect();
    let (source, device) = (double.pinned(&source), double.malloc(18).unwrap());
    // Three bytes of each of six rows of ten.
    assert_eq!(
        double.copy_2d([device, 3, source + 4, 10, 3, 6], TO_DEVICE, 0),
        0
    );
    assert_eq!(double.synchronize(0), 0);
    let expected: Vec<u8> = (0..6)
        .flat_map(|row| (4..7).map(move |column| row * 10 + column))
        .collect();
    assert_eq!(bytes_at(device, 18), expected);
    assert_eq!(double.report()["copied"]["host_to_device"]["bytes"], 18);
    assert_eq!(
        double.copy_2d([device, 3, source, 10, 4, 2], TO_DEVICE, 0),
        12
    );
    assert_eq!(
        double.copy_2d([device, 3, source + 4, 10, 3, 7], TO_DEVICE, 0),
        INVALID_VALUE
    );
    double.assert_one_violation("leaves the allocation");
}

#[test]
fn a_copy_out_of_bounds_is_refused() {
    let double = Double::cuda("");
    let (device, source) = (double.malloc(N).unwrap(), double.pinned(&[0; 2 * N]));
    for (to, from, size, words) in [
        (device, source, N + 1, "leaves the allocation"),
        (device + 1, source, N, "leaves the allocation"),
        (device - 1, source, 2, "leaves the allocation"),
        (device, source + 2 * N - 1, 2, "leaves the pinned memory"),
    ] {
        double.reset();
        assert_eq!(double.copy(to, from, size, TO_DEVICE, 0), INVALID_VALUE);
        double.assert_one_violation(words);
        assert_eq!(double.report()["under_way"], 0);
    }
}

#[test]
fn two_registrations_are_not_one() {
    let double = Double::cuda("");
    let bytes = vec![0; 2 * N];
    double.register(&bytes[..N]);
    double.register(&bytes[N..]);
    let device = double.malloc(2 * N).unwrap();
    assert_eq!(
        double.copy(device, bytes.as_ptr() as usize, 2 * N, TO_DEVICE, 0),
        INVALID_VALUE
    );
    double.assert_one_violation("leaves the pinned memory");
}

/// Frees or unregisters something while a copy that uses it is held, and lets it go.
#[track_caller]
fn check_under_a_copy(let_go: impl FnOnce(&Double, usize, &[u8]) -> i32 + Send, words: &str) {
    let double = Double::cuda("held=1");
    let source = vec![2; N];
    double.register(&source);
    let (device, stream) = (double.malloc(N).unwrap(), double.stream());
    double.copy(device, source.as_ptr() as usize, N, TO_DEVICE, stream);
    std::thread::scope(|scope| {
        let freed = scope.spawn(|| let_go(&double, device, &source));
        while double.violations().is_empty() {
            std::thread::yield_now();
        }
        assert!(!freed.is_finished(), "the call waits for the copy");
        double.configure("held=0");
        assert_eq!(freed.join().unwrap(), 0);
    });
    double.assert_one_violation(words);
}

#[test]
fn freeing_under_a_copy_is_told() {
    check_under_a_copy(
        |double, device, _| double.free(device),
        "device memory freed at",
    );
}

#[test]
fn unregistering_under_a_copy_is_told() {
    check_under_a_copy(
        |double, _, source| double.unregister(source),
        "host memory unregistered at",
    );
}

#[test]
fn freeing_in_the_order_of_the_stream_is_right() {
    let double = Double::cuda("held=1");
    let stream = double.stream();
    let device = double.malloc_async(N, stream).unwrap();
    let source = double.pinned(&[0; N]);
    double.copy(device, source, N, TO_DEVICE, stream);
    assert_eq!(double.free_async(device, stream), 0);
    assert_eq!(double.report()["devices"][0]["live"], 1);
    double.configure("held=0");
    assert_eq!(double.synchronize(stream), 0);
    assert_eq!(double.report()["devices"][0]["live"], 0);
    assert_eq!(double.violations(), [""; 0]);
}

#[test]
fn freeing_in_the_order_of_another_stream_is_told() {
    let double = Double::cuda("held=1");
    let (stream, other) = (double.stream(), double.stream());
    let (device, source) = (double.malloc(N).unwrap(), double.pinned(&[0; N]));
    double.copy(device, source, N, TO_DEVICE, stream);
    assert_eq!(double.free_async(device, other), 0);
    assert_eq!(double.synchronize(other), 0);
    double.assert_one_violation("freed in a stream's order");
    assert_eq!(
        double.copy(device, source, N, TO_DEVICE, stream),
        INVALID_VALUE
    );
    assert_eq!(double.free(device), INVALID_VALUE);
    assert_eq!(double.violations().len(), 3);
    double.configure("held=0");
}

#[test]
fn freed_memory_is_not_used_or_freed_again() {
    let double = Double::cuda("");
    let (device, source) = (double.malloc(N).unwrap(), double.pinned(&[0; N]));
    assert_eq!(double.free(device), 0);
    assert_eq!(double.copy(device, source, N, TO_DEVICE, 0), INVALID_VALUE);
    double.assert_one_violation("was freed");
    double.reset();
    assert_eq!(double.free(device), INVALID_VALUE);
    double.assert_one_violation("double free");
    double.reset();
    assert_eq!(double.free(source), INVALID_VALUE);
    double.assert_one_violation("where no allocation begins");
}

#[test]
fn freed_memory_is_used_again_where_a_test_wants_it() {
    let double = Double::cuda("");
    let first = double.malloc(N).unwrap();
    double.free(first);
    assert_ne!(double.malloc(N).unwrap(), first);
    double.configure("reuse=1");
    let again = double.malloc(N).unwrap();
    assert_eq!(again, first);
    let source = double.pinned(&[1; N]);
    assert_eq!(double.copy(again, source, N, TO_DEVICE, 0), 0);
    assert_eq!(double.synchronize(0), 0);
    assert_eq!(double.free(again), 0);
    assert_eq!(double.violations(), [""; 0]);
}

#[test]
fn bytes_that_may_no_longer_be_read_are_overwritten() {
    let double = Double::cuda("scribble=1");
    let (device, source) = (double.malloc(N).unwrap(), vec![1; 2 * N]);
    double.register(&source);
    double.copy(device, source.as_ptr() as usize, N, TO_DEVICE, 0);
    assert_eq!(double.synchronize(0), 0);
    let at = |address: *const u8| bytes_at(address as usize, N);
    assert_eq!(bytes_at(device, N), [1; N]);
    assert_eq!(at(source.as_ptr()), [0xDB; N]);
    assert_eq!(at(source[N..].as_ptr()), [1; N]);
    double.unregister(&source);
    assert_eq!(at(source[N..].as_ptr()), [0xDB; N]);
    // It is kept for a while, so this test may look.
    double.free(device);
    assert_eq!(bytes_at(device, N), [0xDB; N]);
}

#[test]
fn pageable_sources_and_those_still_read_are_left_alone() {
    let double = Double::cuda("scribble=1,held=1");
    let (device, far) = (double.malloc(N).unwrap(), double.malloc(N).unwrap());
    let source = double.pinned(&[1; N]);
    let (one, other) = (double.stream(), double.stream());
    double.copy(device, source, N, TO_DEVICE, one);
    double.copy(far, source, N, TO_DEVICE, other);
    double.configure("held=0");
    double.synchronize_device();
    assert_eq!(bytes_at(device, N), [1; N]);
    assert_eq!(bytes_at(far, N), [1; N]);
    assert_eq!(bytes_at(source, N), [0xDB; N]);
    let pageable = vec![2_u8; N];
    double.copy(device, pageable.as_ptr() as usize, N, TO_DEVICE, one);
    assert_eq!(pageable, [2; N]);
}

#[test]
fn pointers_say_what_they_are() {
    let double = Double::cuda("");
    double.set_device(1);
    let (device, pinned) = (double.malloc(N).unwrap(), double.host_alloc(N).unwrap());
    assert_eq!(double.pointer_kind(device + 5), (2, 1));
    assert_eq!(double.pointer_kind(pinned), (1, 1));
    assert_eq!(double.pointer_kind([0_u8; 4].as_ptr() as usize).0, 0);
}
