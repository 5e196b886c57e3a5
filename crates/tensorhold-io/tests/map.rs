//! Files as memory.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};

use tensorhold_core::{ErrorKind, Source};
use tensorhold_io::Map;

fn file_with(bytes: &[u8]) -> (tempfile::TempDir, File) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, bytes).unwrap();
    let file = File::open(path).unwrap();
    (folder, file)
}

#[test]
fn the_map_is_the_file() {
    let (_folder, file) = file_with(b"hello");
    let map = Map::open(&file).unwrap();
    drop(file);
    assert_eq!(map.as_bytes(), b"hello");
    assert_eq!(Source::as_bytes(&map), Some(&b"hello"[..]));
    assert_eq!((map.len(), map.size_bytes()), (5, 5));
    let mut into = [0; 3];
    map.read_at(2, &mut into).unwrap();
    assert_eq!(&into, b"llo");
}

#[test]
fn reading_past_the_end_names_the_missing_bytes() {
    let (_folder, file) = file_with(b"hello");
    let map = Map::open(&file).unwrap();
    let error = map.read_at(3, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert_eq!(error.message(), "file ends at byte 5, 2 bytes short");
    let error = map.read_at(u64::MAX, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
}

#[test]
fn writes_stay_in_the_process() {
    let (folder, file) = file_with(b"hello");
    let map = Map::open(&file).unwrap();
    // SAFETY: the map is 5 bytes long and no slice of it is alive.
    unsafe { map.as_ptr().write(b'j') };
    assert_eq!(map.as_bytes(), b"jello");
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"hello");
    assert_eq!(Map::open(&file).unwrap().as_bytes(), b"hello");
}

#[test]
fn an_empty_file_is_an_empty_map() {
    let (_folder, file) = file_with(b"");
    let map = Map::open(&file).unwrap();
    assert!(map.is_empty());
    assert_eq!(map.as_bytes(), b"");
    assert!(!map.as_ptr().is_null());
    map.read_at(0, &mut []).unwrap();
}

#[test]
fn a_map_larger_than_memory_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create_new(folder.path().join("a")).unwrap();
    let size_bytes = 4 << 40;
    file.set_len(size_bytes).unwrap();
    let file = File::open(folder.path().join("a")).unwrap();
    let map = Map::open(&file).unwrap();
    let mut last = [1];
    map.read_at(size_bytes - 1, &mut last).unwrap();
    assert_eq!(last, [0]);
}

#[test]
fn what_cannot_be_mapped_points_to_pread() {
    let folder = tempfile::tempdir().unwrap();
    let error = Map::open(&File::open(folder.path()).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.os_error().is_some());
    assert!(error.message().starts_with("cannot map "), "{error}");
    assert_eq!(
        error.hint(),
        Some("read the file instead, with `backend=\"pread\"`")
    );
}

#[test]
fn maps_go_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Map>();
}
