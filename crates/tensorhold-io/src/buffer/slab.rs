//! Memory that buffers share, so that all of it lies in huge pages.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tensorhold_core::Result;

use super::region::{PAGES_BYTES, Region};
use super::{ALIGNMENT, Buffer, Owner, length, no_memory};
use crate::platform;

/// Small enough to be free again soon, large enough that little is wasted where the next buffer does not fit.
const SLAB_BYTES: usize = 32 << 20;

/// Buffers from this size on have memory of their own: what they waste on small pages, or on the rest of a huge one, is little.
const ALONE_BYTES: usize = 16 << 20;

/// Memory of several buffers, each with a stretch of its own.
#[derive(Debug)]
pub(super) struct Slab {
    region: Region,
    /// Whether pages of it were given back.
    is_torn: AtomicBool,
}

impl Slab {
    /// Gives whole pages of the stretch back to the system.
    ///
    /// # Safety
    /// The stretch is of this slab, and nobody uses it any more.
    pub(super) unsafe fn discard(&self, start: NonNull<u8>, len: usize) {
        let first = start.align_offset(PAGES_BYTES);
        let n_bytes = len.saturating_sub(first) / PAGES_BYTES * PAGES_BYTES;
        if n_bytes > 0 && self.region.is_pages() {
            // Whoever drops the slab sees it: letting go of the `Arc` orders it before.
            self.is_torn.store(true, Ordering::Relaxed);
            // SAFETY: the pages lie wholly inside the stretch, which the caller vouches for; they are mapped, as the
            // region says, and read as zero from now on, which is an initialized value.
            unsafe { platform::discard_memory(start.add(first), n_bytes) };
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if *self.is_torn.get_mut() {
            self.region.tear();
        }
    }
}

pub(super) fn allocate_many(sizes_bytes: &[u64]) -> Result<Vec<Buffer>> {
    let mut buffers = Vec::with_capacity(sizes_bytes.len());
    let mut group = 0..0;
    let mut group_bytes = 0;
    for (index, size_bytes) in sizes_bytes.iter().enumerate() {
        let len = length(*size_bytes)?;
        let fits = len < ALONE_BYTES && group_bytes + len <= SLAB_BYTES;
        if !fits {
            share(&mut buffers, &sizes_bytes[group], group_bytes)?;
            (group, group_bytes) = (index..index, 0);
        }
        if len < ALONE_BYTES {
            group_bytes += len.next_multiple_of(ALIGNMENT);
            group.end = index + 1;
        } else {
            buffers.push(Buffer::allocate(*size_bytes)?);
            group = index + 1..index + 1;
        }
    }
    share(&mut buffers, &sizes_bytes[group], group_bytes)?;
    Ok(buffers)
}

/// Buffers of the sizes, in one slab of `total_bytes`.
fn share(buffers: &mut Vec<Buffer>, sizes_bytes: &[u64], total_bytes: usize) -> Result<()> {
    if total_bytes == 0 {
        buffers.extend(sizes_bytes.iter().map(|_| Buffer::empty()));
        return Ok(());
    }
    let region = Region::allocate(total_bytes).ok_or_else(|| no_memory(total_bytes as u64))?;
    let slab = Arc::new(Slab {
        region,
        is_torn: AtomicBool::new(false),
    });
    let mut offset = 0;
    for size_bytes in sizes_bytes {
        let len = length(*size_bytes)?;
        buffers.push(piece(&slab, offset..offset + len));
        offset += len.next_multiple_of(ALIGNMENT);
    }
    Ok(())
}

fn piece(slab: &Arc<Slab>, range: Range<usize>) -> Buffer {
    if range.is_empty() {
        return Buffer::empty();
    }
    assert!(
        range.end <= slab.region.capacity(),
        "the slab holds its pieces"
    );
    Buffer {
        // SAFETY: the range lies inside the region, as was just checked, which is one allocation.
        start: unsafe { slab.region.start().add(range.start) },
        len: range.len(),
        owner: Owner::Slab(Arc::clone(slab)),
    }
}
