//! Saves to disks that are full, read-only, or where the target is a mount of its own.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use tensorhold_core::{Error, ErrorKind, Sink};
use tensorhold_io::{AtomicFile, Durability, Map};

use common::SmallDisk;

static OLD: [u8; 300_000] = [7; 300_000];

fn disk_with_an_old_file() -> Option<SmallDisk> {
    let disk = SmallDisk::mount("size=1m")?;
    fs::write(disk.path().join("a"), OLD).unwrap();
    Some(disk)
}

fn check(disk: &SmallDisk, error: &Error, needed: &str) {
    assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(28)));
    let message = error.message();
    assert!(
        message.starts_with("cannot write: No space left on device: the file needs "),
        "{message}"
    );
    assert!(message.contains(needed), "{message}");
    // Of 256 pages the old file holds 74.
    assert!(message.ends_with(", 745472 are free"), "{message}");
    assert_eq!(error.hint(), Some("the old file is as it was"));
    assert!(fs::read(disk.path().join("a")).unwrap() == OLD);
}

#[test]
fn too_large_a_file_is_refused_before_its_first_byte() {
    let Some(disk) = disk_with_an_old_file() else {
        return;
    };
    let path = disk.path().join("a");
    let error = AtomicFile::create(&path, Some(900_000), Durability::None).unwrap_err();
    check(&disk, &error, "needs 900000 bytes");
    assert_eq!(common::names(disk.path()), ["a"]);
}

#[test]
fn a_disk_that_fills_up_keeps_the_old_file() {
    let Some(disk) = disk_with_an_old_file() else {
        return;
    };
    let path = disk.path().join("a");
    let mut file = AtomicFile::create(&path, None, Durability::Data).unwrap();
    file.write(&[1; 400_000]).unwrap();
    let error = file.write(&[2; 400_000]).unwrap_err();
    check(&disk, &error, "needs 800000 bytes");
    assert_eq!(error.bytes().unwrap().end, 800_000);
    assert!(file.write(b"more").is_err());
    assert!(file.commit().is_err());
    assert_eq!(common::names(disk.path()), ["a"]);
}

#[test]
fn small_pieces_find_the_disk_full_too() {
    let Some(disk) = disk_with_an_old_file() else {
        return;
    };
    let mut file = AtomicFile::create(&disk.path().join("a"), None, Durability::None).unwrap();
    let failed = (0..2000).find_map(|_| file.write(&[3; 1000]).err());
    check(&disk, &failed.unwrap(), "bytes");
    drop(file);
    assert_eq!(common::names(disk.path()), ["a"]);
}

#[test]
fn a_file_that_just_fits_is_saved() {
    let Some(disk) = disk_with_an_old_file() else {
        return;
    };
    let path = disk.path().join("a");
    let mut file = AtomicFile::create(&path, Some(745_472), Durability::Full).unwrap();
    file.write(&[1; 745_472]).unwrap();
    file.commit().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 745_472);
}

fn mount(options: &[&str], path: &Path) {
    let status = Command::new("mount").args(options).arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_read_only_disk_says_so() {
    let Some(disk) = disk_with_an_old_file() else {
        return;
    };
    mount(&["-o", "remount,ro"], disk.path());
    for name in ["a", "new"] {
        let path = disk.path().join(name);
        let error = AtomicFile::create(&path, None, Durability::None).unwrap_err();
        assert_eq!(error.os_error(), Some(30));
        assert!(
            error.message().ends_with(": Read-only file system"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_is_a_mount_of_its_own_is_copied_onto() {
    let Some(disk) = disk_with_an_old_file() else {
        return;
    };
    let [inside, outside] = ["a", "mounted"].map(|name| disk.path().join(name));
    fs::write(&outside, b"below").unwrap();
    mount(&["--bind", inside.to_str().unwrap()], &outside);
    let save = || {
        let mut file = AtomicFile::create(&outside, Some(3), Durability::Full).unwrap();
        file.write(b"new").unwrap();
        file.commit()
    };
    let map = Map::open(&File::open(&inside).unwrap()).unwrap();
    let error = save().unwrap_err();
    assert!(error.message().starts_with("cannot overwrite in place"));
    assert!(map.as_bytes() == OLD && fs::read(&inside).unwrap() == OLD);
    drop(map);
    let temporary = common::names(disk.path()).remove(0);
    fs::remove_file(disk.path().join(temporary)).unwrap();
    save().unwrap();
    assert_eq!(fs::read(&inside).unwrap(), b"new");
    assert_eq!(common::names(disk.path()), ["a", "mounted"]);
    assert!(
        Command::new("umount")
            .arg(&outside)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(fs::read(&outside).unwrap(), b"below");
}
