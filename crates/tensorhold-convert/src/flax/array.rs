//! What Flax packs into extensions: arrays, complex numbers and scalars.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::pack::{Item, Reader, widened};
use super::wrong;
use crate::container::short;
use crate::element::Element;
use crate::storage::{Place, Storage, View};
use crate::table::Table;
use crate::tree::{Node, Tensor};

const ARRAY: i8 = 1;
const COMPLEX: i8 = 2;
const SCALAR: i8 = 3;
/// The most dimensions that an array of NumPy can have.
const MOST_DIMENSIONS: u64 = 64;

/// The value in an extension of `n_bytes` bytes, where `reader` stands.
pub(super) fn extension(
    reader: &mut Reader<'_>,
    table: &mut Table,
    kind: i8,
    n_bytes: u64,
) -> Result<Node> {
    let start = reader.position();
    let end = start.checked_add(n_bytes);
    let node = match kind {
        ARRAY => Array::read(reader)?.tensor(table)?,
        COMPLEX => complex(reader)?,
        SCALAR => {
            let array = Array::read(reader)?;
            array.scalar(reader, table)?
        }
        _ => {
            let here = ByteRange::new(start, start);
            return Err(wrong(
                format!("the extension {kind} is none of Flax's"),
                here,
            ));
        }
    };
    if end != Some(reader.position()) {
        let here = ByteRange::new(start, reader.position());
        return Err(wrong(
            "an extension has another length than its contents",
            here,
        ));
    }
    Ok(node)
}

/// An array: `[shape, name of the type, bytes]`.
struct Array {
    element: Element,
    shape: Vec<u64>,
    /// Its bytes, in C order and little-endian.
    data: ByteRange,
}

impl Array {
    /// The array where `reader` stands; it stands behind the array's bytes then.
    fn read(reader: &mut Reader<'_>) -> Result<Array> {
        let start = reader.position();
        let broken = |reader: &Reader<'_>| {
            let here = ByteRange::new(start, reader.position());
            wrong("an array is no shape, type and bytes", here)
        };
        if reader.item()? != Item::Array(3) {
            return Err(broken(reader));
        }
        let Item::Array(n_dimensions @ 0..=MOST_DIMENSIONS) = reader.item()? else {
            return Err(broken(reader));
        };
        let mut shape = Vec::new();
        for _ in 0..n_dimensions {
            let Item::Integer(extent @ 0..) = reader.item()? else {
                return Err(broken(reader));
            };
            shape.push(extent as u64);
        }
        let (Item::Text(n_bytes @ 0..=64) | Item::Bytes(n_bytes @ 0..=64)) = reader.item()? else {
            return Err(broken(reader));
        };
        let name = reader.text(n_bytes)?;
        let (Item::Bytes(n_bytes) | Item::Text(n_bytes)) = reader.item()? else {
            return Err(broken(reader));
        };
        let data = reader.skip(n_bytes)?;
        let element = element(&name, data)?;
        check_size(element, &shape, data)?;
        Ok(Array {
            element,
            shape,
            data,
        })
    }

    fn tensor(self, table: &mut Table) -> Result<Node> {
        let name = format!("array at {}", self.data.start);
        let storage = Storage::new(name, Place::InFile(self.data), self.data.len());
        let storage = table.add_storage(storage);
        let view = View::contiguous(storage, self.element, 0, self.shape)?;
        Ok(Node::Tensor(Box::new(Tensor::new(view))))
    }

    /// The scalar of NumPy that this array without dimensions stands for; of types that NumPy lacks, the array.
    fn scalar(self, reader: &mut Reader<'_>, table: &mut Table) -> Result<Node> {
        if !self.shape.is_empty() {
            return Err(wrong("a scalar has dimensions", self.data));
        }
        let bytes = reader.again(self.data)?;
        match number(self.element, &bytes) {
            Some(value) => {
                let value = table.tree.push(value);
                Ok(Node::Scalar(self.element.name(), value))
            }
            None => self.tensor(table),
        }
    }
}

/// The types that NumPy, or ml_dtypes, has and tensors too, by the same names.
const KNOWN: [Element; 20] = [
    Element::Bool,
    Element::Uint8,
    Element::Int8,
    Element::Uint16,
    Element::Int16,
    Element::Uint32,
    Element::Int32,
    Element::Uint64,
    Element::Int64,
    Element::Float16,
    Element::Bfloat16,
    Element::Float32,
    Element::Float64,
    Element::Complex64,
    Element::Complex128,
    Element::Float8E5m2,
    Element::Float8E4m3fn,
    Element::Float8E5m2fnuz,
    Element::Float8E4m3fnuz,
    Element::Float8E8m0fnu,
];

