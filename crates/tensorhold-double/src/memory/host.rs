//! Pinned memory of the host, allocated or registered.

use std::ops::Range;

use super::Usage;
use crate::block::{Block, SCRIBBLE};
use crate::call::give;
use crate::error::{Code, Result};
use crate::ranges::{Place, Ranges};
use crate::state::{State, state};
use crate::stream::Moment;

const ALIGNMENT: usize = 4096;
/// `cudaHostRegisterReadOnly`; HIP has another meaning for it, which forbids writing no more than this does.
const READ_ONLY: u32 = 8;

/// Pinned memory, allocated or registered.
pub(crate) struct HostMemory {
    pub(super) pinned: Ranges<Pinned>,
    pub registered: Usage,
    pub allocated: Usage,
    pub peak_bytes: u64,
}

pub(super) struct Pinned {
    pub(super) device: usize,
    pub(super) is_read_only: bool,
    /// None for what the user has registered.
    block: Option<Block>,
}

impl HostMemory {
    pub(crate) const fn new() -> HostMemory {
        const NONE: Usage = Usage {
            bytes: 0,
            peak_bytes: 0,
            n_live: 0,
            n_total: 0,
        };
        HostMemory {
            pinned: Ranges::new(),
            registered: NONE,
            allocated: NONE,
            peak_bytes: 0,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.registered.bytes + self.allocated.bytes
    }

    pub(crate) fn forget_peaks(&mut self) {
        self.registered.forget_peak();
        self.allocated.forget_peak();
        self.peak_bytes = self.bytes();
    }

    fn insert(&mut self, range: Range<usize>, pinned: Pinned) {
        match pinned.block {
            Some(_) => self.allocated.add(range.len()),
            None => self.registered.add(range.len()),
        }
        self.pinned.insert(range, pinned);
        self.peak_bytes = self.peak_bytes.max(self.bytes());
    }

    fn remove(&mut self, address: usize) -> Option<(Range<usize>, Pinned)> {
        let (range, pinned) = self.pinned.remove(address)?;
        match pinned.block {
            Some(_) => self.allocated.take(range.len()),
            None => self.registered.take(range.len()),
        }
        Some((range, pinned))
    }
}

/// Refuses more pinned memory than the configuration allows.
fn check_pinned(state: &State, size: usize) -> Result {
    let total = state.host_memory.bytes().saturating_add(size as u64);
    match state.config.pinned_bytes {
        Some(limit) if total > limit => Err(Code::MEMORY),
        _ => Ok(()),
    }
}

pub(crate) fn allocate(place: *mut usize, size: usize) -> Result {
    let mut state = state();
    let device = state.context()?;
    if size == 0 {
        return give(place, 0);
    }
    check_pinned(&state, size)?;
    let block = Block::new(size, ALIGNMENT)?;
    let range = block.range();
    give(place, range.start)?;
    let pinned = Pinned {
        device,
        is_read_only: false,
        block: Some(block),
    };
    state.host_memory.insert(range, pinned);
    Ok(())
}

pub(crate) fn free(address: usize) -> Result {
    if address == 0 {
        return Ok(());
    }
    release(address, Origin::Allocated)
}

pub(crate) fn register(address: usize, size: usize, flags: u32) -> Result {
    let mut state = state();
    let device = state.context()?;
    let end = address.checked_add(size).ok_or(Code::INVALID_VALUE)?;
    if address == 0 || size == 0 {
        return Err(Code::INVALID_VALUE);
    }
    let range = address..end;
    if !matches!(state.host_memory.pinned.place(&range), Place::Outside) {
        return Err(Code::ALREADY_REGISTERED);
    }
    if state
        .config
        .register_max_bytes
        .is_some_and(|limit| size as u64 > limit)
    {
        return Err(Code::MEMORY);
    }
    check_pinned(&state, size)?;
    let pinned = Pinned {
        device,
        is_read_only: flags & READ_ONLY != 0,
        block: None,
    };
    state.host_memory.insert(range, pinned);
    Ok(())
}

pub(crate) fn unregister(address: usize) -> Result {
    release(address, Origin::Registered)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Registered,
    Allocated,
}

impl Origin {
    fn words(self) -> (&'static str, Code) {
        match self {
            Origin::Registered => ("host memory unregistered at", Code::NOT_REGISTERED),
            Origin::Allocated => ("pinned memory freed at", Code::INVALID_VALUE),
        }
    }
}

/// Lets pinned memory go, after the copies that use it, and tells of these.
fn release(address: usize, origin: Origin) -> Result {
    let (what, refusal) = origin.words();
    let flights = {
        let mut state = state();
        let Some(range) = state.host_memory.range_of(address, origin) else {
            state.violation(format!("{what} {address:#x}, where none begins"));
            return Err(refusal);
        };
        state.still_copied(&range, what)
    };
    flights.iter().for_each(Moment::wait);
    let mut state = state();
    let scribbles = state.config.scribbles;
    let (range, mut pinned) = state.host_memory.remove(address).ok_or(refusal)?;
    match &mut pinned.block {
        _ if !scribbles || pinned.is_read_only => {}
        Some(block) => block.scribble(),
        // SAFETY: registered memory stays the caller's and mapped until this call returns, may be written
        // unless it was said to be read-only, and no copy uses it.
        None => unsafe { (range.start as *mut u8).write_bytes(SCRIBBLE, range.len()) },
    }
    Ok(())
}

impl HostMemory {
    fn range_of(&self, address: usize, origin: Origin) -> Option<Range<usize>> {
        let pinned = self.pinned.at(address)?;
        let is_allocated = pinned.block.is_some();
        if is_allocated != (origin == Origin::Allocated) {
            return None;
        }
        self.pinned.range_at(address)
    }
}
