//! File systems that refuse or fail, one call at a time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::fs;
use std::sync::atomic::AtomicUsize;

use tempfile::TempDir;

use super::*;
use crate::Map;

const NO_SUCH_CALL: i32 = 38;
const INPUT_OUTPUT: i32 = 5;
const NO_SPACE: i32 = 28;
const NOT_PERMITTED: i32 = 1;

fn refuse<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

/// The calls of a system, with some of them replaced.
fn calls(replaced: impl FnOnce(&mut Calls)) -> &'static Calls {
    let mut calls = SYSTEM.clone();
    replaced(&mut calls);
    Box::leak(Box::new(calls))
}

fn save(path: &Path, bytes: &[u8], calls: &'static Calls) -> Result<()> {
    let size_bytes = Some(bytes.len() as u64);
    let mut file = AtomicFile::create_with(path, size_bytes, Durability::Full, calls)?;
    file.write(bytes)?;
    file.commit()
}

fn folder_with_old_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old and long").unwrap();
    (folder, path)
}

fn names(folder: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// The save goes through, whether there is an old file or not, and leaves nothing beside it.
#[track_caller]
fn succeeds(calls: &'static Calls) {
    let (folder, path) = folder_with_old_file();
    save(&path, b"new", calls).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    fs::remove_file(&path).unwrap();
    save(&path, b"newer", calls).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"newer");
    assert_eq!(names(&folder), [path]);
}

/// The save fails, the old file is whole, and nothing lies beside it.
#[track_caller]
fn fails_without_a_trace(calls: &'static Calls, message: &str) {
    let (folder, path) = folder_with_old_file();
    let error = save(&path, b"new", calls).unwrap_err();
    assert_eq!(error.message(), message);
    assert_eq!(error.file(), Some(path.to_str().unwrap()));
    assert_eq!(fs::read(&path).unwrap(), b"old and long");
    assert_eq!(names(&folder), [path]);
}

#[test]
fn without_temporary_files_the_target_itself_is_written() {
    for number in [22, NO_SUCH_CALL, 95] {
        // One function for all numbers needs its number from elsewhere.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        NUMBER.store(number as usize, Ordering::Relaxed);
        succeeds(calls(|calls| {
            calls.create_new = |path, privacy| match path.extension() {
                Some(_) => refuse(NUMBER.load(Ordering::Relaxed) as i32),
                None => (SYSTEM.create_new)(path, privacy),
            };
        }));
    }
}

#[test]
fn a_new_target_that_was_written_in_place_goes_when_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let calls = calls(|calls| {
        calls.create_new = |path, privacy| match path.extension() {
            Some(_) => refuse(NO_SUCH_CALL),
            None => (SYSTEM.create_new)(path, privacy),
        };
    });
    let path = folder.path().join("a");
    let mut file = AtomicFile::create_with(&path, None, Durability::None, calls).unwrap();
    file.write(b"new").unwrap();
    drop(file);
    assert!(names(&folder).is_empty());
}

#[test]
fn an_overwritten_target_that_is_incomplete_is_said_to_be() {
    let (folder, path) = folder_with_old_file();
    let calls = calls(|calls| {
        calls.create_new = |_, _| refuse(NO_SUCH_CALL);
        calls.write_at = |_, _, _| refuse(INPUT_OUTPUT);
    });
    let error = save(&path, b"new", calls).unwrap_err();
    assert_eq!(error.message(), "cannot write: Input/output error");
    assert!(error.hint().unwrap().contains("it is incomplete now"));
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(names(&folder), [path]);
}

#[test]
fn where_files_cannot_be_cut_a_shorter_one_is_no_lie() {
    let (_folder, path) = folder_with_old_file();
    let calls = calls(|calls| {
        calls.create_new = |_, _| refuse(NO_SUCH_CALL);
        calls.set_length = |_, _| refuse(NO_SUCH_CALL);
    });
    let error = save(&path, b"new", calls).unwrap_err();
    assert_eq!(
        error.message(),
        "cannot cut the file to its length: Function not implemented"
    );
    save(&path, b"new and longer still", calls).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new and longer still");
}

