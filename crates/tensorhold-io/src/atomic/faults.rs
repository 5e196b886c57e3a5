//! The n-th system call of a save by several threads fails, for every n.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use super::*;

const SIZE_BYTES: usize = 1_000_000;
const WRITE_BYTES: usize = 128 << 10;
const N_THREADS: usize = 3;

const INTERRUPTED: i32 = 4;
const INPUT_OUTPUT: i32 = 5;
const AGAIN: i32 = 11;
const INVALID: i32 = 22;
const NO_SPACE: i32 = 28;
const NOT_SUPPORTED: i32 = 95;
/// No error: fewer bytes are written than were given.
const SHORT: i32 = 0;

static N_CALLS: AtomicUsize = AtomicUsize::new(0);
static FAILS_AT: AtomicUsize = AtomicUsize::new(0);
static FAULT: AtomicUsize = AtomicUsize::new(0);
static WHAT_FAILED: Mutex<&str> = Mutex::new("");

/// The counters are those of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|error| error.into_inner())
}

fn inject(number: i32, at: usize) {
    N_CALLS.store(0, Ordering::SeqCst);
    FAILS_AT.store(at, Ordering::SeqCst);
    FAULT.store(number as usize, Ordering::SeqCst);
    *WHAT_FAILED.lock().unwrap() = "";
}

/// The fault, if it is this call's turn.
fn fault(what: &'static str) -> Option<i32> {
    if N_CALLS.fetch_add(1, Ordering::SeqCst) != FAILS_AT.load(Ordering::SeqCst) {
        return None;
    }
    *WHAT_FAILED.lock().unwrap() = what;
    Some(FAULT.load(Ordering::SeqCst) as i32)
}

fn call<T>(what: &'static str, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match fault(what) {
        Some(number) if number != SHORT => Err(io::Error::from_raw_os_error(number)),
        _ => work(),
    }
}

fn write(what: &'static str, file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
    match fault(what) {
        Some(SHORT) => (SYSTEM.write_at)(file, &bytes[..bytes.len().div_ceil(3)], position),
        Some(number) => Err(io::Error::from_raw_os_error(number)),
        None => (SYSTEM.write_at)(file, bytes, position),
    }
}

/// Every call counts, and the write past the page cache is one that any file system takes.
static COUNTED: Calls = Calls {
    create_new: |path, privacy| call("create", || (SYSTEM.create_new)(path, privacy)),
    allocate: |file, size| call("allocate", || (SYSTEM.allocate)(file, size)),
    write_at: |file, bytes, position| write("write", file, bytes, position),
    direct_from_bytes: 0,
    open_direct: |path| {
        call("open direct", || {
            fs::OpenOptions::new().write(true).open(path)
        })
    },
    write_direct: |file, bytes, position| write("write direct", file, bytes, position),
    set_length: |file, size| call("set length", || (SYSTEM.set_length)(file, size)),
    set_attributes: |file, old| call("set attributes", || (SYSTEM.set_attributes)(file, old)),
    sync: |file, durability| call("sync", || (SYSTEM.sync)(file, durability)),
    close: |file| {
        let fault = fault("close");
        (SYSTEM.close)(file)?;
        match fault {
            Some(number) if number != SHORT => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(()),
        }
    },
    rename: |from, to| call("rename", || (SYSTEM.rename)(from, to)),
    sync_directory: |folder| call("sync folder", || (SYSTEM.sync_directory)(folder)),
};

fn content() -> Vec<u8> {
    (0..SIZE_BYTES).map(|n| (n * 7 + n / 4096) as u8).collect()
}

/// Several threads write pieces of several parts each, some small, some on whole blocks.
fn save(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let file = AtomicFile::create_with(path, Some(bytes.len() as u64), durability, &COUNTED)?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut writer = file.writer()?;
        loop {
            let start = next.fetch_add(1, Ordering::SeqCst) * WRITE_BYTES;
            if start >= bytes.len() {
                return Ok(());
            }
            let piece = &bytes[start..bytes.len().min(start + WRITE_BYTES)];
            let (first, rest) = piece.split_at(piece.len() / 3);
            let (second, third) = rest.split_at(100);
            writer.write(start as u64, &[first, &[], second, third])?;
        }
    };
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..N_THREADS).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().unwrap();
        workers.into_iter().map(join).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    file.commit()
}

