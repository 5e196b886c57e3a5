//! What is on the disk during and after a save.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};
use tensorhold_core::{ErrorKind, Result, Sink};
use tensorhold_io::{AtomicFile, Durability, Map};

use common::{mode, names};

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path, Some(bytes.len() as u64), Durability::None)?;
    file.write(bytes)?;
    file.commit()
}

#[test]
fn a_new_file_holds_what_was_written_and_nothing_lies_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    for durability in [Durability::None, Durability::Data, Durability::Full] {
        let path = folder.path().join("a");
        let mut file = AtomicFile::create(&path, None, durability).unwrap();
        file.write(b"by").unwrap();
        file.write(b"tes").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(names(folder.path()), ["a"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pieces_of_any_size_come_out_in_order(
        sizes in prop::collection::vec(
            prop_oneof![0_usize..100, 100_000_usize..140_000, 900_000_usize..1_200_000],
            0..12,
        ),
        hint in prop::option::of(0_u64..2_000_000),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut expected = Vec::new();
        let mut file = AtomicFile::create(&path, hint, Durability::None).unwrap();
        for (index, size) in sizes.into_iter().enumerate() {
            let piece = vec![index as u8 + 1; size];
            file.write(&piece).unwrap();
            expected.extend(piece);
        }
        file.commit().unwrap();
        prop_assert!(fs::read(&path).unwrap() == expected);
    }
}

#[test]
fn threads_write_their_places_at_the_same_time() {
    const PART: usize = 300_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut file = AtomicFile::create(&path, Some(8 * PART as u64), Durability::Data).unwrap();
    file.write(&[0; PART]).unwrap();
    thread::scope(|scope| {
        for index in (1..8_u8).rev() {
            let file = &file;
            scope.spawn(move || {
                let position = u64::from(index) * PART as u64;
                file.write_at(position, &[index; PART]).unwrap();
            });
        }
    });
    file.commit().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 8 * PART);
    for (index, part) in bytes.chunks(PART).enumerate() {
        assert!(part.iter().all(|byte| usize::from(*byte) == index));
    }
}

#[test]
fn until_the_commit_the_old_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    let mut file = AtomicFile::create(&path, Some(3), Durability::None).unwrap();
    file.write(b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    file.prepare().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(file.write(b"more").unwrap_err().kind(), ErrorKind::Closed);
    file.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn what_is_not_committed_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    for is_prepared in [false, true] {
        let mut file = AtomicFile::create(&path, Some(1 << 20), Durability::None).unwrap();
        file.write(&[1; 1 << 20]).unwrap();
        if is_prepared {
            file.prepare().unwrap();
        }
        assert_eq!(names(folder.path()).len(), 2);
        drop(file);
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}

#[test]
fn a_hint_that_was_too_large_takes_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut file = AtomicFile::create(&path, Some(8 << 20), Durability::None).unwrap();
    file.write(b"little").unwrap();
    file.commit().unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 6);
    assert!(metadata.blocks() * 512 < 1 << 20);
}

#[test]
fn a_map_of_the_old_file_outlives_its_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    let map = tensorhold_io::Map::open(&File::open(&path).unwrap()).unwrap();
    save(&path, map.as_bytes()).unwrap();
    save(&path, b"").unwrap();
    assert_eq!(map.as_bytes(), b"old");
}

#[test]
fn the_old_files_mode_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for old_mode in [0o600, 0o640, 0o664, 0o666, 0o755] {
        fs::write(&path, b"old").unwrap();
        common::chmod(&path, old_mode);
        save(&path, b"new").unwrap();
        assert_eq!(mode(&path), old_mode);
    }
}

#[test]
fn a_private_file_is_private_while_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    common::chmod(&path, 0o600);
    let _file = AtomicFile::create(&path, None, Durability::None).unwrap();
    for name in names(folder.path()) {
        assert_eq!(mode(&folder.path().join(name)), 0o600);
    }
}

#[test]
fn the_old_files_owner_stays_where_we_may_give_files_away() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: giving files away needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
    common::chmod(&path, 0o640);
    save(&path, b"new").unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn bits_for_a_group_that_cannot_be_kept_go_to_nobody_else() {
    if let Some(folder) = common::child_folder() {
        save(&folder.join("a"), b"new").unwrap();
        return;
    }
    let folder = common::public_folder();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    common::chmod(&path, 0o666);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, None, Some(4321)).unwrap();
        common::chmod(&path, 0o672);
    }
    common::as_nobody(
        "bits_for_a_group_that_cannot_be_kept_go_to_nobody_else",
        folder.path(),
    );
    assert_eq!(fs::read(&path).unwrap(), b"new");
    let expected = match rustix::process::geteuid().is_root() {
        true => 0o622,
        false => 0o666,
    };
    assert_eq!(mode(&path), expected);
}