#[test]
fn without_rename_the_finished_file_is_copied() {
    for number in [16, 17, 18, 22, 26, NO_SUCH_CALL, 95] {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        NUMBER.store(number as usize, Ordering::Relaxed);
        succeeds(calls(|calls| {
            calls.rename = |_, _| refuse(NUMBER.load(Ordering::Relaxed) as i32);
        }));
    }
}

#[test]
fn a_copy_that_fails_leaves_the_finished_file_and_says_where() {
    let (folder, path) = folder_with_old_file();
    let error = save(
        &path,
        b"new",
        calls(|calls| {
            calls.rename = |_, to| {
                fs::remove_file(to).unwrap();
                fs::create_dir(to).unwrap();
                refuse(18)
            };
        }),
    )
    .unwrap_err();
    assert_eq!(error.message(), "cannot replace: Is a directory");
    let [temporary, _] = &names(&folder)[..] else {
        panic!("{:?}", names(&folder));
    };
    assert_eq!(fs::read(temporary).unwrap(), b"new");
    assert_eq!(
        error.hint().unwrap(),
        format!(
            "the new file is complete and lies at `{}`",
            temporary.display()
        )
    );
}

#[test]
fn what_is_forbidden_is_not_done_in_place() {
    for (number, kind) in [
        (NOT_PERMITTED, ErrorKind::PermissionDenied),
        (13, ErrorKind::PermissionDenied),
        (30, ErrorKind::Io),
    ] {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        NUMBER.store(number as usize, Ordering::Relaxed);
        let (folder, path) = folder_with_old_file();
        let no_temporary = calls(|calls| {
            calls.create_new = |_, _| refuse(NUMBER.load(Ordering::Relaxed) as i32);
        });
        let error = save(&path, b"new", no_temporary).unwrap_err();
        assert_eq!((error.kind(), error.os_error()), (kind, Some(number)));
        if kind == ErrorKind::PermissionDenied {
            let named = format!("`{}`", folder.path().display());
            assert!(error.hint().unwrap().contains(&named), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"old and long");
        assert_eq!(names(&folder), std::slice::from_ref(&path));

        let no_rename = calls(|calls| {
            calls.rename = |_, _| refuse(NUMBER.load(Ordering::Relaxed) as i32);
        });
        let error = save(&path, b"new", no_rename).unwrap_err();
        assert_eq!((error.kind(), error.os_error()), (kind, Some(number)));
        assert_eq!(fs::read(&path).unwrap(), b"old and long");
        assert_eq!(fs::read(&names(&folder)[0]).unwrap(), b"new");
    }
}

const MAPPED: &str = "cannot overwrite in place: tensors of this process are views of the file";

const ELSEWHERE: &str = "save to another file, or load with `backend=\"pread\"`";

fn map(path: &Path) -> Map {
    Map::open(&File::open(path).unwrap()).unwrap()
}

#[test]
fn a_mapped_file_is_overwritten_only_once_its_last_map_is_gone() {
    let (folder, path) = folder_with_old_file();
    let link = folder.path().join("b");
    fs::hard_link(&path, &link).unwrap();
    let calls = calls(|calls| calls.create_new = |_, _| refuse(NO_SUCH_CALL));
    for map in [map(&path), map(&link)] {
        let error = save(&path, b"new", calls).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Io, MAPPED));
        assert_eq!(error.file(), Some(path.to_str().unwrap()));
        assert_eq!(error.hint(), Some(ELSEWHERE));
        assert_eq!(map.as_bytes(), b"old and long");
    }
    save(&path, b"new", calls).unwrap();
    assert_eq!(fs::read(&link).unwrap(), b"new");
}

#[test]
fn a_map_that_came_after_the_file_was_opened_is_seen_before_the_first_byte() {
    let (_folder, path) = folder_with_old_file();
    let calls = calls(|calls| calls.create_new = |_, _| refuse(NO_SUCH_CALL));
    let open = || AtomicFile::create_with(&path, None, Durability::None, calls).unwrap();
    let (placed, empty) = (open(), open());
    let map = map(&path);
    assert_eq!(placed.write_at(0, b"new").unwrap_err().message(), MAPPED);
    assert!(placed.write_at(3, b"er").is_err());
    assert!(placed.commit().is_err());
    assert_eq!(empty.commit().unwrap_err().message(), MAPPED);
    assert_eq!(map.as_bytes(), b"old and long");
    assert_eq!(fs::read(&path).unwrap(), b"old and long");
}

