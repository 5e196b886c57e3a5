//! Memory of a device with one owner, parts of which can be copied to by several threads.

mod memory;
mod parts;

use std::any::Any;
use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use crate::queue::CopyQueue;

pub(crate) use memory::allocate;
pub use parts::DevicePart;

/// Bytes of a device with one owner.
///
/// When it is dropped with copies to it under way, after a failure, it waits for them before its owner goes; where even
/// that fails, the owner is never dropped.
pub struct DeviceBuffer {
    queue: Arc<CopyQueue>,
    address: usize,
    len: usize,
    /// What keeps the memory; `None` once it was taken.
    owner: Option<Box<dyn Any + Send>>,
    has_free_gaps: bool,
}

// SAFETY: all that a shared buffer tells is numbers and its queue, which is `Sync`. The owner, which may not be `Sync`, cannot
// be reached through it.
unsafe impl Sync for DeviceBuffer {}

impl DeviceBuffer {
    /// The `len` bytes from `address` on in the memory of the queue's device, which `owner` keeps: it is dropped with
    /// the buffer.
    ///
    /// # Safety
    /// Until `owner` is dropped, copies of the queue may write to the bytes, and nobody else uses them unless ordered
    /// by [`CopyQueue::begin_after`] and [`CopyQueue::signal`].
    #[must_use]
    pub unsafe fn from_raw(
        queue: &Arc<CopyQueue>,
        address: usize,
        len: usize,
        owner: Box<dyn Any + Send>,
    ) -> DeviceBuffer {
        DeviceBuffer {
            queue: Arc::clone(queue),
            address,
            len,
            owner: Some(owner),
            has_free_gaps: false,
        }
    }

    /// The buffer, with leave to write anything to bytes that are of no part when it is [split](DeviceBuffer::split): then
    /// neighbours go in one copy with what lies between them. Fresh memory has it from the start.
    #[must_use]
    pub fn with_free_gaps(mut self) -> DeviceBuffer {
        self.has_free_gaps = true;
        self
    }

    /// The address of the first byte, on the device.
    #[must_use]
    pub fn address(&self) -> usize {
        self.address
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

    /// The queue whose copies go to it.
    #[must_use]
    pub fn queue(&self) -> &Arc<CopyQueue> {
        &self.queue
    }

    /// The parts of the buffer that `ranges` name, in their order, to be filled by different threads. The last to be
    /// [joined](DevicePart::join) gives the buffer back; with no ranges it is dropped here.
    ///
    /// # Panics
    /// If the ranges are not ascending, overlap, or pass the end.
    #[must_use]
    pub fn split(self, ranges: &[Range<usize>]) -> Vec<DevicePart> {
        parts::split(self, ranges)
    }

    /// The owner, for who has let the stream that uses the memory wait by [`CopyQueue::signal`]: nothing waits here.
    #[must_use]
    pub fn into_owner(mut self) -> Box<dyn Any + Send> {
        self.owner.take().expect("it is taken here only")
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            match self.queue.settle() {
                true => drop(owner),
                // A copy may still write there.
                false => mem::forget(owner),
            }
        }
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DeviceBuffer({} bytes at {:#x} of {})",
            self.len,
            self.address,
            self.queue.device()
        )
    }
}
