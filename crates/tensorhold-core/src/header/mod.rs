//! The table at the front of a file: which tensors it holds, and where.
//!
//! [`Header::parse`] reads the text in one pass into a table of 24 bytes a tensor, whose names stay
//! in the text. A `Header` that exists is right: its tensors follow each other without hole or
//! overlap, each as long as its shape and dtype ask for, up to the end of the file.

mod build;
mod canonical;
mod growth;
pub(crate) mod json;
mod metadata;
mod number;
mod parse;
mod placed;
mod read;
mod shapes;
mod table;
mod validate;

pub use build::{Layout, LayoutOptions, Order, TensorSpec, layout};
pub use metadata::Metadata;
pub use placed::PlacedTensor;
pub use read::header_length;
pub use table::TensorInfo;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::ByteRange;
use crate::storage::Source;
use table::Table;

/// The longest header in bytes that a file may have.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The bytes of the header length, before the header.
pub const LENGTH_BYTES: u64 = 8;

/// Which files are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rules {
    /// Those that crate `safetensors` 0.8.0 refuses, and those in which a tensor's name stands twice.
    Compatible,
    /// Also those that use what the published format forbids or leaves as a trap: a key of
    /// `__metadata__` that stands twice, `__metadata__: null`, anything before the `{` or other
    /// than spaces after the `}`, tensors or dtypes in another JSON form than the documented one,
    /// unknown fields, names that are empty or hold control characters, and a header length that
    /// makes the file a zip archive too.
    Strict,
}

/// The checked table of a file.
pub struct Header {
    text: String,
    table: Table,
    data_start: u64,
}

impl Header {
    /// The table in `text`, the header's JSON without the 8 bytes before it, of a file of
    /// `file_size` bytes.
    ///
    /// # Errors
    /// `HeaderTooLarge`, `HeaderUtf8`, `HeaderJson`, `DuplicateTensor`, `InvalidOffset`,
    /// `SizeMismatch`, `Overflow`, `Misaligned` or `NotCovered`; under strict rules also
    /// `DuplicateKey` and `Forbidden`.
    pub fn parse(text: Vec<u8>, file_size: u64, rules: Rules) -> Result<Header> {
        let header_bytes = text.len() as u64;
        if header_bytes > MAX_HEADER_BYTES {
            return Err(read::too_large(header_bytes));
        }
        if rules == Rules::Strict {
            read::refuse_zip_magic(header_bytes)?;
        }
        let text = String::from_utf8(text).map_err(|error| not_utf8(&error))?;
        let table = parse::table(&text, rules)?;
        let data_start = LENGTH_BYTES + header_bytes;
        validate::check_coverage(table.data_size(), data_start, file_size)?;
        Ok(Header {
            text,
            table,
            data_start,
        })
    }

    /// The table of a file whose `bytes` are all in memory.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn parse_file(bytes: &[u8], rules: Rules) -> Result<Header> {
        read::header(bytes, rules)
    }

    /// The table of the file behind `source`: reads the header, and no data.
    ///
    /// # Errors
    /// `HeaderTooSmall`, `HeaderLength`, those of [`Header::parse`] and of the source, and
    /// `ForeignFormat` where the file is known to be something else.
    pub fn read(source: &dyn Source, rules: Rules) -> Result<Header> {
        read::header(source, rules)
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no tensors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensors in the order of their data in the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> + Clone {
        (0..self.len()).map(|index| self.table.info(&self.text, index))
    }

    /// The tensor whose data is the `index`-th in the file.
    #[must_use]
    pub fn tensor_at(&self, index: usize) -> Option<TensorInfo<'_>> {
        (index < self.len()).then(|| self.table.info(&self.text, index))
    }

    /// The bytes of the `index`-th tensor, counted from the start of the data; without a look into the text, which costs more.
    #[must_use]
    #[inline]
    pub fn offsets_at(&self, index: usize) -> Option<ByteRange> {
        (index < self.len()).then(|| self.table.offsets(index))
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<TensorInfo<'_>> {
        self.tensor_at(self.index_of(name)?)
    }

    /// The place of the tensor of this name in the order of the data.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.table.index_of(&self.text, name)
    }

    /// The free-form entries of `__metadata__`; `None` where it is absent or null.
    #[must_use]
    pub fn metadata(&self) -> Option<Metadata<'_>> {
        self.table.metadata()
    }

    /// The position of the first byte of data in the file.
    #[must_use]
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// The bytes of data of all tensors.
    #[must_use]
    pub fn data_size(&self) -> u64 {
        self.table.data_size()
    }

    /// The bytes of the whole file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.data_start + self.data_size()
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("n_tensors", &self.len())
            .field("data_start", &self.data_start)
            .field("data_size", &self.data_size())
            .finish_non_exhaustive()
    }
}

#[cold]
fn not_utf8(error: &alloc::string::FromUtf8Error) -> Error {
    let start = LENGTH_BYTES + error.utf8_error().valid_up_to() as u64;
    Error::new(
        ErrorKind::HeaderUtf8,
        alloc::format!("the header is no UTF-8 from byte {start} of the file on"),
    )
    .with_bytes(ByteRange {
        start,
        end: start + 1,
    })
}
