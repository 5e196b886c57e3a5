//! Rings: that they read, are given up where they are refused, and leave nothing behind.

use std::panic;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

const PIECE_BYTES: usize = 1 << 20;

const N_PIECES: usize = 5;

/// No piece of the file ends in it.
const POISON: u8 = 0xDD;

/// Whether this system has rings; says so if not.
fn has_rings() -> bool {
    let ring = Ring::set_up();
    if let Err(error) = &ring {
        eprintln!("not tried, as the system refuses a ring: {error}");
    }
    ring.is_ok()
}

fn hold_rings() -> MutexGuard<'static, ()> {
    RINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file of [`SIZE`] bytes, read past the page cache.
struct Fixture {
    _folder: tempfile::TempDir,
    file: Arc<Pread>,
    bytes: Vec<u8>,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let bytes = bytes();
    fs::write(&path, &bytes).unwrap();
    let file = File::open(path).unwrap();
    // Bytes on their way to the disk are not read from it.
    file.sync_all().unwrap();
    Fixture {
        _folder: folder,
        file: Arc::new(Pread::new(file).unwrap()),
        bytes,
    }
}

fn reading(fixture: &Fixture, calls: &'static Calls) -> Reading {
    let wanted = wanted(&fixture.file, SIZE as u64);
    Reading::with_calls(&fixture.file, None, Access::Direct, wanted, calls)
}

fn read_often(fixture: &Fixture, reading: &Reading) {
    for _ in 0..20 {
        let mut into = Buffer::allocate(SIZE as u64).unwrap();
        into.fill(0xDD);
        reading.read_at(0, &mut into).unwrap();
        assert!(*into == *fixture.bytes);
    }
}

#[test]
fn a_ring_that_fails_is_replaced_by_plain_reads() {
    if !has_rings() {
        return;
    }
    for number in [INTERRUPTED, TRY_AGAIN, NOT_PERMITTED, NO_SUCH_CALL] {
        check(Access::Direct, Call::SetUpRing, Fault::Number(number));
        check(Access::Direct, Call::EnterRing, Fault::Number(number));
    }
    for number in [TRY_AGAIN, INPUT_OUTPUT] {
        check(Access::Direct, Call::EnterRing, Fault::Late(number));
    }
    let numbers = [INTERRUPTED, TRY_AGAIN, INPUT_OUTPUT].map(Fault::Number);
    for fault in numbers.into_iter().chain([Fault::Short, Fault::End]) {
        check(Access::Direct, Call::RingResult, fault);
    }
}

static N_SET_UP: AtomicUsize = AtomicUsize::new(0);

static WITHOUT_RINGS: Calls = Calls {
    set_up_ring: || {
        N_SET_UP.fetch_add(1, Ordering::Relaxed);
        Err(io::Error::from_raw_os_error(NOT_PERMITTED))
    },
    ..SYSTEM
};

#[test]
fn where_rings_are_not_permitted_direct_reads_go_on_without() {
    let _held = hold_rings();
    let fixture = fixture();
    let reading = reading(&fixture, &WITHOUT_RINGS);
    let way = reading.way();
    read_often(&fixture, &reading);
    assert_eq!(reading.way(), way);
    assert_eq!(
        N_SET_UP.load(Ordering::Relaxed),
        usize::from(way == Way::Direct)
    );
}

static N_PLAIN: AtomicUsize = AtomicUsize::new(0);

static SLOW_WITHOUT_RINGS: Calls = Calls {
    read_direct: |file, into, position| {
        if into.len() > PIECE_BYTES {
            N_PLAIN.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(300));
        }
        platform::read_at(file, into, position)
    },
    ..SYSTEM
};