#[test]
fn without_rename_a_mapped_file_stays_and_the_finished_one_lies_beside_it() {
    for number in [16, 18, 22, NO_SUCH_CALL] {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        NUMBER.store(number as usize, Ordering::Relaxed);
        let calls = calls(|calls| {
            calls.rename = |_, _| refuse(NUMBER.load(Ordering::Relaxed) as i32);
        });
        let (folder, path) = folder_with_old_file();
        let map = map(&path);
        let error = save(&path, b"new", calls).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Io, MAPPED));
        let temporary = &names(&folder)[0];
        let place = temporary.display();
        let hint = format!("the new file is complete and lies at `{place}`; {ELSEWHERE}");
        assert_eq!(error.hint(), Some(&*hint));
        assert_eq!(fs::read(temporary).unwrap(), b"new");
        assert_eq!(map.as_bytes(), b"old and long");
        assert_eq!(fs::read(&path).unwrap(), b"old and long");
    }
}

#[test]
fn a_rename_that_fails_leaves_both_files_whole() {
    let (folder, path) = folder_with_old_file();
    let calls = calls(|calls| calls.rename = |_, _| refuse(INPUT_OUTPUT));
    let error = save(&path, b"new", calls).unwrap_err();
    assert_eq!(error.message(), "cannot replace: Input/output error");
    assert_eq!(fs::read(&path).unwrap(), b"old and long");
    assert_eq!(fs::read(&names(&folder)[0]).unwrap(), b"new");
}

#[test]
fn without_modes_the_file_is_saved_all_the_same() {
    for number in [NOT_PERMITTED, NO_SUCH_CALL, 95] {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        NUMBER.store(number as usize, Ordering::Relaxed);
        succeeds(calls(|calls| {
            calls.set_attributes = |_, _| refuse(NUMBER.load(Ordering::Relaxed) as i32);
        }));
    }
}

#[test]
fn without_cutting_syncing_and_folders_that_sync_the_file_is_saved() {
    succeeds(calls(|calls| {
        calls.set_length = |_, _| refuse(NO_SUCH_CALL);
        calls.sync = |_, _| refuse(22);
        calls.sync_directory = |_| refuse(22);
        calls.set_attributes = |_, _| refuse(95);
    }));
}

#[test]
fn with_nothing_but_plain_writes_the_file_is_saved() {
    succeeds(calls(|calls| {
        calls.set_length = |_, _| refuse(NO_SUCH_CALL);
        calls.set_attributes = |_, _| refuse(NO_SUCH_CALL);
        calls.rename = |_, _| refuse(NO_SUCH_CALL);
        calls.sync = |_, _| refuse(NO_SUCH_CALL);
    }));
}

#[test]
fn each_failure_before_the_rename_keeps_the_old_file() {
    type Replace = fn(&mut Calls);
    let failing: [(Replace, &str); 5] = [
        (
            |calls| calls.write_at = |_, _, _| refuse(INPUT_OUTPUT),
            "cannot write: Input/output error",
        ),
        (
            |calls| calls.write_at = |_, _, _| Ok(0),
            "cannot write: write zero",
        ),
        (
            |calls| calls.set_attributes = |_, _| refuse(INPUT_OUTPUT),
            "cannot set the mode: Input/output error",
        ),
        (
            |calls| calls.sync = |_, _| refuse(INPUT_OUTPUT),
            "cannot sync: Input/output error",
        ),
        (
            |calls| {
                calls.close = |file| {
                    drop(file);
                    refuse(122)
                }
            },
            "cannot close: Disk quota exceeded",
        ),
    ];
    for (replaced, message) in failing {
        fails_without_a_trace(calls(replaced), message);
    }
}

#[test]
fn a_file_that_is_too_large_for_its_file_system_is_refused_at_once() {
    let calls = calls(|calls| calls.allocate = |_, _| refuse(27));
    fails_without_a_trace(calls, "cannot write: File too large");
    let folder = tempfile::tempdir().unwrap();
    let error = save(&folder.path().join("a"), b"new", calls).unwrap_err();
    assert_eq!(
        error.hint(),
        Some("this file system takes no file of 3 bytes; save in shards")
    );
}

