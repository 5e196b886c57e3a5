//! The bytes of one tensor, and what keeps them alive.

use std::any::Any;
use std::sync::Arc;

use tensorhold::{Buffer, Map, Result};

/// Writable bytes that live as long as this does.
pub(crate) struct Memory {
    ptr: *mut u8,
    len: usize,
    owner: Owner,
    device: DlDevice,
}

/// A device in DLPack's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DlDevice {
    pub(crate) kind: i32,
    pub(crate) index: i32,
}

impl DlDevice {
    pub(crate) const CPU: DlDevice = DlDevice { kind: 1, index: 0 };

    pub(crate) fn cuda(index: i32) -> DlDevice {
        DlDevice { kind: 2, index }
    }

    pub(crate) fn rocm(index: i32) -> DlDevice {
        DlDevice { kind: 10, index }
    }
}

/// What keeps bytes alive; it is held, never read.
pub(crate) enum Owner {
    /// A private map of a file: writing to it copies the page and never reaches the file.
    Map(#[allow(dead_code)] Arc<Map>),
    /// Memory of their own.
    Owned(#[allow(dead_code)] Buffer),
    /// What keeps memory of a device.
    Device(#[allow(dead_code)] Arc<dyn Any + Send + Sync>),
    /// An object that exports a buffer.
    Buffer(#[allow(dead_code)] Arc<crate::buffer::View>),
}

// SAFETY: the bytes belong to whoever holds the `Memory`, and every owner may be dropped on any thread.
unsafe impl Send for Memory {}
// SAFETY: `Memory` gives no access through `&self` but its address.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` bytes of `map` from `start` on; `None` where the map is shorter.
    pub(crate) fn of_map(map: &Arc<Map>, start: u64, len: u64) -> Option<Memory> {
        let start = usize::try_from(start).ok()?;
        let len = usize::try_from(len).ok()?;
        if start.checked_add(len)? > map.len() {
            return None;
        }
        // SAFETY: the range was just found to lie inside the map.
        let ptr = unsafe { map.as_ptr().add(start) };
        Some(Memory {
            ptr,
            len,
            owner: Owner::Map(Arc::clone(map)),
            device: DlDevice::CPU,
        })
    }

    /// `len` bytes of a writable buffer from `start` on; `None` where the buffer is shorter.
    pub(crate) fn of_buffer(
        view: &Arc<crate::buffer::View>,
        start: u64,
        len: u64,
    ) -> Option<Memory> {
        let start = usize::try_from(start).ok()?;
        let len = usize::try_from(len).ok()?;
        if start.checked_add(len)? > view.len() {
            return None;
        }
        // SAFETY: the range was just found to lie inside the buffer.
        let ptr = unsafe { view.as_ptr().add(start) };
        Some(Memory {
            ptr,
            len,
            owner: Owner::Buffer(Arc::clone(view)),
            device: DlDevice::CPU,
        })
    }

    /// All of `buffer`.
    pub(crate) fn of_owned(buffer: Buffer) -> Memory {
        Memory {
            ptr: buffer.as_ptr(),
            len: buffer.len(),
            owner: Owner::Owned(buffer),
            device: DlDevice::CPU,
        }
    }

    /// `len` bytes of a device from `address` on, in memory of `owner`.
    pub(crate) fn of_device(
        address: usize,
        len: usize,
        owner: Arc<dyn Any + Send + Sync>,
        device: DlDevice,
    ) -> Memory {
        Memory {
            ptr: std::ptr::with_exposed_provenance_mut(address),
            len,
            owner: Owner::Device(owner),
            device,
        }
    }

    /// Memory of its own that `fill` has filled.
    pub(crate) fn filled(
        size_bytes: u64,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Memory> {
        let mut buffer = Buffer::allocate(size_bytes)?;
        fill(&mut buffer)?;
        Ok(Memory::of_owned(buffer))
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn device(&self) -> DlDevice {
        self.device
    }

    /// Whether elements of `width` bytes may be read in place.
    pub(crate) fn is_aligned(&self, width: u32) -> bool {
        self.ptr.addr().is_multiple_of(width.max(1) as usize)
    }

    /// What keeps the bytes alive; their address stays valid as long as it is held.
    pub(crate) fn into_owner(self) -> Owner {
        self.owner
    }
}
