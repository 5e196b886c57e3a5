//! GGUF files: metadata, a table of tensors, and their bytes.
//!
//! GGUF gives the dimensions of a tensor from the fastest to the slowest. Shapes here are the other way round, as in
//! PyTorch and NumPy: a matrix that GGUF calls `[in, out]` has the shape `(out, in)`.
//!
//! A tensor of a quantized type is kept as its blocks: a tensor of bytes whose last dimension is the bytes of one row,
//! with attributes that say the type and the true shape ([`Blocks`]). [`dequantize`] makes numbers of blocks.
//!
//! # Source
//! `docs/gguf.md` of ggml: versions 1, 2 and 3, in either byte order.

mod blocks;
mod dequantize;
mod kind;
mod metadata;
mod tensors;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::cursor::Cursor;
use crate::finding::{Class, Finding, FindingKind};
use crate::foreign::{Foreign, Format};
use crate::limits::Limits;
use crate::table::Table;
use crate::tree::Node;

pub use blocks::Blocks;
pub use dequantize::dequantize;
pub use kind::Kind;

/// The key under which the tree has the metadata, beside the tensors.
pub const METADATA: &str = "__metadata__";

const MAGIC: &[u8; 4] = b"GGUF";

/// The tensors of the file in `source` as a dict by their names, and its metadata under [`METADATA`].
///
/// # Shapes
/// As PyTorch has them: the last dimension is the fastest.
///
/// # Errors
/// `ForeignFormat` for what is no GGUF file, or a malformed one; `Truncated` where it ends early; `Overflow` for a
/// tensor of more than 2^64 bytes or more values than `limits` allows. The message names the tensor or key.
pub fn read(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
    let mut reader = Reader::open(source, limits)?;
    let n_tensors = reader.count()?;
    let n_keys = reader.count()?;
    let mut table = Table::default();
    let metadata = metadata::read(&mut reader, n_keys, &mut table)?;
    let alignment = metadata.alignment;
    let tensors = tensors::read(&mut reader, n_tensors)?;
    let data_start = reader.cursor.position().checked_next_multiple_of(alignment);
    let data_start = data_start.ok_or_else(|| overflow("the start of the data"))?;
    let places = tensors::place(&tensors, data_start, alignment, source.size_bytes())?;
    table.findings.extend(tensors::unclaimed(
        &places,
        data_start,
        alignment,
        source.size_bytes(),
    ));
    for (tensor, place) in tensors.iter().zip(places) {
        let node = tensor.node(place, reader.is_big_endian, &mut table)?;
        table.insert(&tensor.name, node);
    }
    if metadata.n_parts > 1 {
        let what = format!("this is one of the {} parts of a model", metadata.n_parts);
        table
            .findings
            .push(Finding::new(FindingKind::LeftOut, Class::Harmless, what));
    }
    table.insert(METADATA, Node::Dict(metadata.pairs));
    Ok(table.into_dict(Format::Gguf))
}

/// A malformed file.
fn wrong(what: impl std::fmt::Display, bytes: ByteRange) -> Error {
    Error::new(ErrorKind::ForeignFormat, format!("gguf: {what}")).with_bytes(bytes)
}

fn overflow(what: &str) -> Error {
    Error::new(ErrorKind::Overflow, format!("gguf: {what} passes 2^64"))
}

/// Reads the numbers and texts that the file is made of.
struct Reader<'a> {
    cursor: Cursor<'a>,
    limits: &'a Limits,
    is_big_endian: bool,
    /// Whether counts and lengths have 32 bits, as in version 1.
    is_narrow: bool,
}

impl<'a> Reader<'a> {
    /// A reader that stands behind the magic and the version.
    fn open(source: &'a dyn Source, limits: &'a Limits) -> Result<Reader<'a>> {
        let all = ByteRange::new(0, source.size_bytes());
        let mut cursor = Cursor::new(source, all, 64 * 1024);
        let start = ByteRange::new(0, 8);
        if &cursor.take::<4>()? != MAGIC {
            return Err(wrong("no such file begins here", start));
        }
        let version = u32::from_le_bytes(cursor.take()?);
        // Read in the other order, a small version is a large number without low bits.
        let is_big_endian = version & 0xffff == 0;
        let version = if is_big_endian {
            version.swap_bytes()
        } else {
            version
        };
        if !(1..=3).contains(&version) {
            return Err(wrong(format!("version {version} is not known"), start));
        }
        Ok(Reader {
            cursor,
            limits,
            is_big_endian,
            is_narrow: version == 1,
        })
    }

    /// The bytes of a number, the least one first.
    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = self.cursor.take::<N>()?;
        if self.is_big_endian {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.number().map(u64::from_le_bytes)
    }

    /// A count or a length.
    fn count(&mut self) -> Result<u64> {
        match self.is_narrow {
            true => self.u32().map(u64::from),
            false => self.u64(),
        }
    }

    /// The bytes of a text.
    fn text(&mut self) -> Result<Vec<u8>> {
        let start = self.cursor.position();
        let n_bytes = self.count()?;
        if n_bytes > self.limits.text_bytes {
            let here = ByteRange::new(start, self.cursor.position());
            let most = self.limits.text_bytes;
            return Err(wrong(
                format!("a text of {n_bytes} bytes is over the limit of {most}"),
                here,
            ));
        }
        self.cursor.bytes(n_bytes)
    }

    /// A text that names something.
    fn name(&mut self) -> Result<String> {
        let start = self.cursor.position();
        let name = self.text()?;
        let here = ByteRange::new(start, self.cursor.position());
        String::from_utf8(name).map_err(|_| wrong("a name is not UTF-8", here))
    }

    /// Refuses `n` things that each take at least `least_bytes` where the rest of the file has no room for them.
    fn check_room(&self, n: u64, least_bytes: u64, what: &str) -> Result<()> {
        let room = self.cursor.remaining() / least_bytes;
        if n <= room {
            return Ok(());
        }
        let rest = ByteRange::new(
            self.cursor.position(),
            self.cursor.position() + self.cursor.remaining(),
        );
        Err(wrong(
            format!("{n} {what} do not fit the rest of the file"),
            rest,
        ))
    }
}
