//! The table of tensors, and where each of them lies.

use std::collections::HashSet;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::{Kind, METADATA, Reader, overflow, wrong};
use crate::container::short;
use crate::element::Element;
use crate::finding::{Class, Finding, FindingKind};
use crate::storage::{Place, Storage, View};
use crate::table::Table;
use crate::tree::{Node, Tensor};

/// ggml has four; a few more do no harm.
const MOST_DIMENSIONS: u32 = 8;

/// A tensor as the table describes it.
pub(super) struct Listed {
    pub name: String,
    kind: Kind,
    /// The last dimension is the fastest.
    shape: Vec<u64>,
    /// Its bytes begin here, counted from the start of the data.
    offset: u64,
    size_bytes: u64,
}

/// The `n_tensors` rows where `reader` stands.
pub(super) fn read(reader: &mut Reader<'_>, n_tensors: u64) -> Result<Vec<Listed>> {
    reader.check_room(n_tensors, 20, "tensors")?;
    if n_tensors > reader.limits.entries {
        let here = ByteRange::new(reader.cursor.position(), reader.cursor.position());
        return Err(wrong(
            format!("{n_tensors} tensors are over the limit"),
            here,
        ));
    }
    let mut names = HashSet::new();
    let mut tensors = Vec::new();
    for _ in 0..n_tensors {
        let start = reader.cursor.position();
        let tensor = tensor(reader)?;
        if tensor.name == METADATA || !names.insert(tensor.name.clone()) {
            let here = ByteRange::new(start, reader.cursor.position());
            return Err(wrong(
                format!("the name {} stands twice", short(&tensor.name)),
                here,
            ));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

fn tensor(reader: &mut Reader<'_>) -> Result<Listed> {
    let start = reader.cursor.position();
    let name = reader.name()?;
    let n_dimensions = reader.u32()?;
    let here = ByteRange::new(start, reader.cursor.position());
    if n_dimensions > MOST_DIMENSIONS {
        let what = format!("a tensor has {n_dimensions} dimensions");
        return Err(wrong(what, here).with_tensor(name));
    }
    let mut shape = Vec::new();
    for _ in 0..n_dimensions {
        shape.push(reader.count()?);
    }
    shape.reverse();
    let number = reader.u32()?;
    let offset = reader.u64()?;
    let here = ByteRange::new(start, reader.cursor.position());
    let Some(kind) = Kind::from_number(number) else {
        let what = format!("a tensor is of the type {number}, which is not known");
        let hint = "if the file is newer than this program, a newer version may know it";
        return Err(wrong(what, here).with_tensor(name).with_hint(hint));
    };
    let size_bytes =
        size_bytes(kind, &shape, here).map_err(|error| error.with_tensor(name.as_str()))?;
    Ok(Listed {
        name,
        kind,
        shape,
        offset,
        size_bytes,
    })
}

fn size_bytes(kind: Kind, shape: &[u64], here: ByteRange) -> Result<u64> {
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(kind.block_elements()) {
        let (name, block) = (kind.name(), kind.block_elements());
        return Err(wrong(
            format!("rows of {row} elements are no whole blocks of {block} ({name})"),
            here,
        ));
    }
    let n_blocks = |least: u64| {
        let extents = shape
            .iter()
            .rev()
            .skip(1)
            .map(|extent| (*extent).max(least));
        let row = (row / kind.block_elements())
            .max(least)
            .checked_mul(kind.block_bytes());
        extents.fold(row, |size, extent| {
            size.and_then(|size| size.checked_mul(extent))
        })
    };
    // Strides are made of the extents beside a zero, too.
    n_blocks(1)
        .and(n_blocks(0))
        .ok_or_else(|| overflow("the size of a tensor").with_bytes(here))
}

/// Where the bytes of each tensor lie in the file: apart from each other, and aligned.
pub(super) fn place(
    tensors: &[Listed],
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<Vec<ByteRange>> {
    let mut places = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let start = data_start.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(tensor.size_bytes));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(overflow("the end of a tensor").with_tensor(tensor.name.as_str()));
        };
        if end > file_bytes && tensor.size_bytes > 0 {
            let error = Error::truncated(start, tensor.size_bytes, file_bytes);
            return Err(error.with_tensor(tensor.name.as_str()));
        }
        let place = ByteRange::new(start, end);
        if !tensor.offset.is_multiple_of(alignment) {
            let what = format!(
                "a tensor's offset {} is no multiple of {alignment}",
                tensor.offset
            );
            return Err(wrong(what, place).with_tensor(tensor.name.as_str()));
        }
        places.push(place);
    }
    refuse_overlaps(tensors, &places)?;
    Ok(places)
}

fn refuse_overlaps(tensors: &[Listed], places: &[ByteRange]) -> Result<()> {
    let mut order: Vec<usize> = (0..places.len())
        .filter(|&index| !places[index].is_empty())
        .collect();
    order.sort_unstable_by_key(|&index| places[index]);
    let overlap = order
        .windows(2)
        .find(|pair| places[pair[0]].end > places[pair[1]].start);
    match overlap {
        None => Ok(()),
        Some(pair) => {
            let (first, second) = (&tensors[pair[0]].name, &tensors[pair[1]].name);
            let what = format!("the tensors {} and {} overlap", short(first), short(second));
            let error = Error::new(ErrorKind::ForeignFormat, format!("gguf: {what}"));
            Err(error.with_bytes(places[pair[1]]))
        }
    }
}

/// Bytes that are no tensor's, but for what fills up to the alignment.
pub(super) fn unclaimed(
    places: &[ByteRange],
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Vec<Finding> {
    let mut places: Vec<ByteRange> = places
        .iter()
        .copied()
        .filter(|place| !place.is_empty())
        .collect();
    places.sort_unstable();
    places.push(ByteRange::new(
        file_bytes.max(data_start),
        file_bytes.max(data_start),
    ));
    let mut findings = Vec::new();
    let mut covered = data_start;
    for place in places {
        if place.start > covered {
            let bytes = ByteRange::new(covered, place.start);
            let what = format!("{} bytes belong to no tensor", bytes.len());
            let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, what);
            findings.push(finding.with_bytes(bytes));
        }
        covered = place
            .end
            .checked_next_multiple_of(alignment)
            .unwrap_or(place.end);
    }
    findings
}

impl Listed {
    /// The tensor, whose bytes lie at `place`: numbers, or the bytes of blocks with their description.
    pub fn node(&self, place: ByteRange, is_big_endian: bool, table: &mut Table) -> Result<Node> {
        let mut storage = Storage::new(self.name.as_str(), Place::InFile(place), place.len());
        let element = self.kind.element().unwrap_or(Element::Uint8);
        if is_big_endian {
            storage.swap_width_bytes = element.swap_width_bytes();
        }
        if place.is_empty() {
            storage.place = Place::Memory(Vec::new());
        }
        let storage = table.add_storage(storage);
        if self.kind.element().is_some() {
            let view = View::contiguous(storage, element, 0, self.shape.clone())?;
            return Ok(Node::Tensor(Box::new(Tensor::new(view))));
        }
        let mut shape = self.shape.clone();
        if let Some(row) = shape.last_mut() {
            *row = *row / self.kind.block_elements() * self.kind.block_bytes();
        }
        let view = View::contiguous(storage, element, 0, shape)?;
        let mut tensor = Tensor::new(view);
        let attributes =
            super::blocks::describe(self.kind, &self.shape, is_big_endian, &mut table.tree);
        tensor.attributes = Some(attributes);
        Ok(Node::Tensor(Box::new(tensor)))
    }
}
