//! Blocks of memory, as devices and pinned allocations have them.

use std::alloc::{Layout, alloc, dealloc};
use std::ops::Range;
use std::ptr::NonNull;

use crate::error::{Code, Result};

/// What is written over bytes that may no longer be read.
pub(crate) const SCRIBBLE: u8 = 0xDB;

/// Devices map memory in pages of this size, and so should a block that is as large: faults in small pages would
/// take longer than the copies, and a device has none.
const HUGE_PAGE: usize = 2 << 20;

/// Memory of the process's allocator.
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is the only owner of its memory, which any thread may free.
unsafe impl Send for Block {}

impl Block {
    /// A block of `size` bytes, which is not zero, at a multiple of `alignment`. Its bytes are any.
    pub(crate) fn new(size: usize, alignment: usize) -> Result<Block> {
        let alignment = match size {
            HUGE_PAGE.. => HUGE_PAGE,
            _ => alignment,
        };
        let layout = Layout::from_size_align(size.max(1), alignment).map_err(|_| Code::MEMORY)?;
        // SAFETY: the size of the layout is not zero.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).ok_or(Code::MEMORY)?;
        let block = Block { start, layout };
        block.ask_for_huge_pages();
        Ok(block)
    }

    #[cfg(target_os = "linux")]
    fn ask_for_huge_pages(&self) {
        let whole = self.len() / HUGE_PAGE * HUGE_PAGE;
        if whole > 0 {
            // SAFETY: the range lies in the block, which begins at a multiple of the page; the advice changes none
            // of its bytes, and that it may be refused does no harm.
            unsafe { libc::madvise(self.start.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn ask_for_huge_pages(&self) {}

    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.start.as_ptr() as usize;
        start..start + self.len()
    }

    pub(crate) fn scribble(&mut self) {
        // SAFETY: the block is this many bytes long, and no reference to them exists.
        unsafe { self.start.write_bytes(SCRIBBLE, self.len()) };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and is freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
