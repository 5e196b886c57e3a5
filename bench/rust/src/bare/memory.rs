//! Memory in huge pages.

use std::env;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr;

use crate::PAGE_BYTES;

/// Takes memory, touches it and gives it back to the system, so that the host of a virtual machine has it there. As
/// much as the harness asks for: it makes every side do the same before its clock starts.
pub fn wake() -> io::Result<()> {
    let asked = env::var("TENSORHOLD_BENCH_WAKE_BYTES").ok();
    if let Some(size_bytes) = asked
        .and_then(|text| text.parse().ok())
        .filter(|&bytes| bytes > 0)
    {
        let mut memory = HugePages::new(size_bytes)?;
        memory
            .iter_mut()
            .step_by(PAGE_BYTES)
            .for_each(|byte| *byte = 1);
    }
    Ok(())
}

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed memory that no one has touched yet; starts on a huge page.
pub struct HugePages {
    map: *mut libc::c_void,
    map_bytes: usize,
    start: *mut u8,
    size_bytes: usize,
}

impl HugePages {
    /// `size_bytes`, rounded up to whole huge pages.
    pub fn new(size_bytes: usize) -> io::Result<HugePages> {
        let size_bytes = size_bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let map_bytes = size_bytes + HUGE_PAGE_BYTES;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous map at an address of the kernel's choice touches no memory that exists.
        let map = unsafe { libc::mmap(ptr::null_mut(), map_bytes, protection, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let to_boundary = map.addr().next_multiple_of(HUGE_PAGE_BYTES) - map.addr();
        // SAFETY: the map is one huge page longer than `size_bytes`, so start and end lie in it.
        let start = unsafe { map.cast::<u8>().add(to_boundary) };
        // SAFETY: the range lies in the map made above; advice changes no bytes. A refusal only makes it slower.
        unsafe { libc::madvise(start.cast(), size_bytes, libc::MADV_HUGEPAGE) };
        Ok(HugePages {
            map,
            map_bytes,
            start,
            size_bytes,
        })
    }
}

impl Deref for HugePages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `size_bytes` are a range of the live map, zeroed by the kernel, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start, self.size_bytes) }
    }
}

impl DerefMut for HugePages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `self` is borrowed mutably, so nothing else sees the range.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.size_bytes) }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // SAFETY: this is the map that `new` made, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.map, self.map_bytes) };
    }
}
