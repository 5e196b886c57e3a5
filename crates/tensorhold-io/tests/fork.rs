//! A reading that a process has when it forks.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::panic;
use std::path::Path;
use std::sync::Arc;

use tensorhold_core::{ByteRange, Source};
use tensorhold_io::{Access, Buffer, Pread, Reading, Wanted};

fn reads_right(reading: &Reading, bytes: &[u8]) -> bool {
    let mut into = Buffer::allocate(bytes.len() as u64).unwrap();
    // As often as every way is tried, and then some.
    (0..8).all(|_| {
        into.fill(0xDD);
        reading.read_at(0, &mut into).is_ok() && *into == *bytes
    })
}

fn n_rings() -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let is_ring = |target: &std::path::PathBuf| target == Path::new("anon_inode:[io_uring]");
    targets.filter(is_ring).count()
}

/// Whether `work` gives `true` in a child of this process.
fn in_a_child(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child does nothing with threads or locks of the parent's but allocate, which the C library sees to, and
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

#[test]
fn parent_and_child_read_on_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..6_000_000_usize)
        .map(|index| (index ^ index >> 8 ^ index >> 16) as u8)
        .collect();
    fs::write(folder.path().join("a"), &bytes).unwrap();
    let file = Arc::new(Pread::new(File::open(folder.path().join("a")).unwrap()).unwrap());
    let span = ByteRange::new(0, file.size_bytes());
    let wanted = Wanted {
        n_bytes: span.len(),
        span,
    };
    let reading = Reading::new(&file, None, Access::Direct, wanted);
    let mut into = Buffer::allocate(bytes.len() as u64).unwrap();
    for _ in 0..2 {
        reading.read_at(0, &mut into).unwrap();
    }
    let n_rings_before = n_rings();
    if n_rings_before == 0 {
        eprintln!("forked without a ring, as the system refuses one");
    }
    let has_read = in_a_child(|| {
        let has_read = reads_right(&reading, &bytes);
        // Its own in the place of its parent's.
        has_read && n_rings() == n_rings_before
    });
    assert!(has_read);
    assert!(reads_right(&reading, &bytes));
    assert_eq!(n_rings(), n_rings_before);
    let reading = std::cell::Cell::new(Some(reading));
    assert!(in_a_child(|| {
        drop(reading.take());
        n_rings() == 0
    }));
    assert!(reads_right(&reading.take().unwrap(), &bytes));
    assert_eq!(n_rings(), 0);
}
