//! The bytes of one entry, unpacked and held to its size and checksum.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};
use tensorhold_core::{ByteRange, Error, Result, Source};

use super::directory::refusal;
use super::{Method, ZipEntry};
use crate::limits::Limits;

const WINDOW_BYTES: usize = 64 * 1024;

impl Method {
    /// The number that stands for it in headers.
    pub(super) fn number(self) -> u16 {
        match self {
            Method::Stored => 0,
            Method::Deflated => 8,
        }
    }
}

impl ZipEntry {
    /// The unpacked bytes of this entry of `source`, a piece at a time.
    #[must_use]
    pub fn reader<'a>(&'a self, source: &'a dyn Source) -> EntryReader<'a> {
        EntryReader {
            entry: self,
            source,
            position: self.data.start,
            n_given: 0,
            crc32: crc32fast::Hasher::new(),
            inflate: (self.method == Method::Deflated).then(Inflate::new),
        }
    }

    /// All unpacked bytes of this entry of `source`.
    ///
    /// # Errors
    /// `ForeignFormat` where they are over the limit for bytes in memory, or not what size and checksum say;
    /// `Truncated` or `Io` where they cannot be read.
    pub fn bytes(&self, source: &dyn Source, limits: &Limits) -> Result<Vec<u8>> {
        self.check_limits(limits)?;
        let n_bytes = usize::try_from(self.size_bytes)
            .map_err(|_| self.refuse("it is larger than the memory of this machine"))?;
        let mut bytes = vec![0; n_bytes];
        let mut reader = self.reader(source);
        let mut n_filled = 0;
        while n_filled < n_bytes {
            n_filled += reader.read(&mut bytes[n_filled..])?;
        }
        reader.finish()?;
        Ok(bytes)
    }

    fn check_limits(&self, limits: &Limits) -> Result<()> {
        let most = self.data.len().saturating_mul(limits.inflate_ratio);
        if self.size_bytes > limits.inflated_bytes {
            let most = limits.inflated_bytes;
            Err(self.refuse(&format!(
                "its {} bytes are over the limit of {most}",
                self.size_bytes
            )))
        } else if self.method == Method::Deflated && self.size_bytes > most {
            let what = format!(
                "it unpacks from {} bytes to {}, over the limit of {} times",
                self.data.len(),
                self.size_bytes,
                limits.inflate_ratio
            );
            Err(self.refuse(&what))
        } else {
            Ok(())
        }
    }

    fn refuse(&self, what: &str) -> Error {
        refusal(&self.name, what, self.data)
    }
}

/// Gives the unpacked bytes of an entry from first to last, in a fixed amount of memory.
pub struct EntryReader<'a> {
    entry: &'a ZipEntry,
    source: &'a dyn Source,
    /// The position of the next packed byte.
    position: u64,
    n_given: u64,
    crc32: crc32fast::Hasher,
    inflate: Option<Inflate>,
}

struct Inflate {
    state: Box<InflateState>,
    packed: Vec<u8>,
    /// The next byte of `packed`.
    at: usize,
}

impl Inflate {
    fn new() -> Inflate {
        Inflate {
            state: InflateState::new_boxed(DataFormat::Raw),
            packed: Vec::new(),
            at: 0,
        }
    }
}

impl EntryReader<'_> {
    /// Fills the beginning of `into` with the next bytes and says how many; 0 once all were given (or if `into` is
    /// empty).
    ///
    /// # Errors
    /// `ForeignFormat` where the bytes are not deflated data of the size that the headers give, or, with the last of
    /// them, where they do not have its checksum; `Truncated` or `Io` where they cannot be read.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let left = self.entry.size_bytes - self.n_given;
        let n_wanted = left.min(into.len() as u64) as usize;
        if n_wanted == 0 {
            return Ok(0);
        }
        let into = &mut into[..n_wanted];
        let n_bytes = match self.inflate {
            None => self.read_stored(into)?,
            Some(_) => self.read_deflated(into)?,
        };
        self.crc32.update(&into[..n_bytes]);
        self.n_given += n_bytes as u64;
        if self.n_given == self.entry.size_bytes {
            self.finish()?;
        }
        Ok(n_bytes)
    }

    /// Checks, once all bytes were given, that there are no more of them and that they have the checksum.
    ///
    /// # Errors
    /// `ForeignFormat` where that is not so.
    pub fn finish(&mut self) -> Result<()> {
        if self.n_given < self.entry.size_bytes {
            return Err(self.entry.refuse("it was not read to its end"));
        }
        if self.inflate.is_some() {
            let mut more = [0; 1];
            if self.read_deflated(&mut more)? > 0 {
                return Err(self
                    .entry
                    .refuse("it unpacks to more bytes than its headers say"));
            }
        }
        let found = self.crc32.clone().finalize();
        if found != self.entry.crc32 {
            let what = format!(
                "its bytes have the checksum {found:08x}, its headers say {:08x}",
                self.entry.crc32
            );
            let error = self.entry.refuse(&what);
            return Err(error.with_hint("the file was damaged or changed; fetch it again"));
        }
        Ok(())
    }

    fn read_stored(&mut self, into: &mut [u8]) -> Result<usize> {
        self.source.read_at(self.position, into)?;
        self.position += into.len() as u64;
        Ok(into.len())
    }

    /// The next unpacked bytes; none once the stream has ended, which it must exactly where the entry does.
    fn read_deflated(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            self.read_packed()?;
            let Some(inflater) = &mut self.inflate else {
                return Ok(0);
            };
            let packed = &inflater.packed[inflater.at..];
            let done = inflate(&mut inflater.state, packed, into, MZFlush::None);
            inflater.at += done.bytes_consumed;
            let is_used_up = inflater.at == inflater.packed.len();
            let is_out = is_used_up && self.position == self.entry.data.end;
            let n_bytes = done.bytes_written;
            match done.status {
                Ok(_) | Err(MZError::Buf) if n_bytes > 0 => return Ok(n_bytes),
                Ok(MZStatus::StreamEnd) => return self.end_of_stream(is_out),
                Ok(_) | Err(MZError::Buf) if !is_out && (done.bytes_consumed > 0 || is_used_up) => {
                }
                _ => {
                    return Err(self
                        .entry
                        .refuse("its deflated data is damaged or ends early"));
                }
            }
        }
    }

    /// The deflated data has ended: so must the packed bytes, and the unpacked ones.
    fn end_of_stream(&self, is_out: bool) -> Result<usize> {
        if !is_out {
            Err(self
                .entry
                .refuse("bytes follow the end of its deflated data"))
        } else if self.n_given < self.entry.size_bytes {
            Err(self
                .entry
                .refuse("it unpacks to fewer bytes than its headers say"))
        } else {
            Ok(0)
        }
    }

    /// Reads packed bytes, where all that were read are used up.
    fn read_packed(&mut self) -> Result<()> {
        let Some(inflater) = &mut self.inflate else {
            return Ok(());
        };
        let left = ByteRange::new(self.position, self.entry.data.end);
        if inflater.at < inflater.packed.len() || left.is_empty() {
            return Ok(());
        }
        inflater
            .packed
            .resize(left.len().min(WINDOW_BYTES as u64) as usize, 0);
        inflater.at = 0;
        self.source.read_at(left.start, &mut inflater.packed)?;
        self.position += inflater.packed.len() as u64;
        Ok(())
    }
}
