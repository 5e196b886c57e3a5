//! Arrays, scalars and element types of NumPy in pickles.
//!
//! # Source
//! `ndarray.__reduce__`, `ndarray.__reduce_ex__` and `dtype.__reduce__` of NumPy 2.

use tensorhold_core::Result;

use crate::builder::Builder;
use crate::element::Element;
use crate::pickle::globals::Call;
use crate::pickle::{Refusal, elements};
use crate::storage::{Place, StorageId, View, row_major};
use crate::torch::rebuild::sizes;
use crate::tree::{Data, Ndarray, Node, NodeId};

type Made<T = NodeId> = std::result::Result<T, Refusal>;

/// Kind and width, element, NumPy's name of a scalar.
const TYPES: [(&str, Element, &str); 14] = [
    ("b1", Element::Bool, "bool"),
    ("i1", Element::Int8, "int8"),
    ("i2", Element::Int16, "int16"),
    ("i4", Element::Int32, "int32"),
    ("i8", Element::Int64, "int64"),
    ("u1", Element::Uint8, "uint8"),
    ("u2", Element::Uint16, "uint16"),
    ("u4", Element::Uint32, "uint32"),
    ("u8", Element::Uint64, "uint64"),
    ("f2", Element::Float16, "float16"),
    ("f4", Element::Float32, "float32"),
    ("f8", Element::Float64, "float64"),
    ("c8", Element::Complex64, "complex64"),
    ("c16", Element::Complex128, "complex128"),
];

/// What NumPy's `str` of a type stands for: the element, NumPy's name, whether it is big-endian; `None` for types
/// whose arrays are no tensors.
#[must_use]
pub(crate) fn parse_dtype(dtype: &str) -> Option<(Element, &'static str, bool)> {
    let (order, kind) = match dtype.strip_prefix(['<', '>', '|', '=']) {
        Some(kind) => (dtype.as_bytes()[0], kind),
        None => (b'=', dtype),
    };
    let row = TYPES.iter().find(|row| row.0 == kind)?;
    Some((row.1, row.2, order == b'>' && row.1.width_bytes() > 1))
}

/// NumPy's `str` of the type that `kind` names, such as `f4`, in an order.
fn dtype_text(kind: &str, is_big_endian: bool) -> Option<String> {
    let (element, ..) = parse_dtype(kind)?;
    let order = match (element.width_bytes(), is_big_endian) {
        (1, _) => '|',
        (_, true) => '>',
        _ => '<',
    };
    Some(format!(
        "{order}{}",
        kind.trim_start_matches(['<', '>', '|', '='])
    ))
}

/// What a function of NumPy's makes of its arguments.
pub(crate) fn call(builder: &mut Builder<'_>, call: Call, list: &[NodeId]) -> Made {
    match call {
        Call::NpDtype => {
            let kind = list.first().and_then(|kind| builder.tree.text(*kind));
            let kind = kind.ok_or("its kind is no text")?;
            let left_out = || Refusal::LeftOut(format!("its kind `{kind}` is none of numbers"));
            let text = dtype_text(kind, kind.starts_with('>')).ok_or_else(left_out)?;
            Ok(builder.push(Node::NpDtype(text))?)
        }
        Call::NpScalar => match *list {
            [dtype, bytes] => scalar(builder, dtype, bytes),
            _ => Err("it needs a type and bytes".into()),
        },
        _ => from_buffer(builder, list),
    }
}

/// Gives a type its byte order: `(version, order, subdtype, names, fields, ...)`.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn fill_dtype(builder: &mut Builder<'_>, target: NodeId, state: NodeId) -> Result<()> {
    let order = builder.tree.items(state).and_then(|parts| parts.get(1));
    let is_big_endian = order.and_then(|order| builder.tree.text(*order)) == Some(">");
    if let Node::NpDtype(text) = &builder.tree[target]
        && let Some(text) = dtype_text(text, is_big_endian)
    {
        *builder.tree.node_mut(target) = Node::NpDtype(text);
    }
    Ok(())
}

/// Makes an array of the object that `_reconstruct` made, by its state: `(version, shape, type, is_fortran, data)`;
/// `false` where it is none of numbers.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn fill_array(builder: &mut Builder<'_>, target: NodeId, state: NodeId) -> Result<bool> {
    match array_of_state(builder, state) {
        Ok(array) => {
            *builder.tree.node_mut(target) = Node::Ndarray(Box::new(array));
            Ok(true)
        }
        Err(Refusal::Fatal(error)) => Err(error),
        Err(_) => Ok(false),
    }
}