#[test]
fn a_full_disk_names_what_is_needed_and_what_is_free() {
    let (folder, path) = folder_with_old_file();
    let calls = calls(|calls| calls.allocate = |_, _| refuse(NO_SPACE));
    let error = save(&path, &[0; 1234], calls).unwrap_err();
    let start = "cannot write: No space left on device: the file needs 1234 bytes, ";
    assert!(error.message().starts_with(start), "{error}");
    assert_eq!(error.os_error(), Some(NO_SPACE));
    assert_eq!(error.bytes(), Some(ByteRange::new(0, 1234)));
    assert_eq!(names(&folder), [path]);
}

#[test]
fn a_target_that_must_be_overwritten_is_not_touched_without_room_for_the_new_one() {
    let (_folder, path) = folder_with_old_file();
    let calls = calls(|calls| calls.create_new = |_, _| refuse(NO_SUCH_CALL));
    let size_bytes = Some(u64::MAX / 2);
    let error = AtomicFile::create_with(&path, size_bytes, Durability::None, calls).unwrap_err();
    assert_eq!(error.os_error(), Some(NO_SPACE));
    assert_eq!(error.hint(), None);
    assert_eq!(fs::read(&path).unwrap(), b"old and long");
}

#[test]
fn interrupted_and_short_writes_are_carried_on() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    succeeds(calls(|calls| {
        calls.write_at = |file, bytes, position| match COUNT.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => refuse(4),
            _ => (SYSTEM.write_at)(file, &bytes[..1], position),
        };
    }));
}

#[test]
fn file_systems_with_shorter_names_get_shorter_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n".repeat(143));
    let calls = calls(|calls| {
        calls.create_new = |path, privacy| match path.file_name().unwrap().len() {
            ..=143 => (SYSTEM.create_new)(path, privacy),
            _ => refuse(36),
        };
    });
    save(&path, b"new", calls).unwrap();
    assert_eq!(names(&folder), [path]);
}

#[test]
fn a_folder_that_does_not_sync_does_not_hide_that_the_file_is_in_place() {
    let (_folder, path) = folder_with_old_file();
    let calls = calls(|calls| calls.sync_directory = |_| refuse(INPUT_OUTPUT));
    let error = save(&path, b"new", calls).unwrap_err();
    assert_eq!(
        error.message(),
        "cannot sync the folder; the new file is in place, but a crash may undo that: Input/output error"
    );
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

thread_local! {
    static LOG: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

fn log(word: &'static str) {
    LOG.with_borrow_mut(|log| log.push(word));
}

/// The system's calls, each of which says that it was made.
fn logged_calls() -> &'static Calls {
    calls(|calls| {
        calls.write_at = |file, bytes, position| {
            log("write");
            (SYSTEM.write_at)(file, bytes, position)
        };
        calls.set_attributes = |_, _| {
            log("mode");
            Ok(())
        };
        calls.sync = |_, durability| {
            match durability {
                Durability::None => {}
                Durability::Data => log("sync data"),
                Durability::Full => log("sync all"),
            }
            Ok(())
        };
        calls.close = |_| {
            log("close");
            Ok(())
        };
        calls.rename = |from, to| {
            log("rename");
            (SYSTEM.rename)(from, to)
        };
        calls.sync_directory = |_| {
            log("sync folder");
            Ok(())
        };
    })
}

#[test]
fn bytes_are_on_the_disk_before_they_get_their_name() {
    let calls = logged_calls();
    let expected: [(Durability, &[&str]); 3] = [
        (Durability::None, &["write", "mode", "close", "rename"]),
        (
            Durability::Data,
            &["write", "mode", "sync data", "close", "rename"],
        ),
        (
            Durability::Full,
            &[
                "write",
                "mode",
                "sync all",
                "close",
                "rename",
                "sync folder",
            ],
        ),
    ];
    let (_folder, path) = folder_with_old_file();
    for (durability, steps) in expected {
        let mut file = AtomicFile::create_with(&path, None, durability, calls).unwrap();
        for _ in 0..1000 {
            file.write(b"small pieces").unwrap();
        }
        file.commit().unwrap();
        assert_eq!(LOG.take(), steps);
    }
}
