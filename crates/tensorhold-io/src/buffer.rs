//! Memory that tensors are read into: owned bytes, parts of which can be lent to several threads.

mod parts;
mod pool;
mod region;
mod slab;

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use tensorhold_core::{Error, ErrorKind, Result};

use region::Region;
use slab::Slab;

pub use parts::Part;
pub use pool::{release_pool, set_pool_limit};

/// What every buffer starts at a multiple of: a cache line, and the widest vector register.
const ALIGNMENT: usize = 64;

/// From this size on memory comes in pages of its own, huge ones where there are such; below, from Rust's allocator.
const LARGE_BYTES: usize = 2 << 20;

/// Bytes with one owner.
///
/// They can always be read: fresh ones are zero, recycled ones hold whatever was there before.
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

/// What must live as long as the bytes, and goes with them.
enum Owner {
    /// There are no bytes.
    Nobody,
    Region {
        _region: Region,
    },
    Slab(Arc<Slab>),
    Given {
        _owner: Box<dyn Any + Send>,
    },
}

// SAFETY: a buffer is the only way to its bytes, as `Box<[u8]>` is: `start` comes from a region that it owns, from a
// stretch of a slab that is given out once, or from `from_raw`, whose caller vouches for it. Region and
// slab are themselves `Send`; the given owner is by its type.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives out only `&[u8]`. The given owner, which may not be `Sync`, cannot be reached.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `size_bytes` bytes, at an address that is a multiple of 64. Large ones lie in huge pages where the system has them, and their
    /// memory is kept for the next buffer when they are dropped, up to the [limit](set_pool_limit).
    ///
    /// # Errors
    /// `NoMemory` where the system has not so much.
    pub fn allocate(size_bytes: u64) -> Result<Buffer> {
        let len = length(size_bytes)?;
        if len == 0 {
            return Ok(Buffer::empty());
        }
        let region = Region::allocate(len).ok_or_else(|| no_memory(size_bytes))?;
        Ok(Buffer {
            start: region.start(),
            len,
            owner: Owner::Region { _region: region },
        })
    }

    /// One buffer of each of the sizes, each as from [`allocate`](Buffer::allocate), but those under 16 MiB share their memory: it
    /// goes back to the system when the last of them is dropped, and whole pages of it as each is. It is the faster way
    /// to many, as no part of a huge page is wasted or made of small ones.
    ///
    /// # Errors
    /// `NoMemory` where the system has not so much.
    pub fn allocate_many(sizes_bytes: &[u64]) -> Result<Vec<Buffer>> {
        slab::allocate_many(sizes_bytes)
    }

    /// The `len` bytes from `start` on, which `owner` keeps alive: it is dropped with the buffer.
    ///
    /// # Safety
    /// Until `owner` is dropped, the bytes must be valid for reads and writes, hold initialized values, and be reached by
    /// nobody but this buffer. `len` is at most `isize::MAX`.
    #[must_use]
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize, owner: Box<dyn Any + Send>) -> Buffer {
        Buffer {
            start,
            len,
            owner: Owner::Given { _owner: owner },
        }
    }

    /// The first byte, valid for reads and writes of [`len`](Buffer::len) bytes while the buffer lives and no slice of it is in use.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts of the buffer that `ranges` name, in their order, to be filled by different threads. The last to
    /// be [joined](Part::join) gives the buffer back; with no ranges it is dropped here.
    ///
    /// # Panics
    /// If the ranges are not ascending, overlap, or pass the end.
    #[must_use]
    pub fn split(self, ranges: &[Range<usize>]) -> Vec<Part> {
        parts::split(self, ranges)
    }

    fn empty() -> Buffer {
        let start = NonNull::new(ptr::without_provenance_mut(ALIGNMENT));
        Buffer {
            start: start.expect("64 is not zero"),
            len: 0,
            owner: Owner::Nobody,
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are valid, initialized and this buffer's alone, as said at `Send`; `len` is at most `isize::MAX`, as
        // regions and slabs come from allocations and `from_raw` asks for it. For no bytes, `start` is not null and aligned.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the borrow is exclusive, and no part is out, as `split` takes the buffer.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Owner::Slab(slab) = &self.owner
            && Arc::strong_count(slab) > 1
        {
            // SAFETY: this stretch of the slab was given to this buffer alone, which is used no more.
            unsafe { slab.discard(self.start, self.len) };
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes at {:p})", self.len, self.start)
    }
}

fn length(size_bytes: u64) -> Result<usize> {
    usize::try_from(size_bytes).map_err(|_| no_memory(size_bytes))
}

fn no_memory(size_bytes: u64) -> Error {
    Error::new(
        ErrorKind::NoMemory,
        format!("no memory for {size_bytes} bytes"),
    )
}