fn array_of_state(builder: &mut Builder<'_>, state: NodeId) -> Made<Ndarray> {
    let parts = elements(builder, state)?;
    let [.., shape, dtype, is_fortran, data] = parts[..] else {
        return Err("its state has other parts".into());
    };
    let is_fortran = match builder.tree[is_fortran] {
        Node::Bool(is_fortran) => is_fortran,
        Node::Int(is_fortran) => is_fortran != 0,
        _ => return Err("its order is no bool".into()),
    };
    let shape = sizes(builder, shape)?;
    let strides = if is_fortran {
        column_major(&shape)
    } else {
        row_major(&shape)
    };
    let mut array = array(builder, dtype, data, shape, strides)?;
    // NumPy turns the bytes around when it takes this state.
    array.dtype = array.dtype.replace('>', "<");
    Ok(array)
}

fn column_major(shape: &[u64]) -> Option<Vec<u64>> {
    let reversed: Vec<u64> = shape.iter().rev().copied().collect();
    row_major(&reversed).map(|strides| strides.into_iter().rev().collect())
}

/// `_frombuffer(buffer, type, shape, order[, axes])`.
fn from_buffer(builder: &mut Builder<'_>, list: &[NodeId]) -> Made {
    let (&[data, dtype, shape, order], axes) = match list {
        [data, dtype, shape, order] => (&[*data, *dtype, *shape, *order], None),
        [data, dtype, shape, order, axes] => (&[*data, *dtype, *shape, *order], Some(*axes)),
        _ => return Err("it needs bytes, a type, a shape and an order".into()),
    };
    let mut shape = sizes(builder, shape)?;
    let axes = axes.filter(|axes| builder.tree[*axes] != Node::None);
    let mut strides = match builder.tree.text(order) {
        Some("F") => column_major(&shape),
        Some("C" | "K") => row_major(&shape),
        _ => return Err("its order is not known".into()),
    };
    if let Some(axes) = axes {
        let axes = sizes(builder, axes)?;
        shape = permuted(&shape, &axes).ok_or("its axes are no order")?;
        strides = strides.and_then(|strides| permuted(&strides, &axes));
    }
    let array = array(builder, dtype, data, shape, strides)?;
    Ok(builder.push(Node::Ndarray(Box::new(array)))?)
}

fn permuted(values: &[u64], axes: &[u64]) -> Option<Vec<u64>> {
    let mut is_seen = vec![false; values.len()];
    let mut place = |axis: &u64| {
        let axis = usize::try_from(*axis).ok()?;
        let was_seen = std::mem::replace(is_seen.get_mut(axis)?, true);
        (!was_seen).then(|| values[axis])
    };
    let permuted: Option<Vec<u64>> = axes.iter().map(&mut place).collect();
    permuted.filter(|permuted| permuted.len() == values.len())
}

fn array(
    builder: &mut Builder<'_>,
    dtype: NodeId,
    data: NodeId,
    shape: Vec<u64>,
    strides: Option<Vec<u64>>,
) -> Made<Ndarray> {
    let Node::NpDtype(dtype) = &builder.tree[dtype] else {
        return Err(Refusal::LeftOut("its elements are no numbers".into()));
    };
    let dtype = dtype.clone();
    let (element, _, is_big_endian) = parse_dtype(&dtype).ok_or("its type is not known")?;
    let swap = if is_big_endian {
        element.swap_width_bytes()
    } else {
        1
    };
    let storage = storage_of(builder, data, swap)?;
    let size = builder.storages[storage.0 as usize].size_bytes;
    let strides = strides.ok_or("its size passes 2^64")?;
    require_size(&shape, element, size)?;
    let view = View::new((storage, size), element, 0, shape, strides)
        .map_err(|error| Refusal::Lie(error.message().into()))?;
    let is_column_major = column_major(view.shape()).as_deref() == Some(view.strides());
    let is_fortran = is_column_major && !view.is_contiguous();
    Ok(Ndarray {
        view,
        dtype,
        is_fortran,
    })
}

fn require_size(shape: &[u64], element: Element, size_bytes: u64) -> Made<()> {
    if shape.len() > 64 {
        return Err("it has more than 64 dimensions".into());
    }
    let needed = shape
        .iter()
        .try_fold(element.width_bytes(), |size, extent| {
            size.checked_mul(*extent)
        });
    if needed != Some(size_bytes) {
        let message = format!("its {size_bytes} bytes do not make its shape");
        return Err(Refusal::Lie(message));
    }
    Ok(())
}

/// The storage of bytes that are turned around by `swap`; bytes that others use in another order get a second one.
fn storage_of(builder: &mut Builder<'_>, data: NodeId, swap: u64) -> Made<StorageId> {
    let data = match &builder.tree[data] {
        Node::Str(text) => {
            let letters = text.to_string_lossy();
            let bytes: Option<Vec<u8>> = letters
                .chars()
                .map(|letter| u8::try_from(u32::from(letter)).ok())
                .collect();
            let bytes = bytes.ok_or("its bytes are no text of Latin 1")?;
            builder.charge_bytes(bytes.len())?;
            builder.push(Node::Bytes(Data::Memory(bytes)))?
        }
        _ => data,
    };
    let is_new = matches!(
        builder.tree[data],
        Node::Bytes(Data::Memory(_)) | Node::ByteArray(Data::Memory(_))
    );
    let storage = builder
        .storage_of_bytes(data)?
        .ok_or("its data are no bytes")?;
    let known = &mut builder.storages[storage.0 as usize];
    if is_new || known.swap_width_bytes == swap {
        known.swap_width_bytes = swap;
        return Ok(storage);
    }
    let mut copy = known.clone();
    copy.swap_width_bytes = swap;
    if let Place::Memory(bytes) = &copy.place {
        builder.charge_bytes(bytes.len())?;
    }
    Ok(builder.push_storage(copy)?)
}

