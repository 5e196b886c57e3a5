//! The bytes of one tensor, and what keeps them alive.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use tensorhold::{Buffer, Error, ErrorKind, Map, Result};

/// As much as any vector instruction of a framework wants.
const ALIGN: usize = 64;

/// Writable bytes that live as long as this does.
pub(crate) struct Memory {
    ptr: *mut u8,
    len: usize,
    owner: Owner,
}

/// What keeps bytes alive; it is held, never read.
pub(crate) enum Owner {
    /// A private map of a file: writing to it copies the page and never reaches the file.
    Map(#[allow(dead_code)] Arc<Map>),
    /// Memory of their own.
    Allocation(#[allow(dead_code)] Allocation),
    /// Memory that a transfer filled.
    Owned(#[allow(dead_code)] Buffer),
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
        })
    }

    /// All of `buffer`.
    pub(crate) fn of_owned(buffer: Buffer) -> Memory {
        Memory {
            ptr: buffer.as_ptr(),
            len: buffer.len(),
            owner: Owner::Owned(buffer),
        }
    }

    /// `size_bytes` zeros.
    pub(crate) fn zeroed(size_bytes: u64) -> Result<Memory> {
        let refused = || {
            Error::new(
                ErrorKind::NoMemory,
                format!("no memory for {size_bytes} bytes"),
            )
        };
        let len = usize::try_from(size_bytes).map_err(|_| refused())?;
        let allocation = Allocation::zeroed(len).ok_or_else(refused)?;
        Ok(Memory {
            ptr: allocation.ptr.as_ptr(),
            len,
            owner: Owner::Allocation(allocation),
        })
    }

    /// Memory of its own that `fill` has filled.
    pub(crate) fn filled(
        size_bytes: u64,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Memory> {
        let memory = Memory::zeroed(size_bytes)?;
        // SAFETY: the allocation was just made, has `len` initialised bytes, and nobody else knows it.
        fill(unsafe { std::slice::from_raw_parts_mut(memory.ptr, memory.len) })?;
        Ok(memory)
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    pub(crate) fn len(&self) -> usize {
        self.len
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

/// Aligned bytes from the allocator.
pub(crate) struct Allocation {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation is owned by this value alone.
unsafe impl Send for Allocation {}
// SAFETY: nothing is read or written through `&Allocation`.
unsafe impl Sync for Allocation {}

impl Allocation {
    fn zeroed(len: usize) -> Option<Allocation> {
        let layout = Layout::from_size_align(len.max(1), ALIGN).ok()?;
        // SAFETY: the layout has at least one byte.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Allocation { ptr, layout })
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from `alloc_zeroed` with this layout, and is freed once.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}
