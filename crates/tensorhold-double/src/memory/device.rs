//! Memory of devices: what is allocated, and what was freed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::Usage;
use crate::block::Block;
use crate::call::give;
use crate::config::Config;
use crate::error::{Code, Result};
use crate::ranges::Ranges;
use crate::state::{State, state};
use crate::stream::{Moment, Task};

/// As `cudaMalloc` aligns.
const ALIGNMENT: usize = 256;
/// How much freed device memory is kept, so that its use can be told from that of others' memory.
const KEPT_BYTES: usize = 64 << 20;

/// The memory of all devices.
pub(crate) struct DeviceMemory {
    pub(super) live: Ranges<Allocation>,
    /// Freed and not used again yet, the oldest first.
    kept: VecDeque<Block>,
    kept_bytes: usize,
    pub(super) freed: Ranges<()>,
    pub usage: BTreeMap<usize, Usage>,
}

pub(super) struct Allocation {
    pub(super) device: usize,
    block: Block,
    /// Freed in the order of a stream, which has not come to it yet.
    pub(super) is_leaving: bool,
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

impl State {
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
        None => Block::new(size, ALIGNMENT)?,
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
