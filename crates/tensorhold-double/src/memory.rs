//! Memory of devices and pinned memory of the host: who has it, and what a range of addresses is.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_int;
use std::ops::Range;

use crate::block::{Block, SCRIBBLE};
use crate::call::give;
use crate::config::Config;
use crate::error::{Code, Result};
use crate::ranges::{Place, Ranges};
use crate::state::{State, state};
use crate::stream::{Moment, Task};

/// As `cudaMalloc` aligns.
const DEVICE_ALIGNMENT: usize = 256;
const HOST_ALIGNMENT: usize = 4096;
/// How much freed device memory is kept, so that its use can be told from that of others' memory.
const KEPT_BYTES: usize = 64 << 20;
/// `cudaHostRegisterReadOnly`; HIP has another meaning for it, which forbids writing no more than this does.
const READ_ONLY: u32 = 8;

/// What lies at some addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Device(usize),
    Pinned,
    /// Pinned, and said to be only read.
    ReadOnly,
    Foreign,
}

/// The memory of all devices.
pub(crate) struct DeviceMemory {
    live: Ranges<Allocation>,
    /// Freed and not used again yet, the oldest first.
    kept: VecDeque<Block>,
    kept_bytes: usize,
    freed: Ranges<()>,
    pub usage: BTreeMap<usize, Usage>,
}

struct Allocation {
    device: usize,
    block: Block,
    /// Freed in the order of a stream, which has not come to it yet.
    is_leaving: bool,
}

/// How much there is, and was at most.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub bytes: u64,
    pub peak_bytes: u64,
    pub n_live: u64,
    pub n_total: u64,
}

impl Usage {
    fn add(&mut self, n_bytes: usize) {
        self.bytes += n_bytes as u64;
        self.peak_bytes = self.peak_bytes.max(self.bytes);
        self.n_live += 1;
        self.n_total += 1;
    }

    fn take(&mut self, n_bytes: usize) {
        self.bytes -= n_bytes as u64;
        self.n_live -= 1;
    }

    fn forget_peak(&mut self) {
        self.peak_bytes = self.bytes;
        self.n_total = self.n_live;
    }
}

impl DeviceMemory {
    pub(crate) const fn new() -> DeviceMemory {
        DeviceMemory {
            live: Ranges::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            freed: Ranges::new(),
            usage: BTreeMap::new(),
        }
    }

    pub(crate) fn used(&self, device: usize) -> u64 {
        self.usage.get(&device).map_or(0, |usage| usage.bytes)
    }

    pub(crate) fn forget_peaks(&mut self) {
        self.usage.values_mut().for_each(Usage::forget_peak);
    }

    /// Takes a block out of use; whether it was in use.
    fn retire(&mut self, address: usize, config: &Config) -> bool {
        let Some((_, allocation)) = self.live.remove(address) else {
            return false;
        };
        let mut block = allocation.block;
        let size = block.len();
        self.usage.entry(allocation.device).or_default().take(size);
        if config.scribbles {
            block.scribble();
        }
        let limit = match config.reuses {
            true => usize::MAX,
            false => KEPT_BYTES,
        };
        if size > limit {
            return true;
        }
        self.freed.insert(block.range(), ());
        self.kept_bytes += size;
        self.kept.push_back(block);
        while self.kept_bytes > limit
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= oldest.len();
            self.freed.remove(oldest.range().start);
        }
        true
    }

    /// A block that was kept, of this size.
    fn reuse(&mut self, size: usize) -> Option<Block> {
        let position = self.kept.iter().position(|block| block.len() == size)?;
        let block = self.kept.remove(position)?;
        self.kept_bytes -= size;
        self.freed.remove(block.range().start);
        Some(block)
    }
}

/// Pinned memory, allocated or registered.
pub(crate) struct HostMemory {
    pinned: Ranges<Pinned>,
    pub registered: Usage,
    pub allocated: Usage,
    pub peak_bytes: u64,
}

struct Pinned {
    device: usize,
    is_read_only: bool,
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

impl State {
    /// What lies at the addresses that a copy goes to or from.
    pub(crate) fn side(&mut self, range: &Range<usize>, preposition: &str) -> Result<Side> {
        let fault = match self.find(range) {
            Ok(side) => return Ok(side),
            Err(fault) => fault,
        };
        let Range { start, end } = range;
        self.violation(format!(
            "copy {preposition} {start:#x}..{end:#x}, which {fault}"
        ));
        Err(Code::INVALID_VALUE)
    }

    fn find(&self, range: &Range<usize>) -> std::result::Result<Side, String> {
        let across = |what: &str, other: Range<usize>| {
            format!("leaves the {what} {:#x}..{:#x}", other.start, other.end)
        };
        match self.device_memory.live.place(range) {
            Place::Inside(allocation) if allocation.is_leaving => {
                return Err("was freed in a stream's order".into());
            }
            Place::Inside(allocation) => return Ok(Side::Device(allocation.device)),
            Place::Across(other) => return Err(across("allocation", other)),
            Place::Outside => {}
        }
        if !matches!(self.device_memory.freed.place(range), Place::Outside) {
            return Err("was freed".into());
        }
        match self.host_memory.pinned.place(range) {
            Place::Inside(pinned) if pinned.is_read_only => Ok(Side::ReadOnly),
            Place::Inside(_) => Ok(Side::Pinned),
            Place::Across(other) => Err(across("pinned memory", other)),
            Place::Outside => Ok(Side::Foreign),
        }
    }

