//! Datasets: the type and shape of an array, and where its elements lie.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::object::Message;
use super::{address_at, wrong};
use crate::container::{u16_at, u32_at, u64_at};
use crate::element::Element;
use crate::storage::{Place, StorageId, View};

const DATASPACE: u8 = 1;
const DATATYPE: u8 = 3;
const EXTERNAL_FILES: u8 = 7;
const LAYOUT: u8 = 8;
const FILTERS: u8 = 0xb;
/// The most dimensions that HDF5 allows.
const MOST_DIMENSIONS: u8 = 32;

/// A dataset as its messages describe it.
pub(super) struct Dataset {
    /// The type of its elements; `None` where no tensor has it.
    pub kind: Option<Kind>,
    pub shape: Vec<u64>,
    layout: Layout,
    /// The bytes of one element.
    width_bytes: u64,
    place: ByteRange,
}

/// The type of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub element: Element,
    pub is_big_endian: bool,
}

enum Layout {
    /// In the header.
    Compact(ByteRange),
    /// In one piece; `None` where nothing was ever written.
    Contiguous(Option<u64>, u64),
}

impl Dataset {
    /// The dataset that the messages of a header describe.
    pub fn of(messages: &[Message]) -> Result<Dataset> {
        let find = |kind: u8| messages.iter().find(|message| message.kind == kind);
        let here = messages
            .first()
            .map_or(ByteRange::default(), |message| message.place);
        let need = |kind: u8| {
            find(kind).ok_or_else(|| wrong("an object is no group and no dataset", here))
        };
        let (datatype, dataspace, layout) = (need(DATATYPE)?, need(DATASPACE)?, need(LAYOUT)?);
        if let Some(message) = find(EXTERNAL_FILES) {
            return Err(wrong("its elements lie in other files", message.place));
        }
        if [datatype, dataspace, layout]
            .iter()
            .any(|message| message.is_shared)
        {
            return Err(wrong(
                "its type or shape is shared with other datasets",
                here,
            ));
        }
        if let Some(message) = find(FILTERS)
            && message.body.get(1) != Some(&0)
        {
            return Err(wrong("it is compressed or filtered", message.place));
        }
        let (kind, width_bytes) = datatype_of(datatype)?;
        Ok(Dataset {
            kind,
            shape: shape_of(dataspace)?,
            layout: layout_of(layout)?,
            width_bytes,
            place: layout.place,
        })
    }

    /// Where the elements lie, in a file of `file_bytes`.
    pub fn place(&self, file_bytes: u64) -> Result<Place> {
        let product = |least: u64| {
            let mut extents = self.shape.iter().map(|extent| (*extent).max(least));
            extents.try_fold(self.width_bytes, |size, extent| size.checked_mul(extent))
        };
        // Strides are made of the extents beside a zero, too.
        let size = product(1).and(product(0)).ok_or_else(|| {
            Error::new(
                ErrorKind::Overflow,
                "hdf5: the size of a dataset passes 2^64",
            )
        })?;
        if size == 0 {
            return Ok(Place::Memory(Vec::new()));
        }
        let (start, stated) = match self.layout {
            Layout::Compact(range) => (range.start, range.len()),
            Layout::Contiguous(Some(start), stated) => (start, stated),
            Layout::Contiguous(None, _) => {
                return Err(wrong("nothing was ever written to it", self.place));
            }
        };
        if stated != size {
            let what = format!("its type and shape ask for {size} bytes, it has {stated}");
            return Err(wrong(what, self.place));
        }
        match start.checked_add(size).filter(|end| *end <= file_bytes) {
            Some(end) => Ok(Place::InFile(ByteRange::new(start, end))),
            None => Err(Error::truncated(start, size, file_bytes)),
        }
    }
}

impl Kind {
    /// The array of this type that fills `storage`.
    pub fn view(self, storage: (StorageId, u64), shape: Vec<u64>) -> Result<View> {
        View::contiguous(storage, self.element, 0, shape)
    }
}

fn layout_of(message: &Message) -> Result<Layout> {
    let body = &message.body;
    match *body.as_slice() {
        [3 | 4, 0, low, high, ..] => {
            let n_bytes = u64::from(u16::from_le_bytes([low, high]));
            let start = message.place.start + 4;
            if body.len() as u64 - 4 < n_bytes {
                return Err(wrong("its elements run past its header", message.place));
            }
            Ok(Layout::Compact(ByteRange::new(start, start + n_bytes)))
        }
        [3 | 4, 1, ..] if body.len() >= 18 => {
            Ok(Layout::Contiguous(address_at(body, 2), u64_at(body, 10)))
        }
        [3 | 4, 2, ..] => Err(wrong("it lies in chunks", message.place)),
        [3 | 4, 3, ..] => Err(wrong("it is made of other datasets", message.place)),
        _ => Err(wrong("its layout is of no known version", message.place)),
    }
}

fn shape_of(message: &Message) -> Result<Vec<u64>> {
    let broken = || wrong("its shape is of no known form", message.place);
    let body = &message.body;
    let (n_dimensions, at) = match *body.as_slice() {
        [1, n_dimensions, ..] => (n_dimensions, 8),
        // A null dataspace has no elements at all.
        [2, _, _, 2, ..] => return Ok(vec![0]),
        [2, n_dimensions, _, _, ..] => (n_dimensions, 4),
        _ => return Err(broken()),
    };
    if n_dimensions > MOST_DIMENSIONS {
        return Err(broken());
    }
    let extents = body
        .get(at..at + usize::from(n_dimensions) * 8)
        .ok_or_else(broken)?;
    Ok(extents
        .chunks_exact(8)
        .map(|extent| u64_at(extent, 0))
        .collect())
}

