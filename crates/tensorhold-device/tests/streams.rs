//! Order between copies and the streams of the program.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "one part is a case like others"
)]

mod common;

use std::sync::Arc;

use common::{Double, on_doubles, pattern};
use tensorhold_device::{CopyQueue, Slot, SlotCopy};

const LEN: usize = 5000;

/// Sends a pattern to a buffer of the queue by both lanes, with no wait.
fn fill(queue: &Arc<CopyQueue>, address: usize, seed: usize) {
    // SAFETY: the tests keep the memory until all is done.
    let buffer =
        unsafe { tensorhold_device::DeviceBuffer::from_raw(queue, address, LEN, Box::new(())) };
    let parts = buffer.split(&[0..LEN / 2, LEN / 2..LEN]);
    for (lane, part) in parts.iter().enumerate() {
        let mut slot = Slot::take(queue.device()).unwrap();
        let start = lane * (LEN / 2);
        slot[..part.len()].copy_from_slice(&pattern(seed, LEN)[start..start + part.len()]);
        let copy = SlotCopy {
            from: 0..part.len(),
            part,
            at: 0,
        };
        slot.send(queue, lane, &[copy]).unwrap();
    }
    let joined = parts.into_iter().filter_map(|part| part.join()).next();
    // The host must not wait for the copies, which dropping the buffer would.
    drop(joined.unwrap().into_owner());
}

/// Lets a stream copy what is on the device to the host, when it comes to it.
fn consume(double: &Double, stream: usize, address: usize) -> Vec<u8> {
    let mut seen = vec![0_u8; LEN];
    let to = seen.as_mut_ptr().expose_provenance();
    assert_eq!(double.call("HostRegister", &[to, LEN, 1]), 0);
    assert_eq!(
        double.call("MemcpyAsync", &[to, address, LEN, 2, stream]),
        0
    );
    seen
}

fn seen(double: &Double, stream: usize, waiting: Vec<u8>) -> Vec<u8> {
    assert_eq!(double.call("StreamSynchronize", &[stream]), 0);
    // Memory that is unpinned is scribbled over.
    let seen = waiting.clone();
    let start = waiting.as_ptr().expose_provenance();
    assert_eq!(double.call("HostUnregister", &[start]), 0);
    seen
}

on_doubles! {
    fn what_a_consumer_is_given_after_the_signal_sees_the_bytes(double, "held=1,delay_us=2000,seed=5") {
        for stream in [0, double.stream()] {
            double.configure("held=1");
            let queue = CopyQueue::new(double.device(0)).unwrap();
            let kept = queue.allocate(LEN as u64).unwrap();
            fill(&queue, kept.address(), stream);
            queue.signal(stream).unwrap();
            let waiting = consume(double, stream, kept.address());
            assert!(double.report()["under_way"].as_u64().unwrap() >= 3);
            double.configure("held=0");
            assert_eq!(seen(double, stream, waiting), pattern(stream, LEN));
        }
        double.assert_no_violation();
    }

    fn a_signal_is_cheap_where_nothing_is_new(double, "held=1") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let kept = queue.allocate(LEN as u64).unwrap();
        let streams = [0, double.stream()];
        let n_calls = |name| double.n_calls(name);
        queue.signal(streams[1]).unwrap();
        assert_eq!((n_calls("EventRecord"), n_calls("StreamWaitEvent")), (0, 0));
        fill(&queue, kept.address(), 1);
        // Each lane has recorded its slot's event.
        let n_before = n_calls("EventRecord");
        for _ in 0..10 {
            queue.signal(streams[0]).unwrap();
        }
        assert_eq!(n_calls("EventRecord"), n_before + 2);
        // Another stream, or one of the same number, has not waited yet.
        queue.signal(streams[1]).unwrap();
        let waiting = consume(double, streams[1], kept.address());
        double.configure("held=0");
        assert_eq!(seen(double, streams[1], waiting), pattern(1, LEN));
        queue.signal(streams[1]).unwrap();
        let n_waits = n_calls("StreamWaitEvent");
        queue.signal(streams[0]).unwrap();
        assert_eq!(n_calls("StreamWaitEvent"), n_waits);
        // What is sent later is waited for again.
        double.configure("held=1");
        fill(&queue, kept.address(), 2);
        queue.signal(streams[1]).unwrap();
        let waiting = consume(double, streams[1], kept.address());
        double.configure("held=0,delay_us=2000,seed=9");
        assert_eq!(seen(double, streams[1], waiting), pattern(2, LEN));
        double.assert_no_violation();
    }

    fn the_consumer_of_each_thread_sees_what_the_thread_has_sent(double, "delay_us=300,seed=11,scribble=1") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    let stream = double.stream();
                    let kept = queue.allocate(LEN as u64).unwrap();
                    for round in 0..60 {
                        let seed = thread * 100 + round;
                        fill(queue, kept.address(), seed);
                        queue.signal(stream).unwrap();
                        let waiting = consume(double, stream, kept.address());
                        assert!(seen(double, stream, waiting) == pattern(seed, LEN));
                    }
                });
            }
        });
        double.assert_no_violation();
    }

    fn copies_begin_after_what_the_consumer_was_given_before(double, "held=1,delay_us=2000,seed=6") {
        for stream in [0, double.stream()] {
            double.configure("held=0");
            let queue = CopyQueue::new(double.device(0)).unwrap();
            let kept = queue.allocate(LEN as u64).unwrap();
            double.write(kept.address(), &pattern(100, LEN));
            double.configure("held=1");
            let waiting = consume(double, stream, kept.address());
            queue.begin_after(stream).unwrap();
            fill(&queue, kept.address(), 7);
            double.configure("held=0");
            assert_eq!(seen(double, stream, waiting), pattern(100, LEN));
            queue.synchronize().unwrap();
            assert_eq!(double.read(kept.address(), LEN), pattern(7, LEN));
        }
        double.assert_no_violation();
    }

    fn a_consumer_of_the_default_stream_of_another_device_than_the_thread_s(double, "held=1") {
        let queue = CopyQueue::new(double.device(1)).unwrap();
        let kept = queue.allocate(LEN as u64).unwrap();
        let address = kept.address();
        fill(&queue, address, 8);
        // This thread's device is the other one.
        queue.signal(0).unwrap();
        let bytes = double.on_device(1, || {
            let waiting = consume(double, 0, address);
            double.configure("held=0");
            seen(double, 0, waiting)
        });
        assert_eq!(bytes, pattern(8, LEN));
        assert_eq!(double.report()["contexts"], serde_json::json!([1]));
        double.assert_no_violation();
    }

    fn a_queue_that_is_dropped_lets_its_copies_happen(double, "delay_us=1000") {
        let kept = CopyQueue::new(double.device(0)).unwrap().allocate(LEN as u64).unwrap();
        let queue = CopyQueue::new(double.device(0)).unwrap();
        fill(&queue, kept.address(), 9);
        drop(queue);
        assert_eq!(double.call("DeviceSynchronize", &[]), 0);
        assert_eq!(double.read(kept.address(), LEN), pattern(9, LEN));
        drop(kept);
        double.assert_clean();
    }
}
