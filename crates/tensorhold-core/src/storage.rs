//! The two ends of the path: where bytes are read from, and where they are written to.

use crate::error::{Error, Result};
use crate::extent::ByteRange;

/// Where the bytes of one file lie: a mapped or open file, memory, an object in a store.
pub trait Source: Send + Sync {
    /// The size of the whole file in bytes, as it was when it was opened.
    fn size_bytes(&self) -> u64;

    /// Fills `into` with the bytes from `position` on.
    ///
    /// # Errors
    /// `Truncated` if the file ends before `into` is full, `Io` if the system refuses.
    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()>;

    /// The whole file, where its bytes can be seen in place; `None` where they must be read.
    fn as_bytes(&self) -> Option<&[u8]> {
        None
    }

    /// Shows `use_` the bytes from `range.start` to `range.end`, where they can be seen in place for a moment; `false`
    /// if they must be read.
    ///
    /// # Errors
    /// `Truncated` if the file ends before `range` does.
    fn with_bytes(&self, range: ByteRange, use_: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(bytes) = self.as_bytes() else {
            return Ok(false);
        };
        let shown = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .and_then(|(start, end)| bytes.get(start..end));
        let shown =
            shown.ok_or_else(|| Error::truncated(range.start, range.len(), bytes.len() as u64))?;
        use_(shown);
        Ok(true)
    }
}

/// Where the bytes of one file go, from first to last.
pub trait Sink {
    /// Takes `bytes` as the next ones of the file.
    ///
    /// # Errors
    /// `Io` if the system refuses; the sink is then of no more use.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
}

impl Source for [u8] {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        let bytes = usize::try_from(position)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(into.len())?))
            .ok_or_else(|| Error::truncated(position, into.len() as u64, self.size_bytes()))?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        Some(self)
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn size_bytes(&self) -> u64 {
        (**self).size_bytes()
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        (**self).read_at(position, into)
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        (**self).as_bytes()
    }

    fn with_bytes(&self, range: ByteRange, use_: &mut dyn FnMut(&[u8])) -> Result<bool> {
        (**self).with_bytes(range, use_)
    }
}

impl Sink for alloc::vec::Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}
