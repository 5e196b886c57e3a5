//! A stretch of memory from the system.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use super::{ALIGNMENT, LARGE_BYTES, pool};
use crate::platform;

/// The size of a huge page where pages have 4 KiB.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A multiple of the page size of every system.
pub(super) const PAGES_BYTES: usize = 64 << 10;

/// Readable and writable memory, unmapped or recycled on drop.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    capacity: usize,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Mapped pages, which are recycled.
    Pages,
    /// Mapped pages, some of which were given back: in their place there would be small ones.
    TornPages,
    /// Of Rust's allocator, at `ALIGNMENT`.
    Heap,
    /// Taken by another region, or by the pool.
    Moved,
}

// SAFETY: a region is the only way to its memory, which any thread may use and free.
unsafe impl Send for Region {}
// SAFETY: a shared region only tells its address.
unsafe impl Sync for Region {}

impl Region {
    /// At least `len` bytes, which must not be zero. `None` where there is no memory.
    pub(super) fn allocate(len: usize) -> Option<Region> {
        let pages = match len >= LARGE_BYTES {
            true => capacity(len).and_then(pages),
            false => None,
        };
        pages.or_else(|| heap(len))
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether pages can be given back one by one.
    pub(super) fn is_pages(&self) -> bool {
        matches!(self.origin, Origin::Pages | Origin::TornPages)
    }

    /// Keeps the region from being recycled, once pages of it were given back.
    pub(super) fn tear(&mut self) {
        if self.is_pages() {
            self.origin = Origin::TornPages;
        }
    }

    /// Frees the memory, past the pool.
    pub(super) fn free(mut self) {
        // SAFETY: the region is ours and gone with this call.
        unsafe { self.release() };
    }

    /// # Safety
    /// The memory is used no more.
    unsafe fn release(&mut self) {
        match std::mem::replace(&mut self.origin, Origin::Moved) {
            // SAFETY: the pages were mapped by `map` with this capacity, and the caller vouches that they are used no more.
            Origin::Pages | Origin::TornPages => unsafe {
                platform::unmap_memory(self.start, self.capacity);
            },
            Origin::Heap => {
                let layout = Layout::from_size_align(self.capacity, ALIGNMENT);
                // SAFETY: `heap` allocated it with this very layout, and the caller vouches that it is used no more.
                unsafe { dealloc(self.start.as_ptr(), layout.expect("it was valid before")) };
            }
            Origin::Moved => {}
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.origin == Origin::Pages {
            let pages = Region { ..*self };
            self.origin = Origin::Moved;
            pool::give(pages);
        } else {
            // SAFETY: whoever used the memory owned the region, which is dropped.
            unsafe { self.release() };
        }
    }
}

/// What is mapped for `len` bytes: whole huge pages, so that the tail is as fast as the rest, unless that wastes an eighth.
fn capacity(len: usize) -> Option<usize> {
    let whole = len.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
    match whole - len <= len / 8 {
        true => Some(whole),
        false => len.checked_next_multiple_of(PAGES_BYTES),
    }
}

fn pages(capacity: usize) -> Option<Region> {
    let fresh = || map(capacity);
    // What is kept for later is worth less than what is needed now.
    let after_release = || (pool::release_pool() > 0).then(fresh).flatten();
    pool::take(capacity).or_else(fresh).or_else(after_release)
}

fn map(capacity: usize) -> Option<Region> {
    let start = platform::map_memory(capacity, HUGE_PAGE_BYTES).ok()?;
    Some(Region {
        start,
        capacity,
        origin: Origin::Pages,
    })
}

fn heap(len: usize) -> Option<Region> {
    let layout = Layout::from_size_align(len, ALIGNMENT).ok()?;
    // SAFETY: the layout has a size, as `len` is not zero.
    let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
    Some(Region {
        start,
        capacity: len,
        origin: Origin::Heap,
    })
}
