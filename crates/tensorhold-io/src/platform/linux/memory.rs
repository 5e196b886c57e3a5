//! Huge pages, and pages made or given back at a word.

use std::ptr::NonNull;

use rustix::mm::{Advice, madvise};

/// Asks for huge pages, as far as the system has them.
pub(crate) fn prefer_huge_pages(start: NonNull<u8>, size_bytes: usize) {
    // SAFETY: the advice changes no byte. Where huge pages are off, it is refused, and small ones do.
    let _ = unsafe { madvise(start.as_ptr().cast(), size_bytes, Advice::LinuxHugepage) };
}

/// Gives pages back; they read as zero afterwards, or as before where the system refuses.
///
/// # Safety
/// The bytes are whole pages from [`map_memory`](super::super::map_memory), and nobody else uses them.
pub(crate) unsafe fn discard_memory(start: NonNull<u8>, size_bytes: usize) {
    // SAFETY: the pages are private and anonymous, so that they become zero; the caller vouches that nobody minds.
    let _ = unsafe { madvise(start.as_ptr().cast(), size_bytes, Advice::LinuxDontNeed) };
}
