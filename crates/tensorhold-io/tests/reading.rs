//! One file, read in every way.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use tensorhold_core::{ByteRange, ErrorKind, Source};
use tensorhold_io::{Access, Buffer, Map, Pread, Reading, Wanted, Way};

const ALL: [Access; 6] = [
    Access::Auto,
    Access::Sparing,
    Access::Shared,
    Access::Mapped,
    Access::Buffered,
    Access::Direct,
];

/// So many bytes, from anywhere in the file.
fn wanted(file: &Pread, n_bytes: u64) -> Wanted {
    Wanted {
        n_bytes,
        span: ByteRange::new(0, file.size_bytes()),
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    file: Arc<Pread>,
    map: Arc<Map>,
}

fn fixture(bytes: &[u8]) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, bytes).unwrap();
    let file = File::open(path).unwrap();
    let map = Arc::new(Map::open(&file).unwrap());
    let file = Arc::new(Pread::new(file).unwrap());
    Fixture { folder, file, map }
}

impl Fixture {
    fn path(&self) -> PathBuf {
        self.folder.path().join("a")
    }

    fn cut(&self, size_bytes: u64) {
        let file = File::options().write(true).open(self.path()).unwrap();
        file.set_len(size_bytes).unwrap();
    }
}

/// Bytes of which each page is unlike the others.
fn pattern(size: usize) -> Vec<u8> {
    (0..size)
        .map(|index| (index ^ index >> 8 ^ index >> 16) as u8)
        .collect()
}

fn readings(fixture: &Fixture, wanted_bytes: u64) -> impl Iterator<Item = Reading> {
    ALL.into_iter().flat_map(move |access| {
        [None, Some(&fixture.map)].map(|map| {
            Reading::new(
                &fixture.file,
                map,
                access,
                wanted(&fixture.file, wanted_bytes),
            )
        })
    })
}

proptest! {
    #[test]
    fn every_way_gives_the_same_bytes_and_errors(
        seed in any::<u8>(),
        size in 0_usize..300_000,
        position in 0_u64..310_000,
        wanted in 0_usize..200_000,
        shift in 0_usize..4,
    ) {
        let bytes: Vec<u8> = (0..size).map(|index| (index * 31 + index / 251) as u8 ^ seed).collect();
        let fixture = fixture(&bytes);
        for wanted_bytes in [0, 1 << 40] {
            for reading in readings(&fixture, wanted_bytes) {
                prop_assert_eq!(reading.size_bytes(), size as u64);
                let mut ours = vec![0; wanted + shift];
                let mut theirs = vec![0; wanted];
                let result = reading.read_at(position, &mut ours[shift..]);
                match bytes[..].read_at(position, &mut theirs) {
                    Ok(()) => {
                        prop_assert!(result.is_ok(), "{}: {:?}", reading.way(), result);
                        prop_assert!(ours[shift..] == theirs, "{}", reading.way());
                    }
                    Err(_) if wanted == 0 => {}
                    Err(error) => prop_assert_eq!(result.unwrap_err().to_string(), error.to_string()),
                }
            }
        }
    }
}

#[test]
fn what_is_asked_for_is_what_is_used() {
    let fixture = fixture(&[7; 10_000]);
    let way =
        |map, access| Reading::new(&fixture.file, map, access, wanted(&fixture.file, 10_000)).way();
    assert_eq!(way(Some(&fixture.map), Access::Mapped), Way::Mapped);
    assert_eq!(way(None, Access::Mapped), Way::Buffered);
    assert_eq!(way(Some(&fixture.map), Access::Buffered), Way::Buffered);
}

#[test]
fn only_a_map_shows_its_bytes_in_place() {
    let fixture = fixture(b"weights");
    for reading in readings(&fixture, 7) {
        match reading.way() {
            Way::Mapped => assert_eq!(reading.as_bytes(), Some(&b"weights"[..])),
            _ => assert_eq!(reading.as_bytes(), None),
        }
    }
}

#[test]
fn at_least_one_thread_reads() {
    let fixture = fixture(b"weights");
    assert!(readings(&fixture, 7).all(|reading| (1..=64).contains(&reading.n_readers(2))));
}

#[test]
fn a_file_that_shrank_before_it_is_read_says_so() {
    let fixture = fixture(&[7; 100_000]);
    let readings: Vec<_> = readings(&fixture, 100_000).collect();
    fixture.cut(40_000);
    for reading in readings
        .iter()
        .filter(|reading| reading.way() != Way::Mapped)
    {
        let error = reading.read_at(30_000, &mut [0; 50_000]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated, "{}", reading.way());
        assert_eq!(
            error.message(),
            "file ends at byte 40000, 40000 bytes short"
        );
        assert!(
            error
                .hint()
                .unwrap()
                .starts_with("the file shrank from 100000 to 40000 bytes")
        );
    }
}

#[test]
fn large_pieces_are_the_same_by_every_way() {
    let bytes = pattern(40 << 20);
    let fixture = fixture(&bytes);
    for access in ALL {
        let reading = Reading::new(&fixture.file, None, access, wanted(&fixture.file, 40 << 20));
        // More than the copies that are tried by each way, at places of all alignments.
        for turn in 0..14 {
            let position = turn * 2_600_001;
            let size = (3 << 20) + turn * 513;
            let mut into = vec![0; size + 8];
            let into = &mut into[turn % 8..][..size];
            reading.read_at(position as u64, into).unwrap();
            assert!(*into == bytes[position..][..size], "{}", reading.way());
        }
    }
}

#[test]
fn the_end_of_a_file_is_read_directly_into_aligned_memory() {
    for size in [1 << 20, (1 << 20) + 1, (1 << 20) - 1, 4096, 511, 1] {
        let bytes = pattern(size);
        let fixture = fixture(&bytes);
        let reading = Reading::new(
            &fixture.file,
            None,
            Access::Direct,
            wanted(&fixture.file, size as u64),
        );
        let mut into = Buffer::allocate(4 << 20).unwrap();
        for start in [0, 1, 8, 4096] {
            let into = &mut into[..size.saturating_sub(start)];
            reading.read_at(start as u64, into).unwrap();
            assert!(
                into.is_empty() || *into == bytes[start..],
                "{size} from {start}"
            );
        }
    }
}