/// The type that NumPy, or ml_dtypes, gives this name.
fn element(name: &[u8], data: ByteRange) -> Result<Element> {
    let found = KNOWN
        .into_iter()
        .find(|element| element.name().as_bytes() == name);
    found.ok_or_else(|| {
        let name = short(&String::from_utf8_lossy(name));
        let error = wrong(
            format!("an array is of the type {name}, which no tensor has"),
            data,
        );
        error.with_hint("cast it to a wider type in the program that made it")
    })
}

fn check_size(element: Element, shape: &[u64], data: ByteRange) -> Result<()> {
    let product = |least: u64| {
        let mut extents = shape.iter().map(|extent| (*extent).max(least));
        extents.try_fold(element.width_bytes(), |size, extent| {
            size.checked_mul(extent)
        })
    };
    // Strides are made of the extents beside a zero, too.
    let size = product(1).and(product(0)).ok_or_else(|| {
        Error::new(
            ErrorKind::Overflow,
            "flax: the size of an array passes 2^64",
        )
        .with_bytes(data)
    })?;
    if size == data.len() {
        return Ok(());
    }
    let what = format!(
        "an array of the shape {shape:?} and the type {} has {size} bytes, there are {}",
        element.name(),
        data.len()
    );
    Err(wrong(what, data))
}

/// A number of one of NumPy's own types; `None` for one of ml_dtypes.
fn number(element: Element, bytes: &[u8]) -> Option<Node> {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    let bits = u128::from_le_bytes(wide);
    let single = |bits: u128| widened(f32::from_bits(bits as u32));
    let double = |bits: u128| f64::from_bits(bits as u64);
    Some(match element {
        Element::Bool => Node::Bool(bits != 0),
        Element::Uint8 | Element::Uint16 | Element::Uint32 => Node::Int(bits as i64),
        Element::Uint64 => match i64::try_from(bits) {
            Ok(number) => Node::Int(number),
            Err(_) => Node::BigInt([bytes, &[0]].concat()),
        },
        Element::Int8 => Node::Int(i64::from(bits as i8)),
        Element::Int16 => Node::Int(i64::from(bits as i16)),
        Element::Int32 => Node::Int(i64::from(bits as i32)),
        Element::Int64 => Node::Int(bits as i64),
        Element::Float16 => Node::Float(half(bits as u64)),
        Element::Float32 => Node::Float(single(bits)),
        Element::Float64 => Node::Float(double(bits)),
        Element::Complex64 => Node::Complex(single(bits), single(bits >> 32)),
        Element::Complex128 => Node::Complex(double(bits), double(bits >> 64)),
        _ => return None,
    })
}

/// The float of these 16 bits; a NaN keeps its sign and the bits of its fraction.
fn half(bits: u64) -> f64 {
    let (sign, exponent, fraction) = (bits >> 15 << 63, bits >> 10 & 31, bits & 0x3ff);
    let magnitude = match exponent {
        // A count of 2^-24.
        0 => (fraction as f64 / 16_777_216.0).to_bits(),
        31 => 0x7ff << 52 | fraction << 42,
        _ => (exponent + 1008) << 52 | fraction << 42,
    };
    f64::from_bits(sign | magnitude)
}

/// A complex number: `[real, imaginary]`.
fn complex(reader: &mut Reader<'_>) -> Result<Node> {
    let start = reader.position();
    let parts = (reader.item()?, reader.item()?, reader.item()?);
    match parts {
        (Item::Array(2), Item::Float(real), Item::Float(imaginary)) => {
            Ok(Node::Complex(real, imaginary))
        }
        _ => {
            let here = ByteRange::new(start, reader.position());
            Err(wrong("a complex number is no two floats", here))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_the_float_that_they_stand_for() {
        for (bits, number) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x7bff, 65504.0),
            (0x7c00, f64::INFINITY),
            (0x3555, 0.333_251_953_125),
        ] {
            assert_eq!(half(bits), number, "{bits:#06x}");
        }
        assert!(half(0x8000).is_sign_negative());
        assert_eq!(half(0xfe01).to_bits(), 0xfff8_0400_0000_0000);
    }
}
