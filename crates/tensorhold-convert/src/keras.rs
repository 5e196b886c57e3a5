//! Keras's `.keras` archives: a zip with the model's configuration and an HDF5 file of its weights.
//!
//! Only the weights are read. A configuration that has code of its own is reported: Keras can be told to run it.
//!
//! # Source
//! `keras.src.saving.saving_lib` of Keras 3.15.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::container::{Method, Zip, ZipEntry};
use crate::finding::{Class, Finding, FindingKind};
use crate::foreign::{Foreign, Format};
use crate::hdf5;
use crate::limits::Limits;
use crate::storage::Place;

/// The entry that has the weights.
pub(crate) const WEIGHTS: &str = "model.weights.h5";
const CONFIG: &str = "config.json";

/// The weights in the archive in `source`, as [`hdf5::read`] gives them.
///
/// # Errors
/// As [`Zip::open`] for the archive and as [`hdf5::read`] for the weights; `ForeignFormat` where there are none.
pub fn read(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
    let zip = Zip::open(source, limits)?;
    let weights = zip.entry(WEIGHTS).ok_or_else(|| {
        Error::new(
            ErrorKind::ForeignFormat,
            format!("keras: the archive has no `{WEIGHTS}`"),
        )
    })?;
    let mut foreign = match weights.method {
        Method::Stored => stored(source, limits, weights)?,
        Method::Deflated => deflated(source, limits, weights)?,
    };
    foreign.format = Format::Keras;
    foreign.findings.extend_from_slice(zip.findings());
    foreign.findings.extend(code(source, limits, &zip)?);
    Ok(foreign)
}

/// The weights where they lie in the archive.
fn stored(source: &dyn Source, limits: &Limits, weights: &ZipEntry) -> Result<Foreign> {
    let part = Part {
        source,
        range: weights.data,
    };
    let start = weights.data.start;
    let moved = |range: ByteRange| ByteRange::new(range.start + start, range.end + start);
    let mut foreign = hdf5::read(&part, limits)?;
    for storage in &mut foreign.storages {
        if let Place::InFile(range) = &mut storage.place {
            *range = moved(*range);
        }
    }
    for finding in &mut foreign.findings {
        finding.bytes = finding.bytes.map(moved);
    }
    Ok(foreign)
}

/// The weights in memory: an HDF5 file is not read from first to last.
fn deflated(source: &dyn Source, limits: &Limits, weights: &ZipEntry) -> Result<Foreign> {
    let bytes = weights.bytes(source, limits)?;
    let mut foreign = hdf5::read(&&bytes[..], limits)?;
    for storage in &mut foreign.storages {
        if let Place::InFile(range) = storage.place {
            let range = range.start as usize..range.end as usize;
            storage.place = Place::Memory(bytes[range].to_vec());
        }
    }
    for finding in &mut foreign.findings {
        finding.bytes = Some(weights.data);
    }
    Ok(foreign)
}

/// A finding for code in the configuration.
fn code(source: &dyn Source, limits: &Limits, zip: &Zip) -> Result<Option<Finding>> {
    let Some(entry) = zip.entry(CONFIG) else {
        return Ok(None);
    };
    let config = entry.bytes(source, limits)?;
    let has = |word: &[u8]| memchr::memmem::find(&config, word).is_some();
    let (class, what) = if has(b"\"__lambda__\"") {
        (
            Class::Dangerous,
            "the configuration has code in it, which Keras can be told to run",
        )
    } else if has(b"\"Lambda\"") {
        (
            Class::Unknown,
            "the configuration has a layer that calls a function by its name",
        )
    } else {
        return Ok(None);
    };
    Ok(Some(
        Finding::new(FindingKind::Code, class, what).with_bytes(entry.data),
    ))
}

/// A range of a file, as a file.
struct Part<'a> {
    source: &'a dyn Source,
    range: ByteRange,
}

impl Source for Part<'_> {
    fn size_bytes(&self) -> u64 {
        self.range.len()
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        let end = position.checked_add(into.len() as u64);
        match end.filter(|end| *end <= self.size_bytes()) {
            Some(_) => self.source.read_at(self.range.start + position, into),
            None => Err(Error::truncated(
                position,
                into.len() as u64,
                self.size_bytes(),
            )),
        }
    }
}