#[cfg(target_os = "linux")]
#[test]
fn the_old_files_access_list_stays() {
    const NAME: &str = "system.posix_acl_access";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    // Version 2; owner rw, user 1234 r, group none, mask r, others none.
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 1234),
        (4, 0, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&path, NAME, &list, flags).is_err() {
        eprintln!("not run: the file system of the temporary folder has no access lists");
        return;
    }
    save(&path, b"new").unwrap();
    let mut kept = vec![0; 1000];
    let size_bytes = rustix::fs::getxattr(&path, NAME, &mut kept[..]).unwrap();
    assert_eq!(kept[..size_bytes], list);
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn a_symbolic_link_stays_and_its_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let [real, other] = ["real", "other"].map(|name| folder.path().join(name));
    fs::create_dir(&real).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(real.join("a"), b"old").unwrap();
    symlink("../real/a", other.join("first")).unwrap();
    symlink(other.join("first"), folder.path().join("second")).unwrap();
    save(&folder.path().join("second"), b"new").unwrap();
    assert_eq!(fs::read(real.join("a")).unwrap(), b"new");
    assert!(folder.path().join("second").is_symlink());
    assert!(other.join("first").is_symlink());
    assert_eq!(names(&real), ["a"]);
    assert_eq!(names(&other), ["first"]);
}

#[test]
fn a_dangling_link_gets_its_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("real")).unwrap();
    symlink("real/a", folder.path().join("link")).unwrap();
    save(&folder.path().join("link"), b"new").unwrap();
    assert!(folder.path().join("link").is_symlink());
    assert_eq!(fs::read(folder.path().join("real/a")).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["link", "real"]);
}

#[test]
fn links_in_a_circle_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("circle");
    symlink("circle", &path).unwrap();
    let error = save(&path, b"new").unwrap_err();
    assert_eq!(error.os_error(), Some(40));
    assert_eq!(names(folder.path()), ["circle"]);
}

#[test]
fn of_a_hard_linked_file_only_the_given_name_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    fs::write(&a, b"old").unwrap();
    fs::hard_link(&a, &b).unwrap();
    save(&a, b"new").unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"new");
    assert_eq!(fs::read(&b).unwrap(), b"old");
}

/// A device of our own, so that a defect cannot harm the system's; the system's where we may not make one.
fn device(folder: &Path, name: &str, minor: u32) -> std::path::PathBuf {
    let path = folder.join(name);
    let number = rustix::fs::makedev(1, minor);
    let mode = Mode::from_raw_mode(0o666);
    match rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, number) {
        Ok(()) => path,
        Err(_) => Path::new("/dev").join(name),
    }
}

#[test]
fn a_device_takes_the_bytes_and_stays_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let null = device(folder.path(), "null", 3);
    symlink(&null, folder.path().join("link")).unwrap();
    let before = names(folder.path());
    save(&null, &[1; 1 << 20]).unwrap();
    save(&folder.path().join("link"), b"bytes").unwrap();
    assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
    assert_eq!(names(folder.path()), before);
}

#[test]
fn a_full_device_says_so_and_stays_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let full = device(folder.path(), "full", 7);
    let error = save(&full, b"bytes").unwrap_err();
    assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(28)));
    assert!(
        error
            .message()
            .starts_with("cannot write: No space left on device"),
        "{error}"
    );
    assert!(fs::metadata(&full).unwrap().file_type().is_char_device());
}

#[test]
fn a_fifo_is_written_to_from_first_to_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| index as u8).collect();
    let reader = thread::spawn({
        let path = path.clone();
        move || fs::read(path).unwrap()
    });
    let mut file = AtomicFile::create(&path, Some(3_000_000), Durability::Full).unwrap();
    assert!(!file.takes_positions());
    let error = file.write_at(0, b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    for piece in bytes.chunks(70_001) {
        file.write(piece).unwrap();
    }
    file.commit().unwrap();
    assert!(reader.join().unwrap() == bytes);
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
    assert_eq!(names(folder.path()), ["fifo"]);
}

#[test]
fn a_socket_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    });
    save(&path, b"bytes").unwrap();
    assert_eq!(reader.join().unwrap(), b"bytes");
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
}

#[test]
fn a_reader_that_left_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let reader = thread::spawn({
        let path = path.clone();
        move || drop(File::open(path).unwrap())
    });
    let mut file = AtomicFile::create(&path, None, Durability::None).unwrap();
    reader.join().unwrap();
    file.write(b"bytes").unwrap();
    let error = file.commit().unwrap_err();
    assert_eq!(error.message(), "cannot write: Broken pipe");
}

#[test]
fn directories_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = save(folder.path(), b"new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile);
    assert_eq!(
        error.message(),
        "is a directory, where a file is to be written"
    );
    let error = save(&folder.path().join("new/"), b"new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile);
    assert_eq!(
        error.message(),
        "names a directory, where a file is to be written"
    );
    assert!(save(Path::new(""), b"new").is_err());
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = save(&folder.path().join("none/a"), b"new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.os_error(), Some(2));
    assert_eq!(error.message(), "cannot create: No such file or directory");
    let expected = format!("the folder `{}/none` is not there", folder.path().display());
    assert_eq!(error.hint(), Some(&*expected));
}

#[test]
fn a_directory_that_came_meanwhile_costs_no_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut file = AtomicFile::create(&path, None, Durability::None).unwrap();
    file.write(b"new").unwrap();
    fs::create_dir(&path).unwrap();
    let error = file.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile);
    let beside = names(folder.path()).remove(0);
    assert!(error.hint().unwrap().contains(&beside), "{error}");
    assert_eq!(fs::read(folder.path().join(beside)).unwrap(), b"new");
}

