//! Pages of memory.

use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The size of a huge page where pages have 4 KiB.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The smallest page of any system that Linux runs on.
const PAGE_BYTES: usize = 4 << 10;

/// `MPOL_PREFERRED` of `linux/mempolicy.h`: from another node where this one is full.
const PREFERRED: libc::c_ulong = 1;

/// The nodes that a mask has bits for.
const N_NODES: usize = 1024;

/// `size_bytes` zero bytes, in huge pages where the system has them; `None` where it has no memory.
///
/// The size is a multiple of 2 MiB.
pub(crate) fn map_memory(size_bytes: usize) -> Option<NonNull<u8>> {
    let wide = map(size_bytes.checked_add(HUGE_PAGE_BYTES)?)?;
    let before = wide.align_offset(HUGE_PAGE_BYTES);
    // SAFETY: `before` is less than a huge page, so that the aligned stretch and what follows it lie in the map.
    let (start, after) = unsafe { (wide.add(before), wide.add(before + size_bytes)) };
    // SAFETY: both ends are of the map that was just made, apart from the stretch that stays, and nobody knows of them.
    unsafe {
        unmap_memory(wide, before);
        unmap_memory(after, HUGE_PAGE_BYTES - before);
    }
    // SAFETY: the advice changes no byte. Where huge pages are off, it is refused, and small ones do.
    let _ = unsafe { madvise(start.as_ptr().cast(), size_bytes, Advice::LinuxHugepage) };
    Some(start)
}

fn map(size_bytes: usize) -> Option<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: no address is asked for, so that no other map is touched.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), size_bytes, access, MapFlags::PRIVATE) };
    NonNull::new(start.ok()?.cast())
}

/// # Safety
/// The bytes are whole pages from [`map_memory`], and used no more.
pub(crate) unsafe fn unmap_memory(start: NonNull<u8>, size_bytes: usize) {
    if size_bytes > 0 {
        // SAFETY: as the caller vouches. Where the system refuses, for want of room to split a map, the pages stay.
        let _ = unsafe { munmap(start.as_ptr().cast(), size_bytes) };
    }
}

/// Asks for the pages to come from the memory of `node`, which they then do as far as it has any.
///
/// # Safety
/// The bytes are whole pages from [`map_memory`].
pub(crate) unsafe fn prefer_node(start: NonNull<u8>, size_bytes: usize, node: u32) {
    const BITS: usize = libc::c_ulong::BITS as usize;
    let mut mask: [libc::c_ulong; N_NODES / BITS] = [0; N_NODES / BITS];
    let node = node as usize;
    let Some(word) = mask.get_mut(node / BITS) else {
        return;
    };
    *word |= 1 << (node % BITS);
    // SAFETY: the policy changes no byte, and the mask has as many bits as said. The kernel reads one bit less than it is
    // told. Without such a system call, or without leave for it, the pages come from anywhere.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start.as_ptr(),
            size_bytes,
            PREFERRED,
            mask.as_ptr(),
            N_NODES,
            0_u32,
        )
    };
}

/// Makes all pages, so that nobody waits for one later.
///
/// # Safety
/// The bytes are whole pages from [`map_memory`], and nobody else uses them.
pub(crate) unsafe fn prefault(start: NonNull<u8>, size_bytes: usize) {
    // SAFETY: the advice changes no byte.
    let made = unsafe {
        madvise(
            start.as_ptr().cast(),
            size_bytes,
            Advice::LinuxPopulateWrite,
        )
    };
    if made.is_ok() {
        return;
    }
    for offset in (0..size_bytes).step_by(PAGE_BYTES) {
        // SAFETY: the byte is of the map, which is writable and the caller's alone.
        unsafe { start.add(offset).write_volatile(0) };
    }
}
