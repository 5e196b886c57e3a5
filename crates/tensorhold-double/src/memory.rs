//! Memory of devices and pinned memory of the host: who has it, and what a range of addresses is.

pub(crate) mod device;
pub(crate) mod host;

use std::ffi::c_int;
use std::ops::Range;

use crate::call::give;
use crate::error::{Code, Result};
use crate::ranges::Place;
use crate::state::{State, state};
use crate::stream::Moment;

/// What lies at some addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Device(usize),
    Pinned,
    /// Pinned, and said to be only read.
    ReadOnly,
    Foreign,
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
        let n_reads = self.storage.n_reads_into(range);
        if n_reads > 0 {
            let start = range.start;
            self.violation(format!("{what} {start:#x} under {n_reads} reads"));
        }
        if !flights.is_empty() {
            let (start, n) = (range.start, flights.len());
            self.violation(format!("{what} {start:#x} under {n} copies"));
        }
        flights
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
