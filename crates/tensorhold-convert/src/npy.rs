//! NumPy's `.npy` files: one array after a header that says its type, order and shape.
//!
//! The header is the text of a Python dict. It is read by a parser that knows the three keys and their kinds of
//! values, and nothing else of Python.
//!
//! # Source
//! `numpy.lib.format` of NumPy 2.4: versions 1.0, 2.0 and 3.0.

mod literal;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::cursor::Cursor;
use crate::element::Element;
use crate::finding::{Class, Finding, FindingKind};
use crate::foreign::{Foreign, Format};
use crate::limits::Limits;
use crate::storage::{Place, Storage, StorageId, View, row_major};
use crate::table::Table;
use crate::tree::{Ndarray, Node};

pub(crate) const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy itself reads no header of more than 10 000 characters.
const LONGEST_HEADER_BYTES: u64 = 64 * 1024;
/// The most dimensions that an array of NumPy can have.
const MOST_DIMENSIONS: usize = 64;

/// What the header of an array says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The type of its elements.
    pub element: Element,
    /// Whether the most significant byte of each number comes first.
    pub is_big_endian: bool,
    /// Whether the first dimension is the fastest.
    pub is_fortran: bool,
    /// The extent of each dimension.
    pub shape: Vec<u64>,
    /// Where the elements begin, in bytes from the start of the header.
    pub data_start: u64,
}

/// The array in `source`, as the whole tree.
///
/// # Errors
/// `ForeignFormat` for what is no array or one of a type that has no tensors (objects, text, structures, dates);
/// `Truncated` where the elements are not all there; `Overflow` for a shape of more than 2^64 bytes.
pub fn read(source: &dyn Source, _limits: &Limits) -> Result<Foreign> {
    let all = ByteRange::new(0, source.size_bytes());
    let mut cursor = Cursor::new(source, all, 4096);
    let header = Header::read(&mut |bytes| cursor.fill(bytes))?;
    let data_bytes = header.data_bytes()?;
    let data = cursor.skip(data_bytes)?;
    let mut table = Table::default();
    if cursor.remaining() > 0 {
        let after = ByteRange::new(data.end, all.end);
        let what = format!("{} bytes follow the array", after.len());
        let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, what);
        table.findings.push(finding.with_bytes(after));
    }
    let storage = header.storage("array", Place::InFile(data), data_bytes);
    let storage = table.add_storage(storage);
    let array = header.array(storage, 0)?;
    let root = table.tree.push(array);
    Ok(table.into_foreign(Format::Npy, root))
}

/// Where the data of an array begins, by its first bytes; 0 where no array begins so.
pub(crate) fn data_start(head: &[u8]) -> u64 {
    match head {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            10 + u64::from(u16::from_le_bytes([*a, *b]))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', _, _, a, b, c, d, ..] => {
            12 + u64::from(u32::from_le_bytes([*a, *b, *c, *d]))
        }
        _ => 0,
    }
}

