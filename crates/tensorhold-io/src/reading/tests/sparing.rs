//! Readings that leave nothing in the page cache.

use std::thread;

use super::*;

const LEN: usize = (96 << 20) + 777;

/// What one system holds as one page, and another does not.
const FEW_BYTES: u64 = 4 << 20;

fn file_of(bytes: &[u8]) -> (tempfile::TempDir, Arc<Pread>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, bytes).unwrap();
    let file = File::open(path).unwrap();
    // What is not on the disk yet cannot be given back.
    file.sync_all().unwrap();
    (folder, Arc::new(Pread::new(file).unwrap()))
}

/// `None` where the system does not tell, or has the file nowhere else.
fn cached_bytes(file: &Pread) -> Option<u64> {
    let is_in_memory = platform::is_in_memory(file.file());
    let counted = platform::counted_bytes(file.file(), 0, file.size_bytes());
    if is_in_memory || counted.is_none() {
        eprintln!("not run: nobody tells what the page cache holds");
    }
    counted.filter(|_| !is_in_memory)
}

fn open(file: &Arc<Pread>, access: Access) -> Reading {
    Reading::new(file, None, access, wanted(file, file.size_bytes()))
}

/// Reads pieces in turn in two threads; every third is looked at in place where that can be.
fn read_through(reading: &Reading, bytes: &[u8]) {
    let pieces: Vec<_> = bytes.chunks((3 << 20) + 100).zip(0_u64..).collect();
    thread::scope(|scope| {
        for hand in 0..2 {
            let pieces = &pieces;
            scope.spawn(move || {
                for (piece, number) in pieces.iter().skip(hand).step_by(2) {
                    let start = number * ((3 << 20) + 100);
                    let range = ByteRange::new(start, start + piece.len() as u64);
                    let mut look = |shown: &[u8]| assert!(shown == *piece);
                    if number % 3 == 0 && reading.with_bytes(range, &mut look).unwrap() {
                        continue;
                    }
                    let mut into = vec![0; piece.len()];
                    reading.read_at(start, &mut into).unwrap();
                    assert!(into == *piece, "{}", reading.way());
                }
            });
        }
    });
}

#[test]
fn a_sparing_reading_empties_the_page_cache_behind_itself() {
    let bytes: Vec<u8> = (0..LEN).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    let (_folder, file) = file_of(&bytes);
    let reading = open(&file, Access::Auto);
    read_through(&reading, &bytes);
    drop(reading);
    let Some(cached) = cached_bytes(&file) else {
        return;
    };
    assert_eq!(cached, LEN as u64, "without it the bytes stay");

    let reading = open(&file, Access::Sparing);
    assert_eq!(reading.way(), Way::Copied);
    read_through(&reading, &bytes);
    // What others were reading when it was given back is left for later.
    let most = 2 * behind::WAITING_BYTES;
    let left = cached_bytes(&file).unwrap();
    assert!(left <= most, "{left} bytes were left at a time");
    drop(reading);
    let left = cached_bytes(&file).unwrap();
    assert!(left <= FEW_BYTES, "{left} bytes are left");

    let reading = open(&file, Access::Sparing);
    assert_eq!(reading.way(), Way::Direct);
    read_through(&reading, &bytes);
    drop(reading);
    assert!(cached_bytes(&file).unwrap() <= FEW_BYTES);
}

#[test]
fn what_is_short_is_read_through_the_page_cache_and_given_back() {
    let bytes: Vec<u8> = (0..9 << 20).map(|at: usize| (at >> 7) as u8).collect();
    let (_folder, file) = file_of(&bytes);
    let reading = open(&file, Access::Sparing);
    assert_eq!(reading.way(), Way::Buffered);
    read_through(&reading, &bytes);
    drop(reading);
    if let Some(left) = cached_bytes(&file) {
        assert!(left <= FEW_BYTES, "{left} bytes are left");
    }
}

#[test]
fn what_nobody_has_read_stays() {
    let bytes = vec![7; 64 << 20];
    let (_folder, file) = file_of(&bytes);
    let reading = open(&file, Access::Sparing);
    let mut into = vec![0; 20 << 20];
    reading.read_at(32 << 20, &mut into).unwrap();
    drop(reading);
    if let Some(left) = cached_bytes(&file) {
        let rest = 44 << 20;
        assert!(
            (rest..=rest + FEW_BYTES).contains(&left),
            "{left} bytes are left"
        );
    }
}
