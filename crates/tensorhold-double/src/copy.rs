//! Copies: what they are between, whether they may be, and the moving of bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::block::SCRIBBLE;
use crate::error::{Code, Result};
use crate::memory::Side;
use crate::pace::Pace;
use crate::ranges::overlap;
use crate::state::{State, state};
use crate::stream::{Moment, Task};

/// The direction of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    HostToHost,
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::HostToHost => "host_to_host",
            Way::HostToDevice => "host_to_device",
            Way::DeviceToHost => "device_to_host",
            Way::DeviceToDevice => "device_to_device",
        }
    }

    fn goes_to_device(self) -> bool {
        matches!(self, Way::HostToDevice | Way::DeviceToDevice)
    }

    fn comes_from_device(self) -> bool {
        matches!(self, Way::DeviceToHost | Way::DeviceToDevice)
    }
}

/// One side of a copy: `n_rows` rows of `width` bytes, each `pitch` bytes after the one before.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub address: usize,
    pub pitch: usize,
}

/// The rows that both sides of a copy have.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub width: usize,
    pub n_rows: usize,
}

/// A copy that a stream is to carry out.
pub(crate) struct Copy {
    number: u64,
    device: usize,
    way: Way,
    to: Rows,
    from: Rows,
    shape: Shape,
    /// The source is to be overwritten afterwards.
    scribbles: bool,
}

/// A copy that has not happened yet, for who wants to free what it uses.
pub(crate) struct Flight {
    to: Range<usize>,
    from: Range<usize>,
    pub moment: Moment,
}

impl Flight {
    pub(crate) fn touches(&self, range: &Range<usize>) -> bool {
        overlap(&self.to, range) || overlap(&self.from, range)
    }
}

/// What was copied since the last reset, and how often.
#[derive(Default)]
pub(crate) struct Tally {
    pub by_way: BTreeMap<&'static str, (u64, u64)>,
    /// From or to host memory that is not pinned.
    pub pageable: (u64, u64),
    /// From or to memory that stands for a device's and is not known.
    pub foreign: (u64, u64),
}

fn add(count: &mut (u64, u64), n_bytes: u64) {
    count.0 += 1;
    count.1 += n_bytes;
}

/// `MemcpyAsync`.
pub(crate) fn linear(to: usize, from: usize, n_bytes: usize, kind: i32, stream: usize) -> Result {
    one_row(to, from, n_bytes, kind, stream).map(drop)
}

/// `Memcpy`: the same in the default stream, waited for.
pub(crate) fn waited(to: usize, from: usize, n_bytes: usize, kind: i32) -> Result {
    if let Some(moment) = one_row(to, from, n_bytes, kind, 0)? {
        moment.wait();
    }
    Ok(())
}

fn one_row(
    to: usize,
    from: usize,
    n_bytes: usize,
    kind: i32,
    stream: usize,
) -> Result<Option<Moment>> {
    let side = |address| Rows {
        address,
        pitch: n_bytes,
    };
    let shape = Shape {
        width: n_bytes,
        n_rows: 1,
    };
    copy(side(to), side(from), shape, kind, stream)
}

/// `Memcpy2DAsync`.
pub(crate) fn pitched(to: Rows, from: Rows, shape: Shape, kind: i32, stream: usize) -> Result {
    if to.pitch < shape.width || from.pitch < shape.width {
        return Err(Code::INVALID_PITCH);
    }
    copy(to, from, shape, kind, stream).map(drop)
}

/// Submits a copy, and waits for it where a runtime does so.
fn copy(to: Rows, from: Rows, shape: Shape, kind: i32, stream: usize) -> Result<Option<Moment>> {
    let mut state = state();
    let queue = state.queue(stream)?;
    if shape.width == 0 || shape.n_rows == 0 {
        return Ok(None);
    }
    let (to_range, from_range) = (range(to, shape)?, range(from, shape)?);
    let (to_side, from_side, way) = state.sides(&to_range, &from_range, kind)?;
    let is_waited = state.count(way, to_side, from_side, shape);
    let device = match (to_side, from_side) {
        (Side::Device(device), _) | (_, Side::Device(device)) => device,
        _ => queue.device,
    };
    let copy = Copy {
        number: state.n_flights,
        device,
        way,
        to,
        from,
        shape,
        scribbles: way == Way::HostToDevice && from_side == Side::Pinned,
    };
    // The lock of the state is held until the flight is in the table, so that the copy cannot end before.
    let moment = state.submit(&queue, Task::Copy(copy))?;
    let flight = Flight {
        to: to_range,
        from: from_range,
        moment: moment.clone(),
    };
    let number = state.n_flights;
    state.n_flights += 1;
    state.flights.insert(number, flight);
    drop(state);
    if is_waited {
        moment.wait();
    }
    Ok(Some(moment))
}