/// `scalar(type, bytes)`.
fn scalar(builder: &mut Builder<'_>, dtype: NodeId, bytes: NodeId) -> Made {
    let Node::NpDtype(dtype) = &builder.tree[dtype] else {
        return Err(Refusal::LeftOut("it is no number".into()));
    };
    let (element, name, is_big_endian) = parse_dtype(dtype).ok_or("its type is not known")?;
    let mut bytes = match &builder.tree[bytes] {
        Node::Bytes(Data::Memory(bytes)) => bytes.clone(),
        Node::Str(text) => {
            let letters = text.to_string_lossy();
            let bytes = letters
                .chars()
                .map(|letter| u8::try_from(u32::from(letter)).ok());
            bytes
                .collect::<Option<Vec<u8>>>()
                .ok_or("its bytes are no text of Latin 1")?
        }
        _ => return Err("its value is no bytes".into()),
    };
    if bytes.len() as u64 != element.width_bytes() {
        return Err(Refusal::Odd(format!("it has {} bytes", bytes.len())));
    }
    if is_big_endian {
        let width = usize::try_from(element.swap_width_bytes()).expect("a width is small");
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    let value = scalar_value(element, &bytes).ok_or("its type is not known")?;
    let value = builder.push(value)?;
    Ok(builder.push(Node::Scalar(name, value))?)
}

/// The number that little-endian bytes are.
fn scalar_value(element: Element, bytes: &[u8]) -> Option<Node> {
    let mut word = [0; 8];
    let count = bytes.len().min(8);
    word[..count].copy_from_slice(&bytes[..count]);
    let unsigned = u64::from_le_bytes(word);
    let signed = || {
        let unused = 64 - 8 * count as u32;
        Node::Int((unsigned << unused) as i64 >> unused)
    };
    Some(match element {
        Element::Bool => Node::Bool(unsigned != 0),
        Element::Int8 | Element::Int16 | Element::Int32 | Element::Int64 => signed(),
        Element::Uint8 | Element::Uint16 | Element::Uint32 | Element::Uint64 => {
            match i64::try_from(unsigned) {
                Ok(number) => Node::Int(number),
                Err(_) => Node::BigInt([&bytes[..8], &[0]].concat()),
            }
        }
        Element::Float16 => Node::Float(widen(unsigned, 5, 10)),
        Element::Float32 => Node::Float(widen(unsigned, 8, 23)),
        Element::Float64 => Node::Float(f64::from_bits(unsigned)),
        Element::Complex64 => Node::Complex(
            widen(unsigned & 0xffff_ffff, 8, 23),
            widen(unsigned >> 32, 8, 23),
        ),
        Element::Complex128 => {
            let imaginary = bytes.get(8..16)?.try_into().ok()?;
            Node::Complex(f64::from_bits(unsigned), f64::from_le_bytes(imaginary))
        }
        _ => return None,
    })
}

/// The 64-bit float of the bits of a smaller one, with the fraction of a NaN kept in the highest bits.
fn widen(bits: u64, exponent_bits: u32, fraction_bits: u32) -> f64 {
    let fraction = bits & ((1 << fraction_bits) - 1);
    let most = (1u64 << exponent_bits) - 1;
    let exponent = bits >> fraction_bits & most;
    let sign = bits >> (fraction_bits + exponent_bits) & 1;
    let bias = (most >> 1) as i32;
    if exponent == most {
        return f64::from_bits(sign << 63 | 0x7ff << 52 | fraction << (52 - fraction_bits));
    }
    let (whole, power) = match exponent {
        0 => (fraction, 1 - bias),
        _ => (fraction | 1 << fraction_bits, exponent as i32 - bias),
    };
    let magnitude = whole as f64 * f64::powi(2.0, power - fraction_bits as i32);
    if sign == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_floats_are_widened_exactly() {
        for value in [
            0.0f32,
            -0.0,
            1.5,
            -3.25e-42,
            f32::MAX,
            f32::INFINITY,
            f32::MIN_POSITIVE,
        ] {
            let wide = widen(u64::from(value.to_bits()), 8, 23);
            assert_eq!(wide.to_bits(), f64::from(value).to_bits());
        }
        assert_eq!(widen(0x7f80_0001, 8, 23).to_bits(), 0x7ff0_0000_2000_0000);
        assert_eq!(widen(0x3555, 5, 10), 0.333_251_953_125);
    }
}