    /// Notes that memory goes under copies, if it does, and returns their ends.
    fn still_copied(&mut self, range: &Range<usize>, what: &str) -> Vec<Moment> {
        let flights = self.flights_over(range);
        if !flights.is_empty() {
            let (start, n) = (range.start, flights.len());
            self.violation(format!("{what} {start:#x} under {n} copies"));
        }
        flights
    }

    /// The range of an allocation that begins here and was not freed.
    fn allocation(&mut self, address: usize) -> Result<Range<usize>> {
        match self.device_memory.live.at(address) {
            Some(allocation) if !allocation.is_leaving => return Ok(allocation.block.range()),
            Some(_) => self.violation(format!("double free of {address:#x}")),
            None if self.device_memory.freed.at(address).is_some() => {
                self.violation(format!("double free of {address:#x}"));
            }
            None => self.violation(format!("free of {address:#x}, where no allocation begins")),
        }
        Err(Code::INVALID_VALUE)
    }
}

/// `Malloc`, and `MallocAsync` in a stream's place.
pub(crate) fn allocate(place: *mut usize, size: usize) -> Result {
    let mut state = state();
    let device = state.context()?;
    if size == 0 {
        return give(place, 0);
    }
    let used = state.device_memory.used(device);
    if used.saturating_add(size as u64) > state.config.memory_bytes {
        return Err(Code::MEMORY);
    }
    let reused = match state.config.reuses {
        true => state.device_memory.reuse(size),
        false => None,
    };
    let mut block = match reused {
        Some(block) => block,
        None => Block::new(size, DEVICE_ALIGNMENT)?,
    };
    if state.config.scribbles {
        block.scribble();
    }
    let range = block.range();
    give(place, range.start)?;
    let allocation = Allocation {
        device,
        block,
        is_leaving: false,
    };
    let memory = &mut state.device_memory;
    memory.usage.entry(device).or_default().add(size);
    memory.live.insert(range, allocation);
    Ok(())
}

pub(crate) fn allocate_in_order(place: *mut usize, size: usize, stream: usize) -> Result {
    state().queue(stream)?;
    allocate(place, size)
}

/// `Free`, which waits for what still uses the memory, and tells.
pub(crate) fn free(address: usize) -> Result {
    if address == 0 {
        return Ok(());
    }
    let flights = {
        let mut state = state();
        let range = state.allocation(address)?;
        state.still_copied(&range, "device memory freed at")
    };
    flights.iter().for_each(Moment::wait);
    let mut state = state();
    let State {
        config,
        device_memory,
        ..
    } = &mut *state;
    match device_memory.retire(address, config) {
        true => Ok(()),
        false => Err(Code::INVALID_VALUE),
    }
}

/// `FreeAsync`: nothing submitted later may use the memory, and it goes when the stream comes to it.
pub(crate) fn free_later(address: usize, stream: usize) -> Result {
    let mut state = state();
    let queue = state.queue(stream)?;
    if address == 0 {
        return Ok(());
    }
    state.allocation(address)?;
    if let Some(allocation) = state.device_memory.live.at_mut(address) {
        allocation.is_leaving = true;
    }
    state.submit(&queue, Task::Free(address)).map(drop)
}

/// In the thread of the stream.
pub(crate) fn free_in_order(address: usize) {
    let mut state = state();
    let Some(allocation) = state.device_memory.live.at(address) else {
        return;
    };
    let range = allocation.block.range();
    // Copies of other streams cannot be waited for here, as they may wait for this one: the memory stays.
    if state
        .still_copied(&range, "device memory freed in a stream's order at")
        .is_empty()
    {
        let State {
            config,
            device_memory,
            ..
        } = &mut *state;
        device_memory.retire(address, config);
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

pub(crate) fn allocate_host(place: *mut usize, size: usize) -> Result {
    let mut state = state();
    let device = state.context()?;
    if size == 0 {
        return give(place, 0);
    }
    check_pinned(&state, size)?;
    let block = Block::new(size, HOST_ALIGNMENT)?;
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

pub(crate) fn free_host(address: usize) -> Result {
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

/// What `PointerGetAttributes` writes; HIP has two fields more, which stay as they are.
#[repr(C)]
pub(crate) struct PointerAttributes {
    kind: c_int,
    device: c_int,
    on_device: usize,
    on_host: usize,
}

pub(crate) fn attributes(place: *mut PointerAttributes, address: usize) -> Result {
    let state = state();
    let byte = address..address.saturating_add(1);
    let attributes = match (state.find(&byte), state.host_memory.pinned.place(&byte)) {
        (Ok(Side::Device(device)), _) => PointerAttributes {
            kind: 2,
            device: device as c_int,
            on_device: address,
            on_host: 0,
        },
        (_, Place::Inside(pinned)) => PointerAttributes {
            kind: 1,
            device: pinned.device as c_int,
            on_device: address,
            on_host: address,
        },
        _ => PointerAttributes {
            kind: 0,
            device: -1,
            on_device: 0,
            on_host: address,
        },
    };
    drop(state);
    give(place, attributes)
}
