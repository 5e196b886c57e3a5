//! macOS, the BSDs and the rest; compiled for macOS, not run.

use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr::NonNull;

#[cfg(target_vendor = "apple")]
pub(crate) fn is_network(file: &File) -> bool {
    /// `MNT_LOCAL` of `sys/mount.h`: the file system is stored locally.
    const LOCAL: u32 = 0x1000;
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_flags & LOCAL == 0)
}

#[cfg(not(target_vendor = "apple"))]
pub(crate) fn is_network(_file: &File) -> bool {
    false
}

/// Space is not set aside here; a full disk shows while writing.
pub(crate) fn allocate(_file: &File, _size_bytes: u64) -> io::Result<()> {
    Ok(())
}

pub(crate) fn free_bytes(file: &File) -> Option<u64> {
    let system = rustix::fs::fstatvfs(file).ok()?;
    (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}

/// Access lists are not carried over here.
pub(crate) fn access_list(_path: &Path) -> Option<Vec<u8>> {
    None
}

pub(crate) fn set_access_list(_file: &File, _list: &[u8]) -> io::Result<()> {
    Ok(())
}

/// The size of pages is the system's choice here.
pub(crate) fn prefer_huge_pages(_start: NonNull<u8>, _size_bytes: usize) {}

/// Pages are given back with the whole map.
///
/// # Safety
/// None is needed; it has the contract of the systems that do it.
pub(crate) unsafe fn discard_memory(_start: NonNull<u8>, _size_bytes: usize) {}
