//! What a file is, and what it has.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::builder::Builder;
use crate::container::{Names, Tar, Zip};
use crate::finish::finish;
use crate::pickle::{self, Stream};
use crate::torch::{archive, legacy, tar};
use crate::{flax, gguf, hdf5, keras, npy, npz};

use crate::finding::{Finding, Global};
use crate::limits::Limits;
use crate::storage::Storage;
use crate::tree::Tree;

/// A format that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `torch.save` since PyTorch 1.6: a zip archive.
    TorchZip,
    /// `torch.save` from 0.1.10 to 1.5: pickles and storages one after another.
    TorchLegacy,
    /// `torch.save` before 0.1.10: a tar archive.
    TorchTar,
    /// `torch.jit.save`: a zip archive with code.
    TorchScript,
    /// A bare pickle.
    Pickle,
    /// One NumPy array.
    Npy,
    /// A zip archive of NumPy arrays.
    Npz,
    /// GGUF.
    Gguf,
    /// A message pack of Flax.
    Flax,
    /// An HDF5 file of weights, as Keras writes them.
    Hdf5,
    /// A `.keras` archive: a zip with an HDF5 file of weights.
    Keras,
}

/// What was found in a foreign file.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// What the file is.
    pub format: Format,
    /// Its values.
    pub tree: Tree,
    /// Where the bytes of its tensors lie.
    pub storages: Vec<Storage>,
    /// Every name that its pickles ask to import.
    pub globals: Vec<Global>,
    /// What is odd about it.
    pub findings: Vec<Finding>,
}

impl Foreign {
    /// What a file of another format has, by its content; nothing in it is run, and no tensor's bytes are read.
    ///
    /// # Errors
    /// `ForeignFormat` if the format is not known or the file is not as its format asks, `Truncated` if it ends
    /// early, `Overflow` if it passes a limit, and what the source refuses with.
    pub fn read(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
        let head = head(source)?;
        if head.starts_with(npy::MAGIC) {
            return npy::read(source, limits);
        }
        if head.starts_with(b"GGUF") {
            return gguf::read(source, limits);
        }
        if head.starts_with(hdf5::MAGIC) {
            return hdf5::read(source, limits);
        }
        // A map of MessagePack, as no pickle begins.
        if matches!(head.first(), Some(0x81..=0x8f | 0xde | 0xdf)) {
            return flax::read(source, limits);
        }
        if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            return read_zip(source, limits);
        }
        let mut builder = Builder::new(source, limits);
        if is_tar(&head) {
            let tar = Tar::open(source, limits)?;
            if !tar::is_whole(&tar) {
                return Err(unknown(source));
            }
            let root = tar::read(&mut builder, &tar)?;
            return finish(builder, Format::TorchTar, root);
        }
        let (format, root) = if legacy::begins(&head) {
            let range = ByteRange::new(0, source.size_bytes());
            (
                Format::TorchLegacy,
                legacy::read(&mut builder, source, range, Some(0))?,
            )
        } else if pickle::may_begin(&head) {
            (Format::Pickle, pickle::read(&mut builder)?)
        } else {
            return Err(unknown(source));
        };
        finish(builder, format, root)
    }

    /// Whether the first bytes leave no doubt that the file is of a format that is read here. A bare pickle and a message pack have no
    /// such bytes.
    ///
    /// # Errors
    /// What the source refuses with.
    pub fn is_certain(source: &dyn Source) -> Result<bool> {
        let head = head(source)?;
        let magics: [&[u8]; 5] = [
            npy::MAGIC,
            b"GGUF",
            hdf5::MAGIC,
            b"PK\x03\x04",
            b"PK\x05\x06",
        ];
        let has_magic = magics.iter().any(|magic| head.starts_with(magic));
        Ok(has_magic || legacy::begins(&head))
    }
}

/// The first bytes of a file.
fn head(source: &dyn Source) -> Result<Vec<u8>> {
    let size = source.size_bytes().min(HEAD_BYTES);
    Stream::new(source, ByteRange::new(0, size))?.take(size)
}

/// Enough to tell formats apart: a record of a tar archive.
const HEAD_BYTES: u64 = 512;

/// Whether a file begins with the record of a tar archive: its sum of bytes is written in it.
fn is_tar(head: &[u8]) -> bool {
    let (Some(record), Some(said)) = (head.get(..512), head.get(148..156)) else {
        return false;
    };
    let digits = said
        .trim_ascii_start()
        .iter()
        .take_while(|byte| matches!(byte, b'0'..=b'7'));
    let said = digits.fold(0, |sum: u64, digit| sum * 8 + u64::from(digit - b'0'));
    let counted = record.iter().enumerate().map(|(at, &byte)| match at {
        148..156 => u64::from(b' '),
        _ => u64::from(byte),
    });
    said > 0 && counted.sum::<u64>() == said
}

fn read_zip(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
    let zip = Zip::open_named(source, limits, Names::Keys)?;
    let Some(folder) = archive::folder(&zip) else {
        if zip.entry(keras::WEIGHTS).is_some() {
            return keras::read(source, limits);
        }
        return npz::read(source, limits);
    };
    let zip = Zip::open(source, limits)?;
    let mut builder = Builder::new(source, limits);
    let (format, root) = archive::read(&mut builder, &zip, &folder)?;
    finish(builder, format, root)
}

fn unknown(source: &dyn Source) -> Error {
    let message = format!(
        "a file of {} bytes is of no format that is known",
        source.size_bytes()
    );
    Error::new(ErrorKind::ForeignFormat, message)
}
