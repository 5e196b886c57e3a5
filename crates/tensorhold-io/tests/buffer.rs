//! Memory that is lent to threads in parts, recycled and given back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use proptest::prelude::*;
use tensorhold_core::ErrorKind;
use tensorhold_io::{Buffer, release_pool};

#[test]
fn a_new_buffer_is_aligned_and_can_be_read_and_written() {
    for size in [
        0,
        1,
        63,
        64,
        4096,
        100_000,
        1 << 20,
        (2 << 20) + 1,
        10 << 20,
    ] {
        let mut buffer = Buffer::allocate(size).unwrap();
        assert_eq!(buffer.len() as u64, size);
        assert_eq!(buffer.is_empty(), size == 0);
        assert_eq!(buffer.as_ptr() as usize % 64, 0);
        buffer.fill(7);
        assert!(buffer[..] == vec![7; buffer.len()]);
    }
}

#[test]
fn more_than_the_machine_has_is_an_error_that_says_how_much() {
    for size in [1 << 62, u64::MAX, u64::MAX - 4096] {
        let error = Buffer::allocate(size).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoMemory);
        assert_eq!(error.to_string(), format!("no memory for {size} bytes"));
        assert!(Buffer::allocate_many(&[8, size, 8]).is_err());
    }
}

proptest! {
    #[test]
    fn many_buffers_never_share_a_byte(
        sizes in prop::collection::vec(prop_oneof![
            4 => 0_u64..200, 4 => 0_u64..300_000, 1 => (1_u64 << 20)..(3 << 20)
        ], 0..60),
    ) {
        let mut buffers = Buffer::allocate_many(&sizes).unwrap();
        prop_assert_eq!(buffers.len(), sizes.len());
        for (index, buffer) in buffers.iter_mut().enumerate() {
            prop_assert_eq!(buffer.len() as u64, sizes[index]);
            prop_assert_eq!(buffer.as_ptr() as usize % 64, 0);
            buffer.fill(index as u8);
        }
        // Every second one goes, and takes nothing of its neighbours along.
        let mut index = 0;
        buffers.retain(|_| { index += 1; index % 2 == 0 });
        for (index, buffer) in buffers.iter().enumerate() {
            prop_assert!(buffer[..] == vec![(2 * index + 1) as u8; buffer.len()]);
        }
    }

    #[test]
    fn parts_cover_their_ranges_and_no_more(
        cuts in prop::collection::btree_set(0_usize..1000, 0..20),
    ) {
        let cuts: Vec<usize> = cuts.into_iter().collect();
        let ranges: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
        let mut parts = Buffer::allocate(1000).unwrap().split(&ranges);
        let mut expected = vec![0; 1000];
        for (index, (part, range)) in parts.iter_mut().zip(&ranges).enumerate() {
            part.fill(index as u8 + 1);
            expected[range.clone()].fill(index as u8 + 1);
        }
        let buffers: Vec<_> = parts.into_iter().filter_map(tensorhold_io::Part::join).collect();
        prop_assert_eq!(buffers.len(), usize::from(!ranges.is_empty()));
        if let Some(buffer) = buffers.first() {
            prop_assert_eq!(&buffer[..], expected);
        }
    }
}

#[test]
fn only_the_last_of_many_threads_gets_the_buffer() {
    for _ in 0..200 {
        let ranges: Vec<_> = (0..8).map(|index| index * 100..(index + 1) * 100).collect();
        let parts = Buffer::allocate(800).unwrap().split(&ranges);
        let n_buffers = AtomicUsize::new(0);
        thread::scope(|scope| {
            for (index, mut part) in parts.into_iter().enumerate() {
                let n_buffers = &n_buffers;
                scope.spawn(move || {
                    part.fill(index as u8 + 1);
                    if let Some(buffer) = part.join() {
                        n_buffers.fetch_add(1, Ordering::Relaxed);
                        for (index, bytes) in buffer.chunks(100).enumerate() {
                            assert!(bytes.iter().all(|byte| *byte == index as u8 + 1));
                        }
                    }
                });
            }
        });
        assert_eq!(n_buffers.into_inner(), 1);
    }
}

#[test]
fn a_buffer_with_an_abandoned_part_is_never_complete() {
    let mut parts = Buffer::allocate(10).unwrap().split(&[0..5, 5..10]);
    drop(parts.pop());
    assert!(parts.pop().unwrap().join().is_none());
}

#[test]
#[should_panic(expected = "ascending, apart and inside")]
fn parts_that_overlap_are_refused() {
    let _ = Buffer::allocate(10).unwrap().split(&[0..5, 4..10]);
}

#[test]
#[should_panic(expected = "ascending, apart and inside")]
fn parts_past_the_end_are_refused() {
    let _ = Buffer::allocate(10).unwrap().split(&[0..5, 6..11]);
}

#[test]
fn given_memory_is_filled_in_place_and_its_owner_dropped_with_the_last_part() {
    struct Memory(Vec<u8>, Arc<AtomicUsize>);
    impl Drop for Memory {
        fn drop(&mut self) {
            assert_eq!(self.0, [1, 1, 0, 2]);
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let n_drops = Arc::new(AtomicUsize::new(0));
    let mut memory = Box::new(Memory(vec![0; 4], Arc::clone(&n_drops)));
    let start = NonNull::new(memory.0.as_mut_ptr()).unwrap();
    // SAFETY: the vector lives on the heap until its owner is dropped, and is not touched otherwise before.
    let buffer = unsafe { Buffer::from_raw(start, 4, memory) };
    let mut parts = buffer.split(&[0..2, 3..4]);
    parts[0].fill(1);
    parts[1].fill(2);
    drop(parts.remove(0));
    assert_eq!(n_drops.load(Ordering::Relaxed), 0);
    drop(parts);
    assert_eq!(n_drops.load(Ordering::Relaxed), 1);
}

#[cfg(unix)]
#[test]
fn a_dropped_large_buffer_is_recycled() {
    release_pool();
    let mut first = Buffer::allocate(9 << 20).unwrap();
    first.fill(3);
    let address = first.as_ptr();
    drop(first);
    let second = Buffer::allocate((9 << 20) - 5).unwrap();
    assert_eq!(second.as_ptr(), address);
    assert_eq!(second.len(), (9 << 20) - 5);
    drop(second);
    assert_eq!(release_pool(), 10 << 20);
    assert_eq!(release_pool(), 0);
}

#[cfg(unix)]
#[test]
fn memory_of_which_pages_were_given_back_is_not_recycled() {
    release_pool();
    let buffers = Buffer::allocate_many(&[1 << 20; 8]).unwrap();
    drop(buffers);
    assert_eq!(release_pool(), 0);
}
