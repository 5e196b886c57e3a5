//! The checks that make a table right, and what they say where it is not.

use alloc::format;
use alloc::string::String;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Named;
use crate::extent::ByteRange;
use crate::shape::shape_size_bytes;

use super::shapes::Shapes;
use super::table::{Entry, Table};

/// The bytes of a tensor of `n_elements`; `None` past 2^64, and where they end inside a byte.
#[inline]
pub(super) fn size_bytes(dtype: Dtype, n_elements: Option<u64>) -> Option<u64> {
    let n_bits = n_elements?.checked_mul(u64::from(dtype.width_bits()))?;
    (n_bits % 8 == 0).then_some(n_bits / 8)
}

/// A tensor whose shape has no size in bytes; `shape` is `None` where it is too long to be shown.
#[cold]
pub(super) fn no_size(dtype: Dtype, n_elements: Option<u64>, shape: Option<&[u64]>) -> Error {
    let of_shape = shape.and_then(|shape| shape_size_bytes(dtype, shape).err());
    of_shape.unwrap_or_else(|| {
        let n_bits = n_elements.and_then(|n| n.checked_mul(u64::from(dtype.width_bits())));
        match n_bits {
            None => Error::new(
                ErrorKind::Overflow,
                format!("the size of the shape in {dtype} passes 2^64 bits"),
            ),
            Some(n_bits) => Error::new(
                ErrorKind::Misaligned,
                format!(
                    "the shape in {dtype} takes {n_bits} bits, which is no whole number of bytes"
                ),
            ),
        }
    })
}

/// Brings the tensors into the order of their data.
#[cold]
pub(super) fn order_by_offset(table: &mut Table) {
    let Table {
        entries, shapes, ..
    } = table;
    // Empty tensors may start at the same byte; their shapes, which hold at least a zero, lie in the
    // order of the text.
    entries.sort_unstable_by_key(|entry| (entry.start, end(*entry, shapes), entry.shape().start));
}

/// Checks that tensors in the order of their data follow each other from 0 on.
///
/// # Errors
/// `InvalidOffset` that says which hole or overlap is where.
#[cold]
pub(super) fn check_chain(table: &mut Table, text: &str) -> Result<()> {
    let mut previous_end = 0;
    for (index, &entry) in table.entries.iter().enumerate() {
        if entry.start != previous_end {
            let before = index.checked_sub(1).map(|index| table.name(text, index));
            let error = gap(table.name(text, index), entry.start, before, previous_end);
            return Err(table.blame(text, entry.name, error));
        }
        previous_end = end(entry, &table.shapes);
    }
    table.data_size = previous_end;
    Ok(())
}

/// Where the data of an entry ends, whose size has been checked against its offsets.
fn end(entry: Entry, shapes: &Shapes) -> u64 {
    let n_bits = shapes.n_elements(entry.shape()) * u64::from(entry.dtype().width_bits());
    entry.start + n_bits / 8
}

/// A tensor that does not start where the data before it ends.
fn gap(name: &str, start: u64, before: Option<&str>, previous_end: u64) -> Error {
    let before = match before {
        Some(before) => format!("the end of {} at {previous_end}", Named(before)),
        None => format!("the start of the data at {previous_end}"),
    };
    let (distance, side, fault) = if start > previous_end {
        (start - previous_end, "after", "a hole")
    } else {
        (previous_end - start, "before", "an overlap")
    };
    let name_shown = Named(name);
    let message = format!(
        "tensor {name_shown} starts at byte {start} of the data, {} {side} {before}: {fault}",
        bytes(distance)
    );
    Error::new(ErrorKind::InvalidOffset, message)
}

/// A tensor whose offsets hold another number of bytes than its shape and dtype ask for.
#[cold]
pub(super) fn wrong_size(name: &str, dtype: Dtype, size: u64, start: u64, end: u64) -> Error {
    let name_shown = Named(name);
    match end.checked_sub(start) {
        Some(given) => Error::new(
            ErrorKind::SizeMismatch,
            format!(
                "tensor {name_shown} takes {size} bytes by its shape in {dtype}, but its offsets {start}..{end} hold {given}"
            ),
        ),
        None => Error::new(
            ErrorKind::InvalidOffset,
            format!(
                "tensor {name_shown} ends at byte {end} of the data, before its start at {start}"
            ),
        ),
    }
}

/// A name that two tensors have.
#[cold]
pub(super) fn stands_twice(table: &Table, text: &str, first: usize, second: usize) -> Error {
    let offsets = |index: usize| {
        let entry = table.entries[index];
        ByteRange {
            start: entry.start,
            end: end(entry, &table.shapes),
        }
    };
    let message = format!(
        "the name {} stands twice, for the bytes {} and {} of the data",
        Named(table.name(text, first)),
        offsets(first),
        offsets(second)
    );
    let error = Error::new(ErrorKind::DuplicateTensor, message);
    table.blame(text, table.entries[second].name, error)
}

/// Checks that the data ends where the file does.
pub(super) fn check_coverage(data_size: u64, data_start: u64, file_size: u64) -> Result<()> {
    let Some(end) = data_start.checked_add(data_size) else {
        let message = format!("the tensors take {data_size} bytes, the file has {file_size}");
        return Err(Error::new(ErrorKind::NotCovered, message));
    };
    if file_size < end {
        return Err(not_covered(file_size, end, ByteRange { start: file_size, end }, "fewer")
            .with_hint(format!(
                "missing at the end: {}, as after a download or copy that broke off; fetch the file again",
                bytes(end - file_size)
            )));
    }
    if file_size > end {
        return Err(not_covered(file_size, end, ByteRange { start: end, end: file_size }, "more")
            .with_hint(format!(
                "left over at the end: {} of no tensor; something was appended, or the header is another file's",
                bytes(file_size - end)
            )));
    }
    Ok(())
}

fn not_covered(file_size: u64, end: u64, range: ByteRange, which: &str) -> Error {
    let message = format!(
        "the file has {}, {} {which} than the {end} that its header asks for",
        bytes(file_size),
        range.len()
    );
    Error::new(ErrorKind::NotCovered, message).with_bytes(range)
}

fn bytes(n: u64) -> String {
    format!("{n} byte{}", if n == 1 { "" } else { "s" })
}