#[test]
fn a_ring_that_is_faster_is_kept_and_goes_with_its_reading() {
    let _held = hold_rings();
    let fixture = fixture();
    let reading = reading(&fixture, &SLOW_WITHOUT_RINGS);
    if !has_rings() || reading.way() != Way::Direct {
        return;
    }
    read_often(&fixture, &reading);
    assert_eq!(
        N_PLAIN.load(Ordering::Relaxed),
        3,
        "as often as it is tried"
    );
    assert_eq!(n_rings(), 1);
    drop(reading);
    assert_eq!(n_rings(), 0);
}

struct RingRead {
    results: thread::Result<Vec<io::Result<usize>>>,
    /// The last bytes of the pieces as they were when the read returned: looked at before the disk can have read on.
    at_once: [u8; N_PIECES],
    memory: Buffer,
}

fn last_bytes(memory: &[u8]) -> [u8; N_PIECES] {
    std::array::from_fn(|index| memory[(index + 1) * PIECE_BYTES - 1])
}

/// The whole blocks of the file, read by a ring that is entered like this.
fn read_by_ring(fixture: &Fixture, enter: fn(&Ring, usize) -> io::Result<()>) -> Option<RingRead> {
    if !has_rings() {
        return None;
    }
    let direct = platform::open_direct(fixture.file.file()).ok()?;
    let mut memory = Buffer::allocate((N_PIECES * PIECE_BYTES) as u64).unwrap();
    memory.fill(POISON);
    let mut ring = Ring::set_up().ok()?;
    let results = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let (results, _) = ring.read(&direct, 0, &mut memory, PIECE_BYTES, enter);
        results.into_iter().take(N_PIECES).collect()
    }));
    let at_once = last_bytes(&memory);
    assert!(!ring.is_usable(), "something may be left in it");
    Some(RingRead {
        results,
        at_once,
        memory,
    })
}

#[test]
fn no_read_outlives_a_panic() {
    let _held = hold_rings();
    let fixture = fixture();
    let read = read_by_ring(&fixture, |ring, _| {
        ring.enter(0).unwrap();
        // Without a word, as the disk reads on meanwhile.
        panic::resume_unwind(Box::new(()))
    });
    let Some(read) = read else {
        return;
    };
    assert!(read.results.is_err());
    thread::sleep(Duration::from_millis(20));
    assert_eq!(read.at_once, last_bytes(&read.memory));
}

#[test]
fn what_was_not_begun_is_never_begun() {
    let _held = hold_rings();
    let fixture = fixture();
    let Some(read) = read_by_ring(&fixture, |_, _| panic!("before any read")) else {
        return;
    };
    thread::sleep(Duration::from_millis(20));
    assert!(read.memory.iter().all(|byte| *byte == POISON));
}

#[test]
fn what_was_begun_is_waited_for_when_the_wait_fails() {
    let _held = hold_rings();
    let fixture = fixture();
    let read = read_by_ring(&fixture, |ring, _| {
        ring.enter(0)?;
        Err(io::Error::from_raw_os_error(INPUT_OUTPUT))
    });
    let Some(read) = read else {
        return;
    };
    thread::sleep(Duration::from_millis(20));
    assert_eq!(read.at_once, last_bytes(&read.memory));
    for (index, result) in read.results.unwrap().into_iter().enumerate() {
        // What a full queue of the disk turned away is read in another way.
        if let Ok(n_read) = result {
            let piece = index * PIECE_BYTES..index * PIECE_BYTES + n_read;
            assert!(read.memory[piece.clone()] == fixture.bytes[piece]);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_ring_is_of_no_use_to_a_child() {
    let _held = hold_rings();
    if !has_rings() {
        return;
    }
    let ring = Ring::set_up().unwrap();
    assert!(ring.is_usable());
    // SAFETY: the child compares two numbers and ends.
    match unsafe { libc::fork() } {
        // SAFETY: it does not return.
        0 => unsafe { libc::_exit(i32::from(ring.is_usable())) },
        child => {
            let mut status = -1;
            // SAFETY: `status` is alive and of the kind that is written.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
}
