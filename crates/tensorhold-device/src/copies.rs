//! What goes from a slot to which place on a device, in as few calls as can be.

use std::ops::Range;
use std::ptr;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::buffer::DevicePart;
use crate::queue::CopyQueue;
use crate::slot::Slot;

/// What allocations on a device, and tensors in a slab, start at a multiple of: gaps are narrower.
const GRANULE_BYTES: usize = 256;

/// Bytes of a slot, and the place on a device that they go to.
#[derive(Debug, Clone)]
pub struct SlotCopy<'a> {
    /// Which bytes of the slot.
    pub from: Range<usize>,
    /// The part that they go to.
    pub part: &'a DevicePart,
    /// Where in the part they begin.
    pub at: usize,
}

impl SlotCopy<'_> {
    fn to(&self) -> usize {
        self.part.address() + self.at
    }

    fn is_inside(&self) -> bool {
        let fits = |end: usize| end <= self.part.len();
        self.from.start <= self.from.end
            && self.from.end <= Slot::BYTES
            && self.at.checked_add(self.from.len()).is_some_and(fits)
    }

    fn reaches_end(&self) -> bool {
        self.at + self.from.len() == self.part.len()
    }
}

/// One call: rows of `len` bytes, the first of them at `from` in the slot, to an address of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) len: usize,
    /// One, but for those of [`SlotRows`](crate::SlotRows).
    pub(crate) n_rows: usize,
    /// How far apart the rows are in the slot, where there are several. On the device there is nothing between them.
    pub(crate) pitch: usize,
}

/// The calls that carry `copies` out, for `queue`. Neighbours of one buffer that lie in the slot as they do on the
/// device become one, along with the gap between two parts where the buffer has free gaps.
///
/// # Errors
/// `InvalidArgument` if one passes the end of the slot or of its part, or is for another queue's buffer: that buffer
/// would not wait for it.
pub(crate) fn runs(copies: &[SlotCopy<'_>], queue: &CopyQueue) -> Result<Vec<Run>> {
    for copy in copies {
        check(copy, queue)?;
    }
    let mut runs: Vec<Run> = Vec::with_capacity(copies.len());
    let mut last: Option<&SlotCopy<'_>> = None;
    for copy in copies.iter().filter(|copy| !copy.from.is_empty()) {
        let run = Run {
            from: copy.from.start,
            to: copy.to(),
            len: copy.from.len(),
            n_rows: 1,
            pitch: 0,
        };
        match (runs.last_mut(), last) {
            (Some(before), Some(last)) if continues(before, &run, last, copy) => {
                before.len = run.from + run.len - before.from;
            }
            _ => runs.push(run),
        }
        last = Some(copy);
    }
    Ok(runs)
}

fn continues(before: &Run, run: &Run, last: &SlotCopy<'_>, copy: &SlotCopy<'_>) -> bool {
    let gap = run.from.checked_sub(before.from + before.len);
    if gap != run.to.checked_sub(before.to + before.len) {
        return false;
    }
    match gap {
        Some(0) => last.part.is_of_one_buffer(copy.part),
        Some(1..GRANULE_BYTES) => {
            last.reaches_end() && copy.at == 0 && last.part.has_free_gap_before(copy.part)
        }
        _ => false,
    }
}

fn check(copy: &SlotCopy<'_>, queue: &CopyQueue) -> Result<()> {
    if !copy.is_inside() {
        let SlotCopy { from, part, at } = copy;
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "bytes {}..{} of a slot of {} do not fit at {at} of a part of {} bytes",
                from.start,
                from.end,
                Slot::BYTES,
                part.len()
            ),
        ));
    }
    check_queue(copy.part, queue)
}

/// # Errors
/// `InvalidArgument` if the part is for another queue.
pub(crate) fn check_queue(part: &DevicePart, queue: &CopyQueue) -> Result<()> {
    if !ptr::eq(part.queue(), queue) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "the part is of a buffer of another queue",
        ));
    }
    Ok(())
}
