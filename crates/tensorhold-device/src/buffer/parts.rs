//! A device buffer in the hands of several threads.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::DeviceBuffer;
use crate::queue::CopyQueue;

/// A range of a [`DeviceBuffer`].
///
/// A part that is dropped without being joined was not filled: the buffer is then never given back, and goes with
/// its last part.
pub struct DevicePart {
    address: usize,
    len: usize,
    /// Its place among the parts of the buffer.
    index: usize,
    /// `None` only while it is dropped.
    whole: Option<Arc<Whole>>,
}

struct Whole {
    buffer: DeviceBuffer,
    is_abandoned: AtomicBool,
}

pub(super) fn split(buffer: DeviceBuffer, ranges: &[Range<usize>]) -> Vec<DevicePart> {
    let mut end = 0;
    for range in ranges {
        assert!(
            end <= range.start && range.start <= range.end && range.end <= buffer.len(),
            "parts must be ascending, apart and inside the buffer"
        );
        end = range.end;
    }
    let first = buffer.address();
    let whole = Arc::new(Whole {
        buffer,
        is_abandoned: AtomicBool::new(false),
    });
    let part = |(index, range): (usize, &Range<usize>)| DevicePart {
        address: first + range.start,
        len: range.len(),
        index,
        whole: Some(Arc::clone(&whole)),
    };
    let parts = ranges.iter().enumerate().map(part).collect();
    // Nobody else may hold the buffer: the last part to be joined must be able to take it.
    drop(whole);
    parts
}

impl DevicePart {
    /// Gives the part back as sent: the buffer, if it is the last one of it and all others were given back before.
    /// Copies to it may still be under way.
    #[must_use = "the last part's buffer is dropped here"]
    pub fn join(mut self) -> Option<DeviceBuffer> {
        let whole = Arc::into_inner(self.whole.take()?)?;
        (!whole.is_abandoned.into_inner()).then_some(whole.buffer)
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
    ///
    /// # Panics
    /// Never, as the buffer is held until the part is joined or dropped.
    #[must_use]
    pub fn queue(&self) -> &CopyQueue {
        let whole = self.whole.as_ref();
        whole
            .expect("it is held until the part goes")
            .buffer
            .queue()
    }

    /// Whether `next` is of the same buffer.
    pub(crate) fn is_of_one_buffer(&self, next: &DevicePart) -> bool {
        match (&self.whole, &next.whole) {
            (Some(this), Some(next)) => Arc::ptr_eq(this, next),
            _ => false,
        }
    }

    /// Whether anything may be written to the bytes between this part and `next`: they are of no other part, and nobody
    /// wants them.
    pub(crate) fn has_free_gap_before(&self, next: &DevicePart) -> bool {
        let is_free = |whole: &Arc<Whole>| whole.buffer.has_free_gaps;
        self.is_of_one_buffer(next)
            && self.index + 1 == next.index
            && self.whole.as_ref().is_some_and(is_free)
    }
}

impl Drop for DevicePart {
    fn drop(&mut self) {
        if let Some(whole) = &self.whole {
            // Whoever takes the buffer sees it: letting go of the `Arc` orders it before.
            whole.is_abandoned.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for DevicePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevicePart({} bytes at {:#x})", self.len, self.address)
    }
}
