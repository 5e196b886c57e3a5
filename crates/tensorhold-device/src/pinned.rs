//! Host memory that devices copy from, a segment of several slots at a time.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use tensorhold_core::{Error, ErrorKind, Result};

use crate::device::Device;
use crate::platform;
use crate::slot::Slot;
use crate::sys;

/// Memory for some slots, unpinned and freed on drop.
#[derive(Debug)]
pub(crate) struct Segment {
    start: NonNull<u8>,
    n_slots: usize,
    origin: Origin,
    /// Where it was pinned, and what it is near to.
    device: Device,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Pages of ours that the runtime has pinned.
    Registered,
    /// The runtime's own pinned memory.
    Allocated,
    /// Pages of ours that nobody would pin.
    Plain,
}

// SAFETY: a segment is the only way to its memory, which any thread may use and free.
unsafe impl Send for Segment {}

impl Segment {
    /// Pinned memory for up to `n_slots` slots, for less where no more can be pinned; `None` where none can.
    pub(crate) fn pinned(device: Device, n_slots: usize) -> Option<Segment> {
        let halves = || std::iter::successors(Some(n_slots), |n| Some(n / 2).filter(|&n| n > 0));
        let registered = || halves().find_map(|n| Segment::registered(device, n));
        let allocated = || halves().find_map(|n| Segment::allocated(device, n));
        registered().or_else(allocated)
    }

    /// Memory for `n_slots` slots that is not pinned: copies from it are slow.
    ///
    /// # Errors
    /// `NoMemory` where the system has none.
    pub(crate) fn plain(device: Device, n_slots: usize) -> Result<Segment> {
        Segment::mapped(device, n_slots).ok_or_else(|| {
            let size_bytes = n_slots * Slot::BYTES;
            Error::new(
                ErrorKind::NoMemory,
                format!("no memory for {size_bytes} bytes to copy from"),
            )
        })
    }

    fn mapped(device: Device, n_slots: usize) -> Option<Segment> {
        let size_bytes = n_slots * Slot::BYTES;
        let start = platform::map_memory(size_bytes)?;
        // SAFETY: the map was just made with this size, and nobody knows of it.
        unsafe {
            if let Some(node) = device.numa_node() {
                platform::prefer_node(start, size_bytes, node);
            }
            platform::prefault(start, size_bytes);
        }
        Some(Segment {
            start,
            n_slots,
            origin: Origin::Plain,
            device,
        })
    }

    fn registered(device: Device, n_slots: usize) -> Option<Segment> {
        let mut segment = Segment::mapped(device, n_slots)?;
        let (start, size_bytes) = (segment.address(), segment.size_bytes());
        device
            // SAFETY: the bytes are a map of this segment's, which unpins them before it goes.
            .with(|functions| unsafe {
                functions.host_register(with_address(start), size_bytes, sys::PORTABLE)
            })
            .ok()?;
        segment.origin = Origin::Registered;
        Some(segment)
    }

    fn allocated(device: Device, n_slots: usize) -> Option<Segment> {
        let size_bytes = n_slots * Slot::BYTES;
        let address = device
            .with(|functions| {
                let mut start = ptr::null_mut();
                // SAFETY: `start` is alive and of the type that is written.
                unsafe { functions.host_alloc(&raw mut start, size_bytes, sys::PORTABLE) }?;
                Ok(start.expose_provenance())
            })
            .ok()?;
        let start = NonNull::new(with_address(address).cast::<u8>())?;
        // SAFETY: the runtime gave that many bytes, which are writable. They may never have been written.
        unsafe { start.write_bytes(0, size_bytes) };
        Some(Segment {
            start,
            n_slots,
            origin: Origin::Allocated,
            device,
        })
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    pub(crate) fn n_slots(&self) -> usize {
        self.n_slots
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.n_slots * Slot::BYTES
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.origin != Origin::Plain
    }

    /// The first byte of each of its slots.
    pub(crate) fn slots(&self) -> impl Iterator<Item = NonNull<u8>> {
        // SAFETY: the segment has that many slots, one behind the other.
        (0..self.n_slots).map(|index| unsafe { self.start.add(index * Slot::BYTES) })
    }

    /// Its address, for a call that another thread may make.
    fn address(&self) -> usize {
        self.start.as_ptr().expose_provenance()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let start = self.address();
        match self.origin {
            Origin::Registered => {
                let unpinned = self
                    .device
                    // SAFETY: the bytes were pinned when the segment was made, and no copy from them is under way.
                    .with(|functions| unsafe { functions.host_unregister(with_address(start)) });
                if unpinned.is_err() {
                    // The device may still reach the pages: they stay.
                    return;
                }
                // SAFETY: the pages were mapped with this size, and no slot of them is left.
                unsafe { platform::unmap_memory(self.start, self.size_bytes()) };
            }
            Origin::Allocated => {
                // SAFETY: the runtime gave it, and no slot of it is left. Where it cannot be freed, it stays.
                let _ = self
                    .device
                    .with(|functions| unsafe { functions.free_host(with_address(start)) });
            }
            // SAFETY: the pages were mapped with this size, and no slot of them is left.
            Origin::Plain => unsafe { platform::unmap_memory(self.start, self.size_bytes()) },
        }
    }
}

/// The pointer whose address was exposed.
pub(crate) fn with_address(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}
