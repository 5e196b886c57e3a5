//! How files are read that lie in the page cache, or do not, on Linux.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;
use tensorhold_core::{ByteRange, ErrorKind, Source};
use tensorhold_io::{Access, Pread, Reading, Wanted, Way};

/// Far less than the time after which the system takes a lease away.
const NO_TIME: Duration = Duration::from_secs(10);

/// So many bytes, from anywhere in the file.
fn wanted(file: &Pread, n_bytes: u64) -> Wanted {
    Wanted {
        n_bytes,
        span: ByteRange::new(0, file.size_bytes()),
    }
}

/// Bytes of which each page is unlike the others.
fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|index| (index ^ index >> 8 ^ index >> 16) as u8)
        .collect()
}

fn opened(path: &Path) -> Arc<Pread> {
    Arc::new(Pread::new(File::open(path).unwrap()).unwrap())
}

fn warm_file(bytes: &[u8]) -> (TempDir, Arc<Pread>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, bytes).unwrap();
    let file = opened(&path);
    (folder, file)
}

fn auto(file: &Arc<Pread>) -> Reading {
    Reading::new(file, None, Access::Auto, wanted(file, file.size_bytes()))
}

/// Puts the file out of the page cache; `false`, with a word on stderr, where it lives in nothing else.
fn cool(file: &Pread) -> bool {
    file.file().sync_all().unwrap();
    fadvise(file.file(), 0, None, Advice::DontNeed).unwrap();
    let is_in_memory = rustix::fs::fstatfs(file.file()).unwrap().f_type == 0x0102_1994;
    if is_in_memory {
        eprintln!("not run: the folder for temporary files is a tmpfs");
    }
    !is_in_memory
}

fn cut(folder: &TempDir, size_bytes: u64) {
    let file = File::options()
        .write(true)
        .open(folder.path().join("a"))
        .unwrap();
    file.set_len(size_bytes).unwrap();
}

fn read(reading: &Reading, bytes: &[u8]) {
    let mut into = vec![0; bytes.len()];
    reading.read_at(0, &mut into).unwrap();
    assert!(into == bytes, "{}", reading.way());
}

#[test]
fn a_warm_file_is_copied_and_a_cold_one_read_directly() {
    let bytes = pattern(40 << 20);
    let (_folder, file) = warm_file(&bytes);
    assert_eq!(auto(&file).way(), Way::Copied);
    read(&auto(&file), &bytes);
    if cool(&file) {
        assert_eq!(auto(&file).way(), Way::Direct);
        let small = Reading::new(&file, None, Access::Auto, wanted(&file, 1 << 20));
        assert_eq!(small.way(), Way::Buffered);
        assert!(small.wants_contiguous());
        read(&auto(&file), &bytes);
        assert_eq!(
            auto(&file).way(),
            Way::Direct,
            "direct reads leave the cache cold"
        );
    }
}

#[test]
fn a_file_in_memory_is_copied_and_never_read_directly() {
    let Some(disk) = common::SmallDisk::mount("size=24m") else {
        return;
    };
    let bytes = pattern(20 << 20);
    let path = disk.path().join("a");
    fs::write(&path, &bytes).unwrap();
    for access in [Access::Auto, Access::Buffered, Access::Direct] {
        let file = opened(&path);
        let reading = Reading::new(&file, None, access, wanted(&file, 20 << 20));
        // More than the copies that are tried each way.
        (0..12).for_each(|_| read(&reading, &bytes));
        assert_eq!(reading.way() == Way::Copied, access == Access::Auto);
    }
}

