//! Systems that refuse or fail, one call at a time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tensorhold_core::ErrorKind;

use super::*;
use crate::Buffer;
use crate::platform::Ring;

mod rings;
mod sparing;

const INTERRUPTED: i32 = 4;
const INPUT_OUTPUT: i32 = 5;
const TRY_AGAIN: i32 = 11;
const INVALID: i32 = 22;
const NOT_PERMITTED: i32 = 1;
const NO_SUCH_CALL: i32 = 38;
const UNSUPPORTED: i32 = 95;

/// So many bytes, from anywhere in the file.
fn wanted(file: &Pread, n_bytes: u64) -> Wanted {
    Wanted {
        n_bytes,
        span: ByteRange::new(0, file.size_bytes()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    ReadDirect,
    OpenDirect,
    OpenExact,
    SetUpRing,
    EnterRing,
    RingResult,
    Reopen,
    TakeLease,
    HasLease,
    Populate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Number(i32),
    /// Half of what was asked for, as an odd number.
    Short,
    /// As at the end of the file.
    End,
    /// With this number, after the system has begun what it was asked for.
    Late(i32),
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    call: Call,
    fault: Fault,
    /// How many of these calls go well before.
    n_before: usize,
    is_lasting: bool,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static N_CALLS: Cell<usize> = const { Cell::new(0) };
}

/// The fault that `call` is to have now.
fn fault(call: Call) -> Option<Fault> {
    let plan = PLAN.get().filter(|plan| plan.call == call)?;
    let n_calls = N_CALLS.replace(N_CALLS.get() + 1);
    let is_struck = n_calls == plan.n_before || plan.is_lasting && n_calls > plan.n_before;
    is_struck.then_some(plan.fault)
}

fn fail<T>(call: Call) -> io::Result<Option<T>> {
    match fault(call) {
        Some(Fault::Number(number)) => Err(io::Error::from_raw_os_error(number)),
        _ => Ok(None),
    }
}

fn read(call: Call, file: &File, into: &mut [u8], position: u64) -> io::Result<usize> {
    match fault(call) {
        None => platform::read_at(file, into, position),
        Some(Fault::Number(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(Fault::Late(_)) => unreachable!("it is of rings"),
        Some(Fault::End) => Ok(0),
        Some(Fault::Short) => {
            // Read in full, as a direct read of half a block would be refused.
            let n_read = platform::read_at(file, into, position)?;
            let kept = (n_read / 2) | usize::from(n_read > 0);
            into[kept..].fill(0xEE);
            Ok(kept)
        }
    }
}

fn enter(ring: &Ring, n_wanted: usize) -> io::Result<()> {
    match fault(Call::EnterRing) {
        Some(Fault::Number(number)) => Err(io::Error::from_raw_os_error(number)),
        Some(Fault::Late(number)) => {
            ring.enter(0)?;
            Err(io::Error::from_raw_os_error(number))
        }
        _ => ring.enter(n_wanted),
    }
}

fn result(bytes: &mut [u8], result: io::Result<usize>) -> io::Result<usize> {
    let Some(fault) = fault(Call::RingResult) else {
        return result;
    };
    let result = match fault {
        Fault::Number(number) | Fault::Late(number) => Err(io::Error::from_raw_os_error(number)),
        Fault::Short => result.map(|n_read| n_read / 2 + 1),
        Fault::End => Ok(0),
    };
    bytes[*result.as_ref().unwrap_or(&0)..].fill(0xEE);
    result
}

static FAULTY: Calls = Calls {
    read_at: |file, into, position| read(Call::Read, file, into, position),
    read_direct: |file, into, position| read(Call::ReadDirect, file, into, position),
    open_exact: |file| {
        fail::<()>(Call::OpenExact)?;
        platform::open_exact(file)
    },
    open_direct: |file| {
        fail::<()>(Call::OpenDirect)?;
        platform::open_direct(file)
    },
    direct_alignment: platform::direct_alignment,
    set_up_ring: || {
        fail::<()>(Call::SetUpRing)?;
        Ring::set_up()
    },
    enter_ring: enter,
    ring_result: result,
    cached_bytes: |_, _, size_bytes| Some(size_bytes),
    counted_bytes: |_, _, size_bytes| Some(size_bytes),
    free_memory_bytes: || None,
    reopen: |file| {
        fail::<()>(Call::Reopen)?;
        platform::reopen(file)
    },
    take_lease: |file| {
        fail::<()>(Call::TakeLease)?;
        platform::take_lease(file)
    },
    has_lease: |file| fault(Call::HasLease).is_none() && platform::has_lease(file),
    release_lease: platform::release_lease,
    populate: |bytes| {
        fail::<()>(Call::Populate)?;
        platform::populate(bytes)
    },
    give_back: platform::give_back,
};

const SIZE: usize = (5 << 20) + 777;

fn bytes() -> Vec<u8> {
    (0..SIZE)
        .map(|index| (index ^ index >> 8 ^ index >> 16) as u8)
        .collect()
}

/// Reads of the file in all alignments, some of them through several calls.
const READS: [(usize, usize, usize); 7] = [
    (0, SIZE, 0),
    (1000, 4_500_000, 3),
    (512, 5 << 20, 0),
    (700, 5 << 20, 1),
    (8, 1 << 20, 8),
    (4096 + 17, 300_000, 17),
    (SIZE - 5, 5, 0),
];

/// All reads go well, or fail with what the system said.
fn read_all(reading: &Reading, bytes: &[u8], plan: Plan) {
    let mut memory = Buffer::allocate(8 << 20).unwrap();
    for (position, size, shift) in READS {
        let into = &mut memory[shift..shift + size];
        into.fill(0xDD);
        match (reading.read_at(position as u64, into), plan.fault) {
            (Ok(()), _) => assert!(*into == bytes[position..][..size], "{plan:?}"),
            (Err(error), Fault::Number(number)) => {
                assert_eq!(error.os_error(), Some(number), "{plan:?}");
            }
            (Err(error), Fault::End) => assert_eq!(error.kind(), ErrorKind::Truncated, "{plan:?}"),
            (Err(error), Fault::Short | Fault::Late(_)) => panic!("{plan:?}: {error}"),
        }
        assert!(
            plan.call == Call::Read || *into == bytes[position..][..size],
            "{plan:?}"
        );
    }
}

fn n_descriptors_in(folder: &Path) -> usize {
    n_descriptors(|target| target.starts_with(folder)).unwrap_or(1)
}

/// `None` where the system does not tell.
fn n_descriptors(is_counted: impl Fn(&Path) -> bool) -> Option<usize> {
    let descriptors = fs::read_dir("/proc/self/fd").ok()?;
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Some(targets.filter(|target| is_counted(target)).count())
}

/// Held by whoever has rings, so that those of others are not counted.
static RINGS: Mutex<()> = Mutex::new(());

fn n_rings() -> usize {
    n_descriptors(|target| target == Path::new("anon_inode:[io_uring]")).unwrap_or(0)
}

/// Strikes the first call, the second, and so on, until none is left to strike.
fn check(access: Access, call: Call, fault: Fault) {
    let _held = RINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let bytes = bytes();
    fs::write(&path, &bytes).unwrap();
    let file = Arc::new(Pread::new(File::open(&path).unwrap()).unwrap());
    for is_lasting in [false, true] {
        for n_before in 0.. {
            let plan = Plan {
                call,
                fault,
                n_before,
                is_lasting: is_lasting && fault != Fault::Number(INTERRUPTED),
            };
            N_CALLS.set(0);
            PLAN.set(Some(plan));
            let reading =
                Reading::with_calls(&file, None, access, wanted(&file, SIZE as u64), &FAULTY);
            read_all(&reading, &bytes, plan);
            let is_struck = N_CALLS.get() > n_before;
            PLAN.set(None);
            // What failed once is over with the fault.
            read_all(
                &reading,
                &bytes,
                Plan {
                    call: Call::Populate,
                    ..plan
                },
            );
            drop(reading);
            assert_eq!(n_descriptors_in(folder.path()), 1, "{plan:?}");
            assert_eq!(n_rings(), 0, "{plan:?}");
            if !is_struck {
                break;
            }
        }
    }
}

const NUMBERS: [i32; 7] = [
    INTERRUPTED,
    INPUT_OUTPUT,
    TRY_AGAIN,
    INVALID,
    NOT_PERMITTED,
    NO_SUCH_CALL,
    UNSUPPORTED,
];

#[test]
fn a_buffered_read_gives_the_right_bytes_or_the_systems_error() {
    for fault in NUMBERS
        .map(Fault::Number)
        .into_iter()
        .chain([Fault::Short, Fault::End])
    {
        check(Access::Buffered, Call::Read, fault);
    }
}

#[test]
fn a_part_of_a_file_is_read_whether_or_not_read_ahead_can_be_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = bytes();
    fs::write(folder.path().join("a"), &bytes).unwrap();
    let file = File::open(folder.path().join("a")).unwrap();
    let file = Arc::new(Pread::new(file).unwrap());
    let plan = |number| Plan {
        call: Call::OpenExact,
        fault: Fault::Number(number),
        n_before: 0,
        is_lasting: true,
    };
    for (refusal, n_descriptors) in [
        (None, 2),
        (Some(INVALID), 1),
        (Some(NOT_PERMITTED), 1),
        (Some(NO_SUCH_CALL), 1),
    ] {
        PLAN.set(refusal.map(plan));
        N_CALLS.set(0);
        let part = wanted(&file, SIZE as u64 / 2);
        let reading = Reading::with_calls(&file, None, Access::Buffered, part, &FAULTY);
        assert_eq!(n_descriptors_in(folder.path()), n_descriptors);
        assert_eq!(reading.way(), Way::Buffered);
        let mut into = vec![0; SIZE / 2];
        reading.read_at(777, &mut into).unwrap();
        assert!(into == bytes[777..][..SIZE / 2]);
        drop(reading);
        PLAN.set(None);
    }
    let whole = wanted(&file, SIZE as u64);
    let _reading = Reading::with_calls(&file, None, Access::Buffered, whole, &FAULTY);
    assert_eq!(n_descriptors_in(folder.path()), 1);
}

#[test]
fn a_direct_read_that_fails_is_made_in_another_way() {
    for fault in NUMBERS
        .map(Fault::Number)
        .into_iter()
        .chain([Fault::Short, Fault::End])
    {
        check(Access::Direct, Call::ReadDirect, fault);
    }
    for number in NUMBERS {
        check(Access::Direct, Call::OpenDirect, Fault::Number(number));
    }
}

#[test]
fn a_copy_that_fails_is_made_in_another_way() {
    for call in [
        Call::Reopen,
        Call::TakeLease,
        Call::HasLease,
        Call::Populate,
    ] {
        for number in [TRY_AGAIN, INVALID, NOT_PERMITTED] {
            check(Access::Auto, call, Fault::Number(number));
        }
    }
    for fault in [Fault::Number(INPUT_OUTPUT), Fault::Short, Fault::End] {
        check(Access::Auto, Call::Read, fault);
    }
}

#[test]
fn a_way_that_was_refused_is_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), bytes()).unwrap();
    let file = File::open(folder.path().join("a")).unwrap();
    let file = Arc::new(Pread::new(file).unwrap());
    PLAN.set(Some(Plan {
        call: Call::ReadDirect,
        fault: Fault::Number(INVALID),
        n_before: 0,
        is_lasting: false,
    }));
    N_CALLS.set(0);
    let reading = Reading::with_calls(
        &file,
        None,
        Access::Direct,
        wanted(&file, SIZE as u64),
        &FAULTY,
    );
    for _ in 0..5 {
        reading.read_at(0, &mut [0; 5000]).unwrap();
    }
    assert!(N_CALLS.get() <= 1);
    assert_eq!(reading.way(), Way::Buffered);
}