impl Header {
    /// The header at the start of an array, whose bytes `next` gives from first to last.
    pub(crate) fn read(next: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<Header> {
        let mut start = [0; 8];
        next(&mut start)?;
        let wrong = |what: &str, end: u64| {
            let error = Error::new(ErrorKind::ForeignFormat, format!("npy: {what}"));
            error.with_bytes(ByteRange::new(0, end))
        };
        if !start.starts_with(MAGIC) {
            return Err(wrong("no array begins here", 8));
        }
        let n_digits = match (start[6], start[7]) {
            (1, 0) => 2,
            (2 | 3, 0) => 4,
            (major, minor) => {
                return Err(wrong(&format!("version {major}.{minor} is not known"), 8));
            }
        };
        let mut length = [0; 4];
        next(&mut length[..n_digits])?;
        let length = u64::from(u32::from_le_bytes(length));
        let text_start = 8 + n_digits as u64;
        if length > LONGEST_HEADER_BYTES {
            return Err(wrong(
                &format!("its header of {length} bytes is no array's"),
                text_start,
            ));
        }
        let mut text = vec![0; length as usize];
        next(&mut text)?;
        let data_start = text_start + length;
        let fields = literal::parse(&text).map_err(|what| wrong(what, data_start))?;
        Header::of_fields(fields, data_start)
    }

    fn of_fields(fields: literal::Fields, data_start: u64) -> Result<Header> {
        let here = ByteRange::new(0, data_start);
        let (element, is_big_endian) =
            element(&fields.descr).map_err(|error| error.with_bytes(here))?;
        if fields.shape.len() > MOST_DIMENSIONS {
            let what = format!(
                "npy: {} dimensions are more than an array has",
                fields.shape.len()
            );
            return Err(Error::new(ErrorKind::ForeignFormat, what).with_bytes(here));
        }
        Ok(Header {
            element,
            is_big_endian,
            is_fortran: fields.is_fortran,
            shape: fields.shape,
            data_start,
        })
    }

    /// How many bytes the elements have.
    pub(crate) fn data_bytes(&self) -> Result<u64> {
        let product = |least: u64| {
            let mut extents = self.shape.iter().map(|extent| (*extent).max(least));
            let width = self.element.width_bytes();
            extents.try_fold(width, |size, extent| size.checked_mul(extent))
        };
        // Strides are made of the extents beside a zero, too.
        product(1).and(product(0)).ok_or_else(|| {
            Error::new(
                ErrorKind::Overflow,
                "npy: the size of the array passes 2^64",
            )
        })
    }

    /// A storage that has the elements, and perhaps other bytes.
    pub(crate) fn storage(&self, name: &str, place: Place, size_bytes: u64) -> Storage {
        let mut storage = Storage::new(name, place, size_bytes);
        if self.is_big_endian {
            storage.swap_width_bytes = self.element.swap_width_bytes();
        }
        storage
    }

    /// The array, whose elements begin `offset` elements after the start of `storage`.
    pub(crate) fn array(&self, storage: (StorageId, u64), offset: u64) -> Result<Node> {
        let shape = self.shape.clone();
        let view = if self.is_fortran {
            let backwards: Vec<u64> = shape.iter().rev().copied().collect();
            let strides = row_major(&backwards).map(|strides| strides.into_iter().rev().collect());
            let strides = strides.expect("the size was checked");
            View::new(storage, self.element, offset, shape, strides)?
        } else {
            View::contiguous(storage, self.element, offset, shape)?
        };
        Ok(Node::Ndarray(Box::new(Ndarray {
            view,
            dtype: self.dtype(),
            is_fortran: self.is_fortran,
        })))
    }

    /// NumPy's `str` of the type.
    fn dtype(&self) -> String {
        let (_, code) = CODES
            .iter()
            .find(|(element, _)| *element == self.element)
            .expect("it was found there");
        let order = match (self.element.width_bytes(), self.is_big_endian) {
            (1, _) if *code != "f1" => '|',
            (_, true) => '>',
            (_, false) => '<',
        };
        format!("{order}{code}")
    }
}

const CODES: [(Element, &str); 15] = [
    (Element::Bool, "b1"),
    (Element::Int8, "i1"),
    (Element::Int16, "i2"),
    (Element::Int32, "i4"),
    (Element::Int64, "i8"),
    (Element::Uint8, "u1"),
    (Element::Uint16, "u2"),
    (Element::Uint32, "u4"),
    (Element::Uint64, "u8"),
    (Element::Float16, "f2"),
    (Element::Float32, "f4"),
    (Element::Float64, "f8"),
    (Element::Complex64, "c8"),
    (Element::Complex128, "c16"),
    // The only type of ml_dtypes that NumPy takes for a float of its own.
    (Element::Float8E5m2, "f1"),
];

/// The type that NumPy's `str` of it stands for, and whether its numbers are big-endian.
fn element(descr: &str) -> Result<(Element, bool)> {
    let order = descr.chars().next().unwrap_or(' ');
    let code = descr.get(1..).unwrap_or("");
    let found = CODES.iter().find(|(_, known)| *known == code);
    match (found, order) {
        (Some((element, _)), '<') => Ok((*element, false)),
        (Some((element, _)), '>') => Ok((*element, element.width_bytes() > 1)),
        (Some((element, _)), '|') if element.width_bytes() == 1 => Ok((*element, false)),
        _ => Err(refuse_type(descr)),
    }
}

fn refuse_type(descr: &str) -> Error {
    let kind = descr.trim_start_matches(['<', '>', '|', '=']);
    let (what, hint) = match kind.chars().next() {
        Some('O') => (
            "an array of Python objects, which is a pickle",
            "save the objects as arrays of numbers; a pickle is not read out of an array",
        ),
        Some('V') if matches!(kind, "V1" | "V2") => (
            "an array whose type NumPy does not name, as it writes bfloat16 and 8-bit floats",
            "save it as safetensors from the program that made it, which knows the type",
        ),
        Some('V' | '[') => ("a structured array", "save each of its fields as an array"),
        Some('U' | 'S' | 'a' | 'T') => ("an array of text", "save it apart from the tensors"),
        Some('M' | 'm') => (
            "an array of dates or times",
            "save it as an array of integers",
        ),
        Some('f' | 'c') => (
            "an array of floats that no tensor has",
            "save it as float64 or complex128",
        ),
        _ => (
            "an array of an unknown type",
            "save it as an array of numbers",
        ),
    };
    let message = format!("npy: {what} (`{}`)", descr.get(..40).unwrap_or(descr));
    Error::new(ErrorKind::ForeignFormat, message).with_hint(hint)
}
