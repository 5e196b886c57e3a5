//! What every exported function does before and after its own part.

use std::cell::Cell;
use std::ffi::c_int;
use std::process;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::error::{Code, Result};
use crate::fail::Fault;
use crate::state::{State, state};

/// What kind of call it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It needs no device and works after a fork.
    Plain,
    /// It starts the runtime, like all below.
    Query,
    /// It waits, asks or submits, and fails when a copy before it has failed late.
    Work,
}

/// The process that has started the runtime; 0 for none.
static OWNER: AtomicU32 = AtomicU32::new(0);
static CALLS_AFTER_FORK: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LAST: Cell<i32> = const { Cell::new(0) };
}

/// Runs a function's own part and gives its code to the caller.
pub(crate) fn call(name: &'static str, kind: Kind, own: impl FnOnce() -> Result) -> c_int {
    match run(name, kind, own) {
        Ok(()) => 0,
        Err(code) => {
            LAST.set(code.0);
            code.0
        }
    }
}

/// Runs the own part of a function that gives something else than a code.
pub(crate) fn run<T: Default>(
    name: &'static str,
    kind: Kind,
    own: impl FnOnce() -> Result<T>,
) -> Result<T> {
    match before(name, kind)? {
        true => own(),
        false => Ok(T::default()),
    }
}

/// Whether the function's own part is to be run.
fn before(name: &'static str, kind: Kind) -> Result<bool> {
    if kind != Kind::Plain && !owns_runtime() {
        CALLS_AFTER_FORK.fetch_add(1, Ordering::Relaxed);
        return Err(Code::INITIALIZATION);
    }
    if is_child() {
        return Ok(true);
    }
    let mut state = state();
    *state.calls.entry(name).or_default() += 1;
    match fault(&mut state, name) {
        Some(Fault::Now(code)) => Err(Code(code)),
        Some(Fault::Later(code)) => {
            state.late_fault = Some(Code(code));
            Ok(false)
        }
        None => match state.late_fault {
            Some(code) if kind == Kind::Work => Err(code),
            _ => Ok(true),
        },
    }
}

fn fault(state: &mut State, name: &str) -> Option<Fault> {
    // Each one counts the call, whether or not another has failed it already.
    let faults = state.config.failures.iter_mut();
    let fault = faults.fold(None, |found, failure| {
        let seen = failure.see(name);
        found.or(seen)
    })?;
    state.n_failures += 1;
    Some(fault)
}

/// Whether this process has started the runtime, which it does now if none has.
fn owns_runtime() -> bool {
    let this = process::id();
    match OWNER.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(owner) => owner == this,
    }
}

/// Whether another process has started the runtime: the lock of the state may then be held by a thread that is
/// not here.
pub(crate) fn is_child() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != process::id()
}

pub(crate) fn calls_after_fork() -> u64 {
    CALLS_AFTER_FORK.load(Ordering::Relaxed)
}

/// The code of the thread's last call that failed.
pub(crate) fn last() -> c_int {
    LAST.get()
}

/// The same, and forgets it.
pub(crate) fn take_last() -> c_int {
    LAST.replace(0)
}

/// Writes a result to where the caller wants it.
pub(crate) fn give<T>(place: *mut T, value: T) -> Result {
    if place.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: it is the caller's result parameter, which by the runtime's interface is writable for a `T`; the
    // write is not assumed to be aligned.
    unsafe { place.write_unaligned(value) };
    Ok(())
}