/// The addresses from the first to the last byte of some rows.
fn range(rows: Rows, shape: Shape) -> Result<Range<usize>> {
    let before_last = rows.pitch.checked_mul(shape.n_rows - 1);
    let len = before_last.and_then(|bytes| bytes.checked_add(shape.width));
    let end = len.and_then(|len| rows.address.checked_add(len));
    match end {
        Some(end) if rows.address != 0 => Ok(rows.address..end),
        _ => Err(Code::INVALID_VALUE),
    }
}

fn way(kind: i32, to: Side, from: Side) -> Result<Way> {
    let is_device = |side| matches!(side, Side::Device(_));
    Ok(match (kind, is_device(from), is_device(to)) {
        (0, ..) | (4, false, false) => Way::HostToHost,
        (1, ..) | (4, false, true) => Way::HostToDevice,
        (2, ..) | (4, true, false) => Way::DeviceToHost,
        (3, ..) | (4, true, true) => Way::DeviceToDevice,
        _ => return Err(Code::INVALID_DIRECTION),
    })
}

impl State {
    /// What a copy is between, and its direction, if it may be.
    fn sides(
        &mut self,
        to: &Range<usize>,
        from: &Range<usize>,
        kind: i32,
    ) -> Result<(Side, Side, Way)> {
        let to_side = self.side(to, "to")?;
        let from_side = self.side(from, "from")?;
        let way = way(kind, to_side, from_side)?;
        self.check_side(way.goes_to_device(), to_side, to)?;
        self.check_side(way.comes_from_device(), from_side, from)?;
        Ok((to_side, from_side, way))
    }

    /// Refuses a side that is not what the direction says.
    fn check_side(&mut self, is_device: bool, side: Side, range: &Range<usize>) -> Result {
        let fault = match (is_device, side) {
            (true, Side::Pinned | Side::ReadOnly) => "pinned host memory for a device's",
            (false, Side::Device(_)) => "device memory for the host's",
            _ => return Ok(()),
        };
        self.violation(format!("copy that takes {fault} at {:#x}", range.start));
        Err(Code::INVALID_VALUE)
    }

    /// Counts a copy; whether the call waits for it, as a runtime does where the host's memory is not pinned.
    fn count(&mut self, way: Way, to: Side, from: Side, shape: Shape) -> bool {
        let n_bytes = shape.width as u64 * shape.n_rows as u64;
        add(self.tally.by_way.entry(way.name()).or_default(), n_bytes);
        let is_foreign = |said_device, side| said_device && side == Side::Foreign;
        let is_pageable = |said_device: bool, side| !said_device && side == Side::Foreign;
        if is_foreign(way.goes_to_device(), to) || is_foreign(way.comes_from_device(), from) {
            add(&mut self.tally.foreign, n_bytes);
        }
        let pageable =
            is_pageable(way.goes_to_device(), to) || is_pageable(way.comes_from_device(), from);
        if pageable {
            add(&mut self.tally.pageable, n_bytes);
        }
        pageable || way == Way::HostToHost
    }
}

impl Copy {
    /// In the thread of the stream.
    pub(crate) fn run(self, pace: &mut Pace) {
        let n_bytes = self.shape.width as u64 * self.shape.n_rows as u64;
        pace.copy(self.device, self.way, n_bytes, || self.move_bytes());
        let mut state = state();
        let flight = state.flights.remove(&self.number);
        let source = flight.expect("it is entered before it can run").from;
        let is_read = state
            .flights
            .values()
            .any(|other| overlap(&other.from, &source));
        if self.scribbles && state.config.scribbles && !is_read {
            self.scribble();
        }
    }

    fn rows(&self) -> impl Iterator<Item = (*mut u8, *mut u8)> {
        (0..self.shape.n_rows).map(|row| {
            let at = |side: &Rows| (side.address + row * side.pitch) as *mut u8;
            (at(&self.to), at(&self.from))
        })
    }

    fn move_bytes(&self) {
        for (to, from) in self.rows() {
            // SAFETY: the caller of the runtime vouches for both sides until the copy has happened, and what the
            // double knows of them was checked; `copy` allows them to overlap.
            unsafe { std::ptr::copy(from, to, self.shape.width) };
        }
    }

    fn scribble(&self) {
        for (_, from) in self.rows() {
            // SAFETY: the source is pinned and not read-only; it cannot be unregistered while the state is locked,
            // and unregistering it earlier has waited for this copy.
            unsafe { from.write_bytes(SCRIBBLE, self.shape.width) };
        }
    }
}
