//! A file read at positions.

use std::fs::{File, Metadata};
use std::io;
use std::num::NonZeroU64;

use tensorhold_core::{ByteRange, Error, Result, Source};

use crate::error::cannot;
use crate::{interrupt, platform};

/// So much is fetched before it is known how much is wanted: most headers are no longer, and a disk takes as long for a page.
const FIRST_BYTES: NonZeroU64 = NonZeroU64::new(16 << 10).expect("it is not zero");

/// An open file that is read at positions, by any number of threads at once.
///
/// Unlike a map, a file that is cut while it is read gives an error.
#[derive(Debug)]
pub struct Pread {
    file: File,
    size_bytes: u64,
}

impl Pread {
    /// `file`, with the size it has now.
    ///
    /// # Errors
    /// `Io` if the system does not tell the size.
    pub fn new(file: File) -> Result<Pread> {
        let size_bytes = interrupt::retried(|| file.metadata())
            .map_err(|error| cannot(&error, "ask for the size"))?
            .len();
        Ok(Pread { file, size_bytes })
    }

    /// What `read` gives, which reads the first bytes of the file: the system fetches them, and reads nothing ahead.
    ///
    /// Linux leaves a mark on a page that it has read ahead. Whoever comes to it makes it go on, as far as for one who reads all of the
    /// file; and what lies behind the first bytes may be wanted by somebody who wants little else.
    pub fn with_first<T>(&self, read: impl FnOnce(&Pread) -> T) -> T {
        platform::begin_exact(&self.file, FIRST_BYTES);
        let result = read(self);
        platform::end_exact(&self.file);
        result
    }

    /// The same with another descriptor of the same file.
    pub(crate) fn by(&self, file: File) -> Pread {
        Pread {
            file,
            size_bytes: self.size_bytes,
        }
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn ended(&self, position: u64, wanted: u64) -> Error {
        let now_bytes = self.file.metadata().map_or(0, |metadata| metadata.len());
        let error = Error::truncated(position, wanted, now_bytes);
        if now_bytes < self.size_bytes {
            error.with_hint(format!(
                "the file shrank from {} to {now_bytes} bytes since it was opened; open it again once it is whole",
                self.size_bytes
            ))
        } else {
            error
        }
    }
}

impl Source for Pread {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        self.read_by(platform::read_at, position, into)
    }
}

impl Pread {
    /// As `read_at`, by the system call that is given.
    pub(crate) fn read_by(
        &self,
        call: fn(&File, &mut [u8], u64) -> io::Result<usize>,
        position: u64,
        into: &mut [u8],
    ) -> Result<()> {
        let wanted = into.len() as u64;
        let mut n_read = 0;
        while n_read < into.len() {
            interrupt::check()?;
            let at = position.saturating_add(n_read as u64);
            let piece = into
                .len()
                .min(n_read.saturating_add(interrupt::PIECE_BYTES));
            match call(&self.file, &mut into[n_read..piece], at) {
                Ok(0) => return Err(self.ended(position, wanted)),
                Ok(n) => n_read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let end = position.saturating_add(wanted);
                    return Err(cannot(&error, "read").with_bytes(ByteRange::new(at.min(end), end)));
                }
            }
        }
        self.require_reach(position, wanted)
    }

    /// Fails if the file does not reach to the end of what was read: whoever cuts it clears the rest of its last page, which a read
    /// that was on its way then takes for bytes of the file. By then the size has changed.
    fn require_reach(&self, position: u64, wanted: u64) -> Result<()> {
        let is_cut = |metadata: Metadata| metadata.len() < position.saturating_add(wanted);
        match wanted > 0 && self.file.metadata().is_ok_and(is_cut) {
            true => Err(self.ended(position, wanted)),
            false => Ok(()),
        }
    }
}
