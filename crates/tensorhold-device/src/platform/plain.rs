//! Systems without devices: nothing is found, so that nothing else is asked for.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::ptr::NonNull;

/// Whether devices can be used on this system at all.
pub(crate) const HAS_DEVICES: bool = false;

/// A shared library, of which there is none here.
pub(crate) enum Library {}

impl Library {
    /// Refuses.
    ///
    /// # Safety
    /// Nothing is loaded.
    pub(crate) unsafe fn open(_path: &str) -> Result<Library, String> {
        Err("not on this system".to_owned())
    }

    pub(crate) fn open_loaded(_path: &str) -> Result<Library, String> {
        Err("not on this system".to_owned())
    }

    pub(crate) fn symbol(&self, _name: &str) -> Option<*mut c_void> {
        match *self {}
    }
}

pub(crate) fn loaded_libraries() -> Vec<String> {
    Vec::new()
}

pub(crate) fn numa_node(_bus_id: &str) -> Option<u32> {
    None
}

pub(crate) fn map_memory(_size_bytes: usize) -> Option<NonNull<u8>> {
    None
}

/// # Safety
/// There is no map to be given.
pub(crate) unsafe fn unmap_memory(_start: NonNull<u8>, _size_bytes: usize) {}

/// # Safety
/// There is no map to be given.
pub(crate) unsafe fn prefer_node(_start: NonNull<u8>, _size_bytes: usize, _node: u32) {}

/// # Safety
/// There is no map to be given.
pub(crate) unsafe fn prefault(_start: NonNull<u8>, _size_bytes: usize) {}

pub(crate) fn descriptor(_file: &File) -> c_int {
    -1
}

pub(crate) fn lacks_storage_device() -> bool {
    false
}

/// Nothing closes it here.
pub(crate) struct StandardInput;

impl StandardInput {
    pub(crate) fn keep() -> StandardInput {
        StandardInput
    }
}
