//! The way back: from the memory of a device into a slot.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::device::Device;
use crate::queue::CopyQueue;
use crate::slot::Slot;

/// Bytes of a device that are to be read.
#[derive(Clone, Copy)]
pub struct DeviceView<'a> {
    queue: &'a CopyQueue,
    address: usize,
    len: usize,
    /// The address of the view that this is a part of: its bytes are one allocation's.
    whole: usize,
}

impl<'a> DeviceView<'a> {
    /// The `len` bytes from `address` on in the memory of the queue's device, all of one allocation.
    ///
    /// # Safety
    /// The memory stays until all copies of the queue from the view have happened, of which who waits for a [`Fetching`], or drops
    /// it, can be sure. What writes to it is ordered before the copies by [`CopyQueue::begin_after`], or comes after such a wait.
    #[must_use]
    pub unsafe fn from_raw(queue: &'a CopyQueue, address: usize, len: usize) -> DeviceView<'a> {
        DeviceView {
            queue,
            address,
            len,
            whole: address,
        }
    }

    /// The bytes that `range` names.
    ///
    /// # Panics
    /// If it passes the end.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> DeviceView<'a> {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "bytes {range:?} of {}",
            self.len
        );
        DeviceView {
            address: self.address + range.start,
            len: range.len(),
            ..self
        }
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The queue that reads them.
    #[must_use]
    pub fn queue(&self) -> &'a CopyQueue {
        self.queue
    }

    fn is_of_one_allocation(&self, other: &DeviceView<'_>) -> bool {
        self.whole == other.whole
    }
}

impl fmt::Debug for DeviceView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.queue.device();
        let DeviceView { address, len, .. } = self;
        write!(f, "DeviceView({len} bytes at {address:#x} of {device})")
    }
}

/// Bytes of a device, and where in a slot they go.
#[derive(Debug, Clone, Copy)]
pub struct SlotFetch<'a> {
    /// What is read.
    pub view: DeviceView<'a>,
    /// Where in the slot the first byte goes.
    pub to: usize,
}

/// One call: `len` bytes from an address of the device to `to` in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) len: usize,
}

/// The calls that carry `fetches` out. Neighbours on the device that are neighbours in the slot become one.
///
/// # Errors
/// `InvalidArgument` if one passes the end of the slot, or is of another queue, whose order it would not keep.
pub(crate) fn runs(fetches: &[SlotFetch<'_>], queue: &CopyQueue) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::with_capacity(fetches.len());
    let mut last: Option<&SlotFetch<'_>> = None;
    for fetch in fetches {
        check(fetch, queue)?;
        let SlotFetch { view, to } = fetch;
        if view.is_empty() {
            continue;
        }
        match runs.last_mut() {
            Some(run)
                if last.is_some_and(|last| last.view.is_of_one_allocation(view))
                    && (run.from + run.len, run.to + run.len) == (view.address, *to) =>
            {
                run.len += view.len;
            }
            _ => runs.push(Run {
                from: view.address,
                to: *to,
                len: view.len,
            }),
        }
        last = Some(fetch);
    }
    Ok(runs)
}

fn check(fetch: &SlotFetch<'_>, queue: &CopyQueue) -> Result<()> {
    let SlotFetch { view, to } = fetch;
    let fits = |end: usize| end <= Slot::BYTES;
    if !to.checked_add(view.len).is_some_and(fits) {
        let message = format!(
            "{} bytes do not fit at {to} of a slot of {}",
            view.len,
            Slot::BYTES
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if !ptr::eq(view.queue, queue) {
        let message = "the bytes are to be read by another queue";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

/// A slot that copies from a device go to.
///
/// Dropped, it waits for them as [`wait`](Fetching::wait) does, and gives the slot back to the ring.
#[must_use = "the bytes are there when `wait` returns"]
pub struct Fetching<'a> {
    /// `None` once it was given on.
    slot: Option<Slot>,
    device: Device,
    views: PhantomData<DeviceView<'a>>,
}

impl Fetching<'_> {
    pub(crate) fn new(slot: Slot, device: Device) -> Self {
        Fetching {
            slot: Some(slot),
            device,
            views: PhantomData,
        }
    }

    /// The device that the copies are from.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Waits, asleep, for these copies and no others; the slot, with the bytes.
    ///
    /// # Errors
    /// `Device` as the runtime says, be it for an earlier copy; the slot is back in the ring then, or is never used again
    /// where nobody can say that the copies are done.
    pub fn wait(mut self) -> Result<Slot> {
        let slot = self.slot.take().expect("it is taken here only");
        slot.arrived()
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        // What the copies have read is not wanted; a slot whose copies are not done is not given back.
        let _ = self.slot.take().map(Slot::arrived);
    }
}

impl fmt::Debug for Fetching<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetching({:?} from {})", self.slot, self.device)
    }
}