#[test]
fn warm_bytes_are_shown_in_place_and_cold_ones_are_not_read_for_it() {
    let bytes = pattern(2 << 20);
    let (_folder, file) = warm_file(&bytes);
    let reading = auto(&file);
    let mut is_shown = false;
    let has_shown = reading.with_bytes(ByteRange::new(4097, 1_500_000), &mut |shown| {
        assert!(*shown == bytes[4097..1_500_000]);
        is_shown = true;
    });
    assert_eq!(has_shown.unwrap(), is_shown);
    let past = ByteRange::new(1 << 20, 3 << 20);
    assert!(
        !reading
            .with_bytes(past, &mut |_| panic!("past the end"))
            .unwrap()
    );
    if cool(&file) {
        let cold = ByteRange::new(0, 1 << 20);
        assert!(!reading.with_bytes(cold, &mut |_| panic!("cold")).unwrap());
    }
}

#[test]
fn bytes_are_shown_again_after_their_pages_were_let_go() {
    let bytes = pattern(16 << 20);
    let (_folder, file) = warm_file(&bytes);
    let reading = auto(&file);
    for round in 0..20 {
        for start in [0, 6_000_001] {
            let expected = &bytes[start + round..start + 9_000_000];
            let range = ByteRange::new((start + round) as u64, (start + 9_000_000) as u64);
            let shown = reading.with_bytes(range, &mut |shown| assert!(*shown == *expected));
            shown.unwrap();
        }
    }
}

#[test]
fn threads_that_take_little_of_a_warm_file_have_stretches_of_their_own() {
    let (_folder, file) = warm_file(&pattern(16 << 20));
    let little = Reading::new(&file, None, Access::Auto, wanted(&file, 2 << 20));
    assert_eq!(little.wants_contiguous(), little.way() == Way::Copied);
    let most = Reading::new(&file, None, Access::Auto, wanted(&file, 12 << 20));
    assert!(!most.wants_contiguous() || most.way() == Way::Buffered);
}

#[test]
fn a_file_that_is_open_for_writing_is_read_all_the_same() {
    let bytes = pattern(4 << 20);
    let (folder, file) = warm_file(&bytes);
    let _writer = File::options()
        .write(true)
        .open(folder.path().join("a"))
        .unwrap();
    let reading = auto(&file);
    read(&reading, &bytes);
    assert_eq!(reading.way(), Way::Buffered);
}

/// A map without a lease would end this test with a signal.
#[test]
fn a_warm_file_that_is_cut_while_it_is_copied_is_an_error_or_right() {
    let bytes = pattern(16 << 20);
    for round in 0..40 {
        let (folder, file) = warm_file(&bytes);
        let reading = auto(&file);
        let is_cut = AtomicBool::new(false);
        let read_on = || {
            let mut into = vec![0; 4 << 20];
            while !is_cut.load(Ordering::Relaxed) {
                read_what_is_there(&reading, &bytes, &mut into);
            }
            read_what_is_there(&reading, &bytes, &mut into);
        };
        thread::scope(|scope| {
            (0..3).for_each(|_| drop(scope.spawn(read_on)));
            thread::sleep(Duration::from_micros(700 * round));
            let started = Instant::now();
            cut(&folder, 5000);
            assert!(started.elapsed() < NO_TIME, "the lease was kept");
            is_cut.store(true, Ordering::Relaxed);
        });
    }
}

fn read_what_is_there(reading: &Reading, bytes: &[u8], into: &mut [u8]) {
    for (index, expected) in bytes.chunks(into.len()).enumerate() {
        let start = (index * into.len()) as u64;
        let range = ByteRange::new(start, start + into.len() as u64);
        let shown = reading.with_bytes(range, &mut |shown| assert!(*shown == *expected));
        shown.unwrap();
        match reading.read_at(start, into) {
            Ok(()) => assert!(*into == *expected),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Truncated),
        }
    }
}

#[test]
fn nobody_waits_for_a_reading_that_reads_nothing() {
    let bytes = pattern(4 << 20);
    let (folder, file) = warm_file(&bytes);
    let reading = auto(&file);
    read(&reading, &bytes);
    let started = Instant::now();
    cut(&folder, 1);
    assert!(started.elapsed() < NO_TIME);
}
