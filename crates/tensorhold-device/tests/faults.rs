//! Every call of the runtime, failing once: an error or none, nothing lost, nothing done wrong.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Alive, Double, on_doubles, pattern};
use tensorhold_core::Result;
use tensorhold_device::{
    CopyQueue, Device, DevicePart, Slot, SlotCopy, SlotRows, release_ring, set_ring_limit,
};

const N_PARTS: usize = 6;
const PART_BYTES: usize = 3000;

/// Everything that a load does, with more slots' worth of bytes than the ring has; the bytes at the end.
fn load(double: &Double, device: Device, program: usize) -> Result<Vec<u8>> {
    device.memory_bytes()?;
    device.is_integrated()?;
    let queue = CopyQueue::new(device)?;
    queue.begin_after(program)?;
    let len = N_PARTS * PART_BYTES;
    let ranges: Vec<_> = (0..N_PARTS)
        .map(|n| n * PART_BYTES..(n + 1) * PART_BYTES)
        .collect();
    let parts = queue.allocate(len as u64)?.split(&ranges);
    let bytes = pattern(1, len);
    for (lane, (part, range)) in parts.iter().zip(&ranges).enumerate() {
        let mut slot = Slot::take(device)?;
        if lane + 1 == N_PARTS {
            send_rows(slot, &queue, part, &bytes[range.clone()])?;
            continue;
        }
        // In two runs.
        slot[..1000].copy_from_slice(&bytes[range.clone()][..1000]);
        slot[5000..7000].copy_from_slice(&bytes[range.clone()][1000..]);
        let first = SlotCopy {
            from: 0..1000,
            part,
            at: 0,
        };
        let second = SlotCopy {
            from: 5000..7000,
            part,
            at: 1000,
        };
        slot.send(&queue, lane % 2, &[first, second])?;
    }
    queue.signal(program)?;
    let buffer = parts
        .into_iter()
        .filter_map(|part| part.join())
        .next()
        .unwrap();
    queue.synchronize()?;
    Ok(double.on_device(device.ordinal(), || double.read(buffer.address(), len)))
}

/// Sends a part in three rows.
fn send_rows(mut slot: Slot, queue: &CopyQueue, part: &DevicePart, bytes: &[u8]) -> Result<()> {
    let (width, pitch) = (PART_BYTES / 3, 1500);
    for (row, bytes) in bytes.chunks(width).enumerate() {
        slot[row * pitch..][..width].copy_from_slice(bytes);
    }
    let rows = SlotRows {
        from: 0,
        width,
        pitch,
        n_rows: 3,
        part,
        at: 0,
    };
    slot.send_rows(queue, 0, &[rows])
}

/// What may stay behind where a call of this name fails, each time that one does: what could not be destroyed by it.
fn may_stay(name: &str) -> Alive {
    let none = Alive::default();
    match name {
        "StreamDestroy" => Alive { streams: 1, ..none },
        "EventDestroy" => Alive { events: 1, ..none },
        // Without it nobody can say that nothing on the device uses what is freed.
        "Free" | "DeviceSynchronize" => Alive {
            allocations: 1,
            ..none
        },
        "HostUnregister" => Alive {
            registrations: 1,
            ..none
        },
        "FreeHost" => Alive {
            host_allocations: 1,
            ..none
        },
        // It is before any of them.
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

/// Lets each call of `name` fail in turn, until there are no more in a load; gives how many there were.
fn fail_each(double: &Double, device: Device, name: &str, code: i32) -> u64 {
    for nth in 1.. {
        double.reset();
        let program = double.on_device(device.ordinal(), || double.stream());
        let before = double.alive();
        // Copies that nobody has to wait for are faster.
        let delay_us = if name == "EventSynchronize" {
            20_000
        } else {
            50
        };
        double.configure(&format!(
            "scribble=1,delay_us={delay_us},fail={name}:{nth}:{code}"
        ));
        let loaded = load(double, device, program);
        double.on_device(device.ordinal(), || double.call("DeviceSynchronize", &[]));
        release_ring();
        let report = double.report();
        double.configure("fail=");
        // What nobody could say that it is not in use was kept.
        release_ring();
        assert_eq!(
            report["n_violations"], 0,
            "call {nth} of {name}: {}",
            report["violations"]
        );
        check_left(name, nth, before, double.alive());
        assert_eq!(double.call("StreamDestroy", &[program]), 0);
        if let Ok(bytes) = loaded {
            assert!(
                bytes == pattern(1, N_PARTS * PART_BYTES),
                "call {nth} of {name}"
            );
        }
        if report["failures"] == 0 {
            return nth - 1;
        }
    }
    unreachable!()
}

const CALLS: [&str; 22] = [
    "GetDevice",
    "SetDevice",
    "DeviceGetAttribute",
    "DeviceGetPCIBusId",
    "DeviceSynchronize",
    "MemGetInfo",
    "Malloc",
    "Free",
    "HostRegister",
    "HostUnregister",
    "MemcpyAsync",
    "Memcpy2DAsync",
    "StreamCreateWithFlags",
    "StreamDestroy",
    "StreamSynchronize",
    "StreamWaitEvent",
    "EventCreateWithFlags",
    "EventRecord",
    "EventQuery",
    "EventSynchronize",
    "EventDestroy",
    "FreeHost",
];

fn fail_all(double: &Double, device: Device) {
    set_ring_limit(24 << 20);
    for name in CALLS {
        let n_calls = fail_each(double, device, name, 999);
        assert!(
            n_calls > 0 || matches!(name, "FreeHost" | "SetDevice"),
            "{name} was never called"
        );
    }
    // Out of memory is an error of its own kind, which other ways go round.
    for name in [
        "Malloc",
        "HostRegister",
        "MemcpyAsync",
        "EventCreateWithFlags",
    ] {
        fail_each(double, device, name, 2);
    }
}

on_doubles! {
    fn each_call_may_fail(double, "") {
        fail_all(double, double.device(0));
    }

    fn each_call_may_fail_on_a_device_that_is_not_the_thread_s(double, "") {
        fail_all(double, double.device(1));
    }

    fn pinned_memory_of_the_runtime_may_fail_to_be_freed(double, "") {
        set_ring_limit(16 << 20);
        for nth in 1..4 {
            double.reset();
            let before = double.alive();
            double.configure(&format!("scribble=1,fail=HostRegister:0:801,fail=FreeHost:{nth}:999"));
            load(double, double.device(0), 0).unwrap();
            release_ring();
            check_left("FreeHost", nth, before, double.alive());
            double.assert_no_violation();
        }
    }

    fn a_copy_that_fails_late_loses_its_slots_and_nothing_else(double, "delay_us=100,fail=MemcpyAsync:3:700:async") {
        set_ring_limit(24 << 20);
        let device = double.device(0);
        let error = load(double, device, 0).unwrap_err();
        assert!(error.message().contains("an illegal memory access was encountered (code 700)"), "{error}");
        // Nobody can say that its slots are not read any more: they are never used again, nor unpinned.
        assert_eq!(Slot::take(device).map(drop).unwrap_err().kind(), tensorhold_core::ErrorKind::Device);
        release_ring();
        double.assert_no_violation();
        let alive = double.alive();
        assert_eq!((alive.registrations, alive.streams), (1, 0));
    }
}
