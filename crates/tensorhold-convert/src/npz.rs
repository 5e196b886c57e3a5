//! NumPy's `.npz` archives: a zip with one `.npy` entry for each array.
//!
//! # Source
//! `numpy.savez` and `numpy.lib.npyio.NpzFile` of NumPy 2.4.

use std::collections::HashSet;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::container::{Method, Names, Zip, ZipEntry};
use crate::finding::{Class, Finding, FindingKind};
use crate::foreign::{Foreign, Format};
use crate::limits::Limits;
use crate::npy;
use crate::storage::Place;
use crate::table::Table;
use crate::tree::Node;

/// The arrays of the archive in `source`, as a dict by their names.
///
/// # Errors
/// As [`Zip::open`] for the archive, as [`npy::read`] for each array; the message names the entry.
pub fn read(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
    let zip = Zip::open_named(source, limits, Names::Keys)?;
    let mut table = Table::default();
    table.findings.extend_from_slice(zip.findings());
    let mut names = HashSet::new();
    for entry in zip.entries() {
        let Some(array) = array(source, limits, entry, &mut table)? else {
            table.findings.push(left_out(entry));
            continue;
        };
        let name = entry.name.strip_suffix(".npy").unwrap_or(&entry.name);
        if !names.insert(name) {
            return Err(Error::new(
                ErrorKind::ForeignFormat,
                format!("npz: two arrays have the name `{name}`"),
            ));
        }
        table.insert(name, array);
    }
    if names.is_empty() && !zip.entries().is_empty() {
        let message =
            "zip: the archive is none of PyTorch or Keras, and none of its entries is an array";
        return Err(Error::new(ErrorKind::ForeignFormat, message));
    }
    Ok(table.into_dict(Format::Npz))
}

fn left_out(entry: &ZipEntry) -> Finding {
    let what = format!("the entry `{}` is no array and is left out", entry.name);
    Finding::new(FindingKind::LeftOut, Class::Unknown, what).with_bytes(entry.data)
}

/// The array in an entry; `None` where it is none.
fn array(
    source: &dyn Source,
    limits: &Limits,
    entry: &ZipEntry,
    table: &mut Table,
) -> Result<Option<Node>> {
    let Some(header) = header(source, entry).map_err(|error| named(error, entry))? else {
        return Ok(None);
    };
    let data_bytes = header.data_bytes().map_err(|error| named(error, entry))?;
    let expected = header.data_start.checked_add(data_bytes);
    if expected != Some(entry.size_bytes) {
        let what = format!(
            "npy: the header asks for {data_bytes} bytes, there are {}",
            entry.size_bytes.saturating_sub(header.data_start)
        );
        return Err(named(Error::new(ErrorKind::Truncated, what), entry));
    }
    let width = header.element.width_bytes();
    let (place, offset) = if header.data_start.is_multiple_of(width) {
        (place_of(entry), header.data_start / width)
    } else {
        (unaligned(source, limits, entry, header.data_start)?, 0)
    };
    let is_whole = offset > 0;
    let size_bytes = if is_whole {
        entry.size_bytes
    } else {
        data_bytes
    };
    let mut storage = header.storage(&entry.name, place, size_bytes);
    storage.crc32 = is_whole.then_some(entry.crc32);
    let storage = table.add_storage(storage);
    Ok(Some(header.array(storage, offset)?))
}

/// The header at the start of an entry; `None` where no array begins.
fn header(source: &dyn Source, entry: &ZipEntry) -> Result<Option<npy::Header>> {
    let mut reader = entry.reader(source);
    let mut is_array = true;
    let mut is_first = true;
    let header = npy::Header::read(&mut |into| {
        let mut n_filled = 0;
        while n_filled < into.len() {
            match reader.read(&mut into[n_filled..])? {
                0 => break,
                n_bytes => n_filled += n_bytes,
            }
        }
        if std::mem::take(&mut is_first) {
            is_array = into[..n_filled].starts_with(npy::MAGIC);
        }
        match n_filled == into.len() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Truncated,
                "npy: the entry ends in its header",
            )),
        }
    });
    match is_array {
        true => header.map(Some),
        false => Ok(None),
    }
}

/// The whole entry: its checksum counts the header too.
fn place_of(entry: &ZipEntry) -> Place {
    match entry.method {
        Method::Stored => Place::InFile(entry.data),
        Method::Deflated => Place::Deflated(entry.data),
    }
}

/// The elements alone, where the header's length is no multiple of their width.
fn unaligned(source: &dyn Source, limits: &Limits, entry: &ZipEntry, start: u64) -> Result<Place> {
    match entry.method {
        Method::Stored => {
            let data = ByteRange::new(entry.data.start + start, entry.data.end);
            Ok(Place::InFile(data))
        }
        Method::Deflated => {
            let mut bytes = entry.bytes(source, limits)?;
            bytes.drain(..start as usize);
            Ok(Place::Memory(bytes))
        }
    }
}

/// The error, with the name of the entry before its message.
fn named(error: Error, entry: &ZipEntry) -> Error {
    use ErrorKind::{ForeignFormat, Overflow, Truncated};
    if !matches!(error.kind(), ForeignFormat | Overflow | Truncated) {
        return error;
    }
    let message = format!("npz entry `{}`: {}", entry.name, error.message());
    let named = Error::new(error.kind(), message).with_bytes(entry.data);
    match error.hint() {
        Some(hint) => named.with_hint(hint.to_owned()),
        None => named,
    }
}
