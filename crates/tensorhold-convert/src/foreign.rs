//! What a file is, and what it has.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::builder::Builder;
use crate::container::{Names, Tar, Zip, find_zip_end};
use crate::finish::finish;
use crate::follow::follow;
use crate::pickle::{self, Stream};
use crate::torch::{archive, legacy, tar};
use crate::{flax, gguf, hdf5, keras, npy, npz};

use crate::finding::{Class, Finding, FindingKind, Global};
use crate::limits::Limits;
use crate::storage::Storage;
use crate::tree::{NodeId, Tree};

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

/// What a file has shown before it could be read no further.
#[derive(Debug)]
pub struct Broken {
    /// Why it could be read no further.
    pub error: Error,
    /// Every name that its pickles had asked to import until then.
    pub globals: Vec<Global>,
    /// What had been odd about it until then.
    pub findings: Vec<Finding>,
}

impl Broken {
    fn plain(error: Error) -> Broken {
        Broken {
            error,
            globals: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// What a builder has come to know, and what lies where the format's reader did not come to.
    fn after(mut builder: Builder<'_>, error: Error) -> Broken {
        // What goes wrong here too adds nothing to the first fault.
        let _ = follow(&mut builder);
        if !begins_with_protocol(builder.source) {
            // Any text may look like operations; only what has a pickle's mark is told by harmless names.
            let is_told = |global: &Global| global.is_called || global.class == Class::Dangerous;
            builder.globals.retain(is_told);
        }
        let findings = builder.findings.into_iter().map(|(finding, _)| finding);
        Broken {
            error,
            globals: builder.globals,
            findings: findings.collect(),
        }
    }
}

impl Foreign {
    /// What a file of another format has, by its content; nothing in it is run, and no tensor's bytes are read.
    ///
    /// # Errors
    /// `ForeignFormat` if the format is not known or the file is not as its format asks, `Truncated` if it ends
    /// early, `Overflow` if it passes a limit, and what the source refuses with.
    pub fn read(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
        Foreign::examine(source, limits).map_err(|broken| broken.error)
    }

    /// As [`Foreign::read`]; where it fails, what the file has asked for until then is given with the error.
    ///
    /// # Errors
    /// As [`Foreign::read`].
    pub fn examine(source: &dyn Source, limits: &Limits) -> Result<Foreign, Box<Broken>> {
        let mut builder = Builder::new(source, limits);
        let plain = head(source).and_then(|head| read_plain(source, limits, &head));
        let read = match plain {
            Ok(Some(foreign)) => return Ok(foreign.with_names_of(builder)),
            Ok(None) => read_pickled(&mut builder),
            Err(error) => Err(error),
        };
        match read {
            Ok((format, root)) => {
                finish(builder, format, root).map_err(|error| Box::new(Broken::plain(error)))
            }
            Err(error) => Err(Box::new(Broken::after(builder, error))),
        }
    }

    /// Adds the names of the pickle that a message pack is which does not end where its file does.
    fn with_names_of(mut self, mut builder: Builder<'_>) -> Foreign {
        let is_odd = |finding: &Finding| finding.kind == FindingKind::ExtraBytes;
        if self.format == Format::Flax && self.findings.iter().any(is_odd) {
            // It need not be one.
            let _ = follow(&mut builder);
            self.globals.append(&mut builder.globals);
        }
        self
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

/// Whether a file begins with the mark of a pickle or of an archive.
fn begins_with_protocol(source: &dyn Source) -> bool {
    head(source).is_ok_and(|head| matches!(head[..], [0x80, 0..=5, ..]) || is_zip(&head))
}

/// The first bytes of a file.
pub(crate) fn head(source: &dyn Source) -> Result<Vec<u8>> {
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

/// What a file of a format without pickles has; `None` if it is none.
fn read_plain(source: &dyn Source, limits: &Limits, head: &[u8]) -> Result<Option<Foreign>> {
    let read = if head.starts_with(npy::MAGIC) {
        npy::read
    } else if head.starts_with(b"GGUF") {
        gguf::read
    } else if head.starts_with(hdf5::MAGIC) {
        hdf5::read
    } else if matches!(head.first(), Some(0x81..=0x8f | 0xde | 0xdf)) {
        // A map of MessagePack, as no pickle begins.
        flax::read
    } else if is_zip(head) {
        return read_zip(source, limits);
    } else {
        return Ok(None);
    };
    read(source, limits).map(Some)
}

pub(crate) fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

/// What a zip archive has that is none of PyTorch's; `None` for one of PyTorch's.
fn read_zip(source: &dyn Source, limits: &Limits) -> Result<Option<Foreign>> {
    let zip = Zip::open_named(source, limits, Names::Keys)?;
    if archive::folder(&zip).is_some() {
        return Ok(None);
    }
    if zip.entry(keras::WEIGHTS).is_some() {
        return keras::read(source, limits).map(Some);
    }
    npz::read(source, limits).map(Some)
}

/// The format and value of a file that has pickles.
fn read_pickled(builder: &mut Builder<'_>) -> Result<(Format, NodeId)> {
    let (source, limits) = (builder.source, builder.limits);
    let head = head(source)?;
    if is_zip(&head) {
        let zip = Zip::open(source, limits)?;
        let folder = archive::folder(&zip).ok_or_else(|| unknown(source))?;
        return archive::read(builder, &zip, &folder);
    }
    tell_second_format(builder)?;
    if is_tar(&head) {
        let tar = Tar::open(source, limits)?;
        if !tar::is_whole(&tar) {
            return Err(unknown(source));
        }
        return Ok((Format::TorchTar, tar::read(builder, &tar)?));
    }
    if legacy::begins(&head) {
        let range = ByteRange::new(0, source.size_bytes());
        return Ok((
            Format::TorchLegacy,
            legacy::read(builder, source, range, Some(0))?,
        ));
    }
    if pickle::may_begin(&head) {
        return Ok((Format::Pickle, pickle::read(builder)?));
    }
    Err(unknown(source))
}

/// Tells of a file that is no zip archive by its beginning that it is one by its end.
fn tell_second_format(builder: &mut Builder<'_>) -> Result<()> {
    if let Some(end) = find_zip_end(builder.source)? {
        let message = "the file is a zip archive by its end and another format by its beginning";
        let finding = Finding::new(FindingKind::Polyglot, Class::Dangerous, message);
        builder.note(finding.with_bytes(end));
    }
    Ok(())
}

fn unknown(source: &dyn Source) -> Error {
    let message = format!(
        "a file of {} bytes is of no format that is known",
        source.size_bytes()
    );
    Error::new(ErrorKind::ForeignFormat, message)
}
