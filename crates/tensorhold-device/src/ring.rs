//! The slots of the process: who has them, and how many there may be.

mod growth;
mod landing;
mod limit;
mod need;
mod state;

use std::ptr::NonNull;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tensorhold_core::{Error, ErrorKind, Result};

use crate::device::Device;
use crate::fork;
use crate::slot::Slot;
use crate::stream::Event;
use state::State;

pub use need::RingNeed;

/// The bytes of a slot, and the event that its copies are known by.
pub(crate) struct Memory {
    start: NonNull<u8>,
    /// The number of its segment.
    segment: u64,
    pub(crate) event: Option<Event>,
}

// SAFETY: the ring gives a slot's memory to one holder at a time, and it is the only way to its bytes.
unsafe impl Send for Memory {}
// SAFETY: a shared one tells its address and its event.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

/// How much memory the ring of this process has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingUsage {
    /// Pinned.
    pub pinned_bytes: u64,
    /// Not pinned, as the system or the runtime would not have it: copies from it are slow.
    pub unpinned_bytes: u64,
    /// What both together may be.
    pub limit_bytes: u64,
    /// In the hands of a thread, or with copies under way.
    pub in_use_bytes: u64,
    /// The most that was in use at one time.
    pub peak_in_use_bytes: u64,
}

static STATE: Mutex<State> = Mutex::new(State::new());
/// A slot was given back, sent or lost, or the ring has grown or will not.
static CHANGED: Condvar = Condvar::new();

/// The state: whoever panicked with it had it whole.
fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait(state: MutexGuard<'static, State>) -> MutexGuard<'static, State> {
    CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner)
}

/// Between two questions whether to go on.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(50);

/// Waits for a while; asks whether to go on where it was long ago.
fn wait_patiently(
    state: MutexGuard<'static, State>,
    asked: &mut Instant,
    patience: &mut dyn FnMut() -> Result<()>,
) -> Result<MutexGuard<'static, State>> {
    let waited = CHANGED.wait_timeout(state, BETWEEN_QUESTIONS);
    let state = waited.unwrap_or_else(PoisonError::into_inner).0;
    if asked.elapsed() < BETWEEN_QUESTIONS {
        return Ok(state);
    }
    drop(state);
    patience()?;
    *asked = Instant::now();
    Ok(lock())
}

/// How much memory the ring has. In a child of a process that has used devices, whose ring is not touched, it has none.
#[must_use]
pub fn ring_usage() -> RingUsage {
    if fork::is_child() {
        return RingUsage::default();
    }
    let mut state = lock();
    state.land_all();
    state.usage()
}

/// Sets how much memory the ring may have, in bytes, in the place of `TENSORHOLD_PINNED_MB` or of 256 MiB (64 MiB for
/// a device that has the host's memory). There is always
/// room for one slot. What is over the limit and not in use is given back here.
pub fn set_ring_limit(bytes: u64) {
    if fork::is_child() {
        return;
    }
    let mut state = lock();
    state.set_limit(bytes);
    state.land_all();
    let n_slots = state.excess_slots();
    let unused = state.take_unused(n_slots);
    drop(state);
    CHANGED.notify_all();
    drop(unused);
}

/// Unpins and gives back all memory of the ring that no transfer uses; gives the number of bytes.
pub fn release_ring() -> u64 {
    if fork::is_child() {
        return 0;
    }
    let mut state = lock();
    while state.is_growing {
        state = wait(state);
    }
    state.land_all();
    let unused = state.take_unused(usize::MAX);
    drop(state);
    // Who waits for a slot may let the ring grow again.
    CHANGED.notify_all();
    unused.size_bytes()
}

/// Asked now and then whether to go on waiting; what it returns as an error ends the wait.
pub(crate) type Patience<'a> = &'a mut dyn FnMut() -> Result<()>;

/// A slot's memory, whose copies have all happened. `patience` is asked while it waits; without it, the wait is asleep.
///
/// # Errors
/// As [`Slot::take_while`].
pub(crate) fn take(device: Device, mut patience: Option<Patience<'_>>) -> Result<Memory> {
    fork::enter()?;
    let default_bytes = limit::default_bytes(device);
    let mut state = lock();
    state.default_bytes = default_bytes;
    let mut asked = Instant::now();
    loop {
        if let Some(memory) = state.lend(device) {
            return Ok(memory);
        }
        let n_slots = state.growth(state.limit_bytes()?);
        if n_slots > 0 && state.is_empty() {
            state = growth::first(state, device, n_slots)?;
            continue;
        }
        if n_slots > 0 {
            growth::in_background(&mut state, device, n_slots);
        }
        if let Some(memory) = state.lend_flying() {
            drop(state);
            return landing::landed(memory, patience);
        }
        if !state.is_growing && state.n_lent == 0 {
            return Err(no_slot());
        }
        state = match &mut patience {
            None => wait(state),
            Some(patience) => wait_patiently(state, &mut asked, patience)?,
        };
    }
}

/// A slot's memory where one is free, or its copies have happened. The ring grows in the background where it may.
///
/// # Errors
/// As [`Slot::take`].
pub(crate) fn try_take(device: Device) -> Result<Option<Memory>> {
    fork::enter()?;
    let default_bytes = limit::default_bytes(device);
    let mut state = lock();
    state.default_bytes = default_bytes;
    let lent = state.lend(device);
    if lent.is_none() {
        let n_slots = state.growth(state.limit_bytes()?);
        if n_slots > 0 {
            growth::in_background(&mut state, device, n_slots);
        }
    }
    Ok(lent)
}

/// Takes memory back from who has filled nothing, or whose copies have all happened.
pub(crate) fn give(memory: Memory) {
    let mut state = lock();
    state.n_lent -= 1;
    state.free.push(memory);
    drop(state);
    CHANGED.notify_all();
}

/// Takes memory back whose copies are under way, until its event has happened.
pub(crate) fn fly(memory: Memory) {
    let mut state = lock();
    state.n_lent -= 1;
    state.flying.push_back(memory);
    drop(state);
    CHANGED.notify_all();
}

/// The same of what was under way for longer than all others.
fn fly_first(memory: Memory) {
    let mut state = lock();
    state.n_lent -= 1;
    state.flying.push_front(memory);
    drop(state);
    CHANGED.notify_all();
}

/// Takes memory back of which nobody can say that its copies have happened: it is never used again, nor unpinned.
pub(crate) fn lose(memory: Memory) {
    let mut state = lock();
    state.n_lent -= 1;
    state.n_lost += 1;
    drop(state);
    CHANGED.notify_all();
    // A destroyed event would be one more thing that the device may still write to.
    std::mem::forget(memory);
}

fn no_slot() -> Error {
    Error::new(
        ErrorKind::Device,
        format!(
            "no slot of {} bytes is left to copy from: copies from all of them have failed",
            Slot::BYTES
        ),
    )
}
