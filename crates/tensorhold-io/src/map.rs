//! A file as memory.

use std::fs::File;
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use tensorhold_core::{Error, Result, Source};

use crate::error::cannot;
use crate::interrupt::retried;
use crate::live::Live;
use crate::platform;

/// A whole file as private memory: what is written to it stays in this process and never reaches the file.
///
/// The file must keep its length for as long as the map lives. Bytes that another process writes to the
/// file may show in pages that were not touched yet; where the file was cut, touching them ends the
/// process with `SIGBUS`. Replacing the file, as [`AtomicFile`](crate::AtomicFile) does, is safe: the map keeps the old one.
/// Where it could only overwrite the file, it refuses to while a map of it lives in the same process.
#[derive(Debug)]
pub struct Map {
    /// `None` for an empty file, which no system maps.
    memory: Option<MmapRaw>,
    /// Comes last, so that it goes only when the memory is unmapped.
    _live: Option<Live>,
}

impl Map {
    /// All of `file`, copy on write. Nothing is read yet, and no swap is set aside, so that a file larger than
    /// memory can be mapped.
    ///
    /// # Errors
    /// `Io` where the system refuses: the file system knows no maps, or the address space is used up.
    pub fn open(file: &File) -> Result<Map> {
        let identity = retried(|| platform::identity(file))
            .map_err(|error| cannot(&error, "identify the file"))?;
        let size_bytes = identity.size_bytes;
        if size_bytes == 0 {
            return Ok(Map {
                memory: None,
                _live: None,
            });
        }
        let live = Live::mark(&identity);
        let refused = |error: std::io::Error| -> Error {
            cannot(&error, &format!("map {size_bytes} bytes"))
                .with_hint("read the file instead, with `backend=\"pread\"`")
        };
        let length = usize::try_from(size_bytes)
            .map_err(|_| refused(std::io::ErrorKind::OutOfMemory.into()))?;
        // SAFETY: the map is private, so this process alone writes to it, and only through the raw pointer,
        // which is unsafe to use. That nobody cuts or rewrites the file is the documented duty of whoever
        // keeps the map; no system offers a map without it.
        let memory = unsafe {
            MmapOptions::new()
                .len(length)
                .no_reserve_swap()
                .map_copy(file)
        };
        Ok(Map {
            memory: Some(memory.map_err(refused)?.into()),
            _live: Some(live),
        })
    }

    /// The first byte. It is valid for [`len`](Map::len) bytes while the map lives; it may be written through, but not while
    /// a slice from [`as_bytes`](Source::as_bytes) covers the same bytes.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        match &self.memory {
            Some(memory) => memory.as_mut_ptr(),
            None => NonNull::dangling().as_ptr(),
        }
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.as_ref().map_or(0, MmapRaw::len)
    }

    /// Whether the file was empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the file, in place.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the pointer is valid for `len` bytes, readable and initialized, for as long as `self` is
        // borrowed: `memory` unmaps only on drop. Its length is at most `isize::MAX`, which `memmap2`
        // checks. For an empty map it is dangling, aligned and not null, as an empty slice asks for.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

impl Source for Map {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        self.as_bytes().read_at(position, into)
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(self.as_bytes())
    }
}