#[test]
fn names_as_long_as_a_file_system_allows_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["n".repeat(255), "é".repeat(127), "\u{1F40B}".repeat(63)] {
        let path = folder.path().join(&name);
        save(&path, b"one").unwrap();
        save(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::remove_file(&path).unwrap();
    }
    let error = save(&folder.path().join("n".repeat(256)), b"new").unwrap_err();
    assert_eq!(error.os_error(), Some(36));
    assert!(names(folder.path()).is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_are_saved() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder
        .path()
        .join(std::ffi::OsStr::from_bytes(b"a\xFF\xFEb"));
    save(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_without_a_name_is_overwritten_through_its_descriptor() {
    use std::os::fd::AsRawFd;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old and long").unwrap();
    let open = File::options().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let descriptor = format!("/proc/self/fd/{}", open.as_raw_fd());
    save(Path::new(&descriptor), b"new").unwrap();
    assert_eq!(std::io::read_to_string(&open).unwrap(), "new");
    assert!(names(folder.path()).is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_without_a_name_is_not_overwritten_while_it_is_mapped() {
    use std::os::fd::AsRawFd;
    let open =
        File::from(rustix::fs::memfd_create("model", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    let path = format!("/proc/self/fd/{}", open.as_raw_fd());
    save(Path::new(&path), &[7; 100_000]).unwrap();
    let map = Map::open(&open).unwrap();
    let error = save(Path::new(&path), &map.as_bytes()[50_000..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(
        error.message(),
        "cannot overwrite in place: tensors of this process are views of the file"
    );
    assert_eq!(
        error.hint(),
        Some("save to another file, or load with `backend=\"pread\"`")
    );
    assert!(map.as_bytes() == [7; 100_000]);
    assert!(fs::read(&path).unwrap() == [7; 100_000]);
    drop(map);
    save(Path::new(&path), b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn a_read_only_file_is_refused() {
    if let Some(folder) = common::child_folder() {
        let error = save(&folder.join("a"), b"new").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.message(), "cannot replace: Permission denied");
        let hint = error.hint().unwrap();
        assert!(hint.contains("a` has mode 0444"), "{hint}");
        return;
    }
    let folder = common::public_folder();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    common::chmod(&path, 0o444);
    common::as_nobody("a_read_only_file_is_refused", folder.path());
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["a"]);
}

#[test]
fn a_read_only_folder_is_refused_though_its_file_is_writable() {
    if let Some(folder) = common::child_folder() {
        let inner = folder.join("inner");
        for name in ["a", "none"] {
            let error = save(&inner.join(name), b"new").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert_eq!(error.message(), "cannot create: Permission denied");
            let hint = error.hint().unwrap();
            assert!(hint.contains("inner` has mode 0555"), "{hint}");
        }
        return;
    }
    let folder = common::public_folder();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a"), b"old and long").unwrap();
    common::chmod(&inner.join("a"), 0o666);
    common::chmod(&inner, 0o555);
    common::as_nobody(
        "a_read_only_folder_is_refused_though_its_file_is_writable",
        folder.path(),
    );
    assert_eq!(fs::read(inner.join("a")).unwrap(), b"old and long");
    assert_eq!(names(&inner), ["a"]);
    common::chmod(&inner, 0o755);
}

#[test]
fn a_name_can_be_given_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let [first, real, link] = ["first", "real", "link"].map(|name| folder.path().join(name));
    fs::write(&real, b"old").unwrap();
    common::chmod(&real, 0o600);
    symlink("real", &link).unwrap();
    for (name, is_prepared) in [("link", false), ("link", true), ("other", true)] {
        let mut file = AtomicFile::create(&first, None, Durability::Data).unwrap();
        file.write(name.as_bytes()).unwrap();
        if is_prepared {
            file.prepare().unwrap();
        }
        file.commit_as(name.as_ref()).unwrap();
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), name.as_bytes());
    }
    assert!(link.is_symlink());
    assert_eq!(mode(&real), 0o600, "the mode of the file that was there");
    assert_eq!(names(folder.path()), ["link", "other", "real"]);
}

#[test]
fn what_was_written_can_be_copied_to_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let mut file = AtomicFile::create(&path, None, Durability::None).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| index as u8).collect();
    file.write(&bytes).unwrap();
    file.write(b"end").unwrap();
    let mut copy = Vec::new();
    file.copy_to(1_000_000, &mut copy).unwrap();
    assert!(copy[..2_000_000] == bytes[1_000_000..]);
    assert_eq!(&copy[2_000_000..], b"end");
    drop(file);
    assert!(names(folder.path()).is_empty());
}
