//! Pages of memory.

use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

/// `size_bytes` zero bytes at a multiple of `alignment`, which is a power of two and of pages, as is the size.
///
/// # Errors
/// As the system says: no memory, no address space, too many maps.
pub(crate) fn map_memory(size_bytes: usize, alignment: usize) -> io::Result<NonNull<u8>> {
    let start = map(size_bytes)?;
    if start.align_offset(alignment) == 0 {
        super::super::prefer_huge_pages(start, size_bytes);
        return Ok(start);
    }
    // SAFETY: just mapped with this size, and nobody knows of it.
    unsafe { unmap_memory(start, size_bytes) };
    let wide_bytes = size_bytes
        .checked_add(alignment)
        .ok_or(io::ErrorKind::OutOfMemory)?;
    let wide = map(wide_bytes)?;
    let before = wide.align_offset(alignment);
    // SAFETY: `before` is less than the alignment, so that the aligned stretch and what follows it lie in the map.
    let (start, after) = unsafe { (wide.add(before), wide.add(before + size_bytes)) };
    // SAFETY: both ends are of the map that was just made, apart from the stretch that stays, and nobody knows of them.
    unsafe {
        unmap_memory(wide, before);
        unmap_memory(after, alignment - before);
    }
    super::super::prefer_huge_pages(start, size_bytes);
    Ok(start)
}

fn map(size_bytes: usize) -> io::Result<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: no address is asked for, so that no other map is touched.
    let start = unsafe {
        rustix::mm::mmap_anonymous(ptr::null_mut(), size_bytes, access, MapFlags::PRIVATE)?
    };
    NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory.into())
}

/// # Safety
/// The bytes are whole pages from [`map_memory`], and used no more.
pub(crate) unsafe fn unmap_memory(start: NonNull<u8>, size_bytes: usize) {
    if size_bytes > 0 {
        // SAFETY: as the caller vouches. Where the system refuses, for want of room to split a map, the pages stay.
        let _ = unsafe { rustix::mm::munmap(start.as_ptr().cast(), size_bytes) };
    }
}
