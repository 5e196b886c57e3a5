//! Systems where files are read through the page cache, and in no other way.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;

pub(crate) fn is_in_memory(_file: &File) -> bool {
    false
}

pub(crate) fn reopen(_file: &File) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn open_exact(file: &File) -> io::Result<File> {
    reopen(file)
}

pub(crate) fn begin_exact(_file: &File, _n_bytes: NonZeroU64) {}

pub(crate) fn end_exact(_file: &File) {}

pub(crate) fn open_direct(_file: &File) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn open_direct_to_wait(file: &File) -> io::Result<File> {
    open_direct(file)
}

pub(crate) fn direct_alignment(_file: &File) -> Option<(usize, usize)> {
    None
}

pub(crate) fn cached_bytes(_file: &File, _position: u64, _size_bytes: u64) -> Option<u64> {
    None
}

pub(crate) fn counted_bytes(_file: &File, _position: u64, _size_bytes: u64) -> Option<u64> {
    None
}

/// Files are written through the page cache here.
pub(crate) fn open_direct_for_writing(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn start_writing_back(_file: &File, _position: u64, _size_bytes: usize) {}

pub(crate) fn free_memory_bytes() -> Option<u64> {
    None
}

pub(crate) fn take_lease(_file: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn has_lease(_file: &File) -> bool {
    false
}

pub(crate) fn release_lease(_file: &File) {}

pub(crate) fn populate(_bytes: &[u8]) -> io::Result<()> {
    Ok(())
}

pub(crate) fn give_back(_file: &File, _position: u64, _size_bytes: u64) {}

/// # Safety
/// None is needed; it has the contract of the systems that do it.
pub(crate) unsafe fn forget(_start: *const u8, _len: usize) {}