/// The type of elements, where tensors have it, and how many bytes one takes.
fn datatype_of(message: &Message) -> Result<(Option<Kind>, u64)> {
    let body = &message.body;
    if body.len() < 8 || !(1..=4).contains(&(body[0] >> 4)) {
        return Err(wrong("its type is of no known version", message.place));
    }
    let width_bytes = u64::from(u32_at(body, 4));
    let kind = match body[0] & 15 {
        0 => integer(body),
        1 => float(body),
        6 => complex(body),
        8 => boolean(body),
        _ => None,
    };
    Ok((
        kind.filter(|kind| kind.element.width_bytes() == width_bytes),
        width_bytes,
    ))
}

/// An integer that fills its bytes.
fn integer(body: &[u8]) -> Option<Kind> {
    let size = u32_at(body, 4);
    let (offset, precision) = (u16_at(body.get(8..12)?, 0), u16_at(body, 10));
    if offset != 0 || u32::from(precision) != size.checked_mul(8)? {
        return None;
    }
    let is_signed = body[1] & 8 != 0;
    let element = match (size, is_signed) {
        (1, false) => Element::Uint8,
        (1, true) => Element::Int8,
        (2, false) => Element::Uint16,
        (2, true) => Element::Int16,
        (4, false) => Element::Uint32,
        (4, true) => Element::Int32,
        (8, false) => Element::Uint64,
        (8, true) => Element::Int64,
        _ => return None,
    };
    Some(Kind {
        element,
        is_big_endian: body[1] & 1 != 0 && size > 1,
    })
}

/// A float with the bits of one of the IEEE's, or of bfloat16.
fn float(body: &[u8]) -> Option<Kind> {
    let properties = body.get(8..20)?;
    // The order of VAX, and a mantissa without the implied bit, are no IEEE floats.
    if body[1] & 0x40 != 0 || body[1] >> 4 & 3 != 2 || u16_at(properties, 0) != 0 {
        return None;
    }
    let bits = (
        u16_at(properties, 2),
        u16::from(body[2]),
        (properties[4], properties[5], properties[6], properties[7]),
        u32_at(properties, 8),
    );
    let element = match bits {
        (16, 15, (10, 5, 0, 10), 15) => Element::Float16,
        (16, 15, (7, 8, 0, 7), 127) => Element::Bfloat16,
        (32, 31, (23, 8, 0, 23), 127) => Element::Float32,
        (64, 63, (52, 11, 0, 52), 1023) => Element::Float64,
        _ => return None,
    };
    Some(Kind {
        element,
        is_big_endian: body[1] & 1 != 0,
    })
}

/// A bool as h5py writes it: an enumeration of a byte with the names FALSE and TRUE, in that order.
fn boolean(body: &[u8]) -> Option<Kind> {
    let base = body.get(8..20)?;
    let rest = body.get(20..)?;
    let is_byte = integer(base)?.element.width_bytes() == 1;
    let is_bool = match body[0] >> 4 {
        1 | 2 => rest.starts_with(b"FALSE\0\0\0TRUE\0\0\0\0\0\x01"),
        _ => rest.starts_with(b"FALSE\0TRUE\0\0\x01"),
    };
    let is_pair = u16_at(body, 1) == 2;
    (is_byte && is_bool && is_pair).then_some(Kind {
        element: Element::Bool,
        is_big_endian: false,
    })
}

/// A complex number as h5py writes it: a structure of two floats named `r` and `i`.
fn complex(body: &[u8]) -> Option<Kind> {
    if u16_at(body, 1) != 2 {
        return None;
    }
    let size = u32_at(body, 4);
    let version = body[0] >> 4;
    let (first, rest) = member(version, b"r", 0, body.get(8..)?)?;
    let (second, _) = member(version, b"i", size / 2, rest)?;
    let element = match (first.element, second == first, size) {
        (Element::Float32, true, 8) => Element::Complex64,
        (Element::Float64, true, 16) => Element::Complex128,
        _ => return None,
    };
    Some(Kind { element, ..first })
}

/// The float that is the member `name` of a structure, and what follows it.
fn member<'a>(
    version: u8,
    name: &[u8; 1],
    offset: u32,
    body: &'a [u8],
) -> Option<(Kind, &'a [u8])> {
    // The name, which the older versions fill up to 8 bytes, the place, and, in the first, dimensions that are none.
    let (name_bytes, offset_bytes, skipped) = match version {
        1 => (8, 4, 28),
        2 => (8, 4, 0),
        _ => (2, 1, 0),
    };
    let mut offset_digits = [0; 4];
    offset_digits[..offset_bytes].copy_from_slice(body.get(name_bytes..name_bytes + offset_bytes)?);
    if body[..2] != [name[0], 0] || u32::from_le_bytes(offset_digits) != offset {
        return None;
    }
    let rest = body.get(name_bytes + offset_bytes + skipped..)?;
    let (datatype, rest) = rest.split_at_checked(20)?;
    (datatype[0] & 15 == 1)
        .then(|| float(datatype))?
        .map(|kind| (kind, rest))
}
