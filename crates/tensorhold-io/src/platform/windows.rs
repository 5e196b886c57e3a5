//! Windows; compiled, not run.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::ptr::NonNull;

use crate::open::FileIdentity;

/// Windows files inherit their rules from the folder; nothing is carried over.
#[derive(Debug, Clone)]
pub(crate) struct Attributes;

/// Whom a new file is open to: always whom the folder says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Privacy {
    Private,
    Ordinary,
}

pub(crate) fn open_without_blocking(path: &Path) -> io::Result<File> {
    File::open(path)
}

pub(crate) fn open_for_writing(path: &Path, _metadata: &Metadata) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Writes wait by themselves.
pub(crate) fn wait_for_room(_file: &File) {}

pub(crate) fn create_new(path: &Path, _privacy: Privacy) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

pub(crate) fn kind_of(metadata: &Metadata) -> (&'static str, Option<i32>) {
    /// `ERROR_DIRECTORY_NOT_SUPPORTED` of `winerror.h`.
    const DIRECTORY: i32 = 336;
    if metadata.is_dir() {
        ("a directory", Some(DIRECTORY))
    } else {
        ("no regular file", None)
    }
}

pub(crate) fn permission_hint(_path: &Path, _error: &io::Error) -> Option<String> {
    None
}

pub(crate) fn identity(file: &File) -> io::Result<FileIdentity> {
    /// From 1601, where Windows begins to count, to 1970, in steps of 100 ns.
    const EPOCH: i128 = 116_444_736_000_000_000;
    let metadata = file.metadata()?;
    let information = winapi_util::file::information(file)?;
    Ok(FileIdentity {
        device: information.volume_serial_number(),
        inode: information.file_index(),
        size_bytes: metadata.len(),
        modified_ns: (i128::from(metadata.last_write_time()) - EPOCH) * 100,
        changed_ns: 0,
    })
}

/// Links were followed by then, so that there is nothing to compare.
pub(crate) fn is_same_file(_a: &Metadata, _b: &Metadata) -> bool {
    true
}

pub(crate) fn read_at(file: &File, into: &mut [u8], position: u64) -> io::Result<usize> {
    file.seek_read(into, position)
}

pub(crate) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
    file.seek_write(bytes, position)
}

pub(crate) fn require_writable(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path)?.permissions().readonly() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(()),
    }
}

pub(crate) fn attributes(_path: &Path, _metadata: &Metadata) -> Attributes {
    Attributes
}

pub(crate) fn set_attributes(_file: &File, _attributes: &Attributes) -> io::Result<()> {
    Ok(())
}

pub(crate) fn close(file: File) -> io::Result<()> {
    drop(file);
    Ok(())
}

/// Windows has no such call; the file system keeps its own journal.
pub(crate) fn sync_directory(_folder: &Path) -> io::Result<()> {
    Ok(())
}

pub(crate) fn is_network(_file: &File) -> bool {
    false
}

pub(crate) fn allocate(_file: &File, _size_bytes: u64) -> io::Result<()> {
    Ok(())
}

pub(crate) fn free_bytes(_file: &File) -> Option<u64> {
    None
}

/// What the system says when a disk is full.
pub(crate) fn no_space() -> io::Error {
    /// `ERROR_DISK_FULL` of `winerror.h`.
    const DISK_FULL: i32 = 112;
    io::Error::from_raw_os_error(DISK_FULL)
}

/// Memory comes from Rust's allocator here.
pub(crate) fn map_memory(_size_bytes: usize, _alignment: usize) -> io::Result<NonNull<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// # Safety
/// None is needed, as nothing is mapped here; it has the contract of the systems that do it.
pub(crate) unsafe fn unmap_memory(_start: NonNull<u8>, _size_bytes: usize) {}

/// # Safety
/// None is needed, as nothing is mapped here; it has the contract of the systems that do it.
pub(crate) unsafe fn discard_memory(_start: NonNull<u8>, _size_bytes: usize) {}