/// The new file, or an error and the old one; nothing else, but what the error names.
fn check(number: i32, at: usize, durability: Durability) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"old").unwrap();
    let new = content();
    inject(number, at);
    let saved = save(&path, &new, durability);
    let failed = *WHAT_FAILED.lock().unwrap();
    let case = format!("error {number} of `{failed}`, call {at}: {saved:?}");
    let found = fs::read(&path).unwrap();
    let others: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|other| *other != path)
        .collect();
    match (&saved, failed) {
        (Ok(()), _) | (Err(_), "sync folder") => assert!(found == new, "{case}"),
        (Err(_), _) => assert_eq!(found, b"old", "{case}"),
    }
    match (&saved, failed, &others[..]) {
        (Err(error), "rename", [other]) => {
            assert!(
                error.hint().unwrap().contains(other.to_str().unwrap()),
                "{case}"
            );
            assert!(fs::read(other).unwrap() == new, "{case}");
        }
        _ => assert!(others.is_empty(), "{case}: {others:?}"),
    }
    if let Err(error) = &saved {
        assert_eq!(error.os_error(), Some(number), "{case}");
        assert_eq!(error.file(), path.to_str(), "{case}");
    }
    !failed.is_empty()
}

#[test]
fn whatever_call_fails_the_file_is_the_old_one_or_the_new_one() {
    let _alone = alone();
    for durability in [Durability::None, Durability::Full] {
        for number in [INPUT_OUTPUT, NO_SPACE, AGAIN] {
            let n_calls = (0..)
                .take_while(|&at| check(number, at, durability))
                .count();
            assert!(n_calls > SIZE_BYTES / WRITE_BYTES, "{n_calls} calls");
        }
    }
}

#[test]
fn what_a_file_system_refuses_is_done_in_another_way() {
    let _alone = alone();
    for number in [INVALID, NOT_SUPPORTED] {
        for at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            inject(number, at);
            let saved = save(&path, &content(), Durability::Data);
            let failed = *WHAT_FAILED.lock().unwrap();
            match failed {
                "" => break,
                "open direct" | "write direct" | "sync" => saved.unwrap(),
                _ => continue,
            }
            assert!(
                fs::read(&path).unwrap() == content(),
                "`{failed}`, call {at}"
            );
        }
    }
}

#[test]
fn writes_that_are_short_or_interrupted_are_carried_on() {
    let _alone = alone();
    for number in [SHORT, INTERRUPTED] {
        for at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            inject(number, at);
            let saved = save(&path, &content(), Durability::Data);
            let failed = *WHAT_FAILED.lock().unwrap();
            match failed {
                "" => break,
                "write" | "write direct" => saved.unwrap(),
                _ if number == SHORT => saved.unwrap(),
                _ => continue,
            }
            assert!(
                fs::read(&path).unwrap() == content(),
                "`{failed}`, call {at}"
            );
        }
    }
}

#[test]
fn what_must_reach_the_disk_is_written_past_the_page_cache() {
    let _alone = alone();
    static N_DIRECT: AtomicUsize = AtomicUsize::new(0);
    static CALLS: Calls = Calls {
        write_direct: |file, bytes, position| {
            assert!(position.is_multiple_of(4096) && bytes.len().is_multiple_of(4096));
            assert!(bytes.as_ptr().addr().is_multiple_of(4096));
            N_DIRECT.fetch_add(bytes.len(), Ordering::SeqCst);
            (SYSTEM.write_at)(file, bytes, position)
        },
        direct_from_bytes: 0,
        ..SYSTEM
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for (durability, expected) in [(Durability::None, 0), (Durability::Data, 8192)] {
        let file = AtomicFile::create_with(&path, Some(9000), durability, &CALLS).unwrap();
        let bytes = &content()[..9000];
        file.writer()
            .unwrap()
            .write(0, &[&bytes[..5000], &bytes[5000..]])
            .unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(N_DIRECT.swap(0, Ordering::SeqCst), expected);
    }
}
