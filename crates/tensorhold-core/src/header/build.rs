//! From tensors to the bytes of a header.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use hashbrown::HashSet;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::escape::Named;
use crate::extent::ByteRange;
use crate::shape::shape_size_bytes;

use super::read::ZIP_MAGIC;
use super::{LENGTH_BYTES, MAX_HEADER_BYTES};

/// A tensor that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSpec<'a> {
    /// The name.
    pub name: &'a str,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The size in each dimension; none for a scalar.
    pub shape: &'a [u64],
}

/// In which order the tensors go into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// By dtype from last to first, then by name: the order of crate `safetensors`.
    #[default]
    Reference,
    /// As they are given.
    Given,
}

/// How a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayoutOptions {
    /// The boundary on which the data starts: a power of two, at least 8. `None` is 8.
    pub align: Option<u32>,
    /// The order of the tensors.
    pub order: Order,
}

/// Where everything goes in a file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The first bytes of the file, up to the data: the header length, the header, its padding.
    pub head: Vec<u8>,
    /// The indices of the given tensors in the order of the file.
    pub order: Vec<usize>,
    /// The bytes of each given tensor, counted from the start of the data.
    pub offsets: Vec<ByteRange>,
    /// The size of the whole file in bytes.
    pub file_size: u64,
}

/// The layout of a file with `tensors` and `metadata`, whose keys are sorted.
///
/// Without `align` the bytes are those of crate `safetensors` 0.8.0, but for the order of the
/// metadata's keys, which is random there.
///
/// # Errors
/// `DuplicateTensor`, `InvalidTensor` for one named `__metadata__`, `Overflow`, `Misaligned`,
/// `HeaderTooLarge`, and `InvalidArgument` for a key of the metadata that is given twice and for an
/// alignment that is none.
pub fn layout(
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &LayoutOptions,
) -> Result<Layout> {
    let align = alignment(options)?;
    check_names(tensors)?;
    let order = file_order(tensors, options.order);
    let (offsets, data_size) = offsets(tensors, &order)?;
    let mut head = alloc::vec![0; LENGTH_BYTES as usize];
    head.append(&mut header_text(tensors, metadata, &order, &offsets)?.into_bytes());
    let length = pad(&mut head, align)?;
    head[..LENGTH_BYTES as usize].copy_from_slice(&length.to_le_bytes());
    let file_size = data_size.checked_add(head.len() as u64).ok_or_else(|| {
        Error::new(
            ErrorKind::Overflow,
            "the size of the file passes 2^64 bytes",
        )
    })?;
    Ok(Layout {
        head,
        order,
        offsets,
        file_size,
    })
}

fn alignment(options: &LayoutOptions) -> Result<u64> {
    match options.align {
        None => Ok(LENGTH_BYTES),
        Some(align) if align >= 8 && align.is_power_of_two() => Ok(u64::from(align)),
        Some(align) => {
            let message = format!("alignment {align} is no power of two from 8 on");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

fn check_names(tensors: &[TensorSpec<'_>]) -> Result<()> {
    let mut names = HashSet::with_capacity(tensors.len());
    for TensorSpec { name, .. } in tensors {
        if *name == "__metadata__" {
            let message =
                "no tensor can be named `__metadata__`: the header keeps the metadata there";
            return Err(Error::new(ErrorKind::InvalidTensor, message).with_tensor(*name));
        }
        if !names.insert(*name) {
            let message = format!("the name {} is given to two tensors", Named(name));
            return Err(Error::new(ErrorKind::DuplicateTensor, message).with_tensor(*name));
        }
    }
    Ok(())
}

fn file_order(tensors: &[TensorSpec<'_>], order: Order) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..tensors.len()).collect();
    if order == Order::Reference {
        indices.sort_unstable_by(|&left, &right| {
            let (left, right) = (&tensors[left], &tensors[right]);
            right
                .dtype
                .cmp(&left.dtype)
                .then_with(|| left.name.cmp(right.name))
        });
    }
    indices
}

fn offsets(tensors: &[TensorSpec<'_>], order: &[usize]) -> Result<(Vec<ByteRange>, u64)> {
    let mut offsets = alloc::vec![ByteRange::default(); tensors.len()];
    let mut start = 0_u64;
    for &index in order {
        let TensorSpec { name, dtype, shape } = tensors[index];
        let size = shape_size_bytes(dtype, shape).map_err(|error| error.with_tensor(name))?;
        let end = start.checked_add(size).ok_or_else(|| {
            let message = "the tensors up to this one pass 2^64 bytes";
            Error::new(ErrorKind::Overflow, message).with_tensor(name)
        })?;
        offsets[index] = ByteRange { start, end };
        start = end;
    }
    Ok((offsets, start))
}

fn header_text(
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    order: &[usize],
    offsets: &[ByteRange],
) -> Result<String> {
    let mut text = String::with_capacity(tensors.len() * 96 + 64);
    text.push('{');
    if let Some(metadata) = metadata {
        write_metadata(&mut text, metadata)?;
    }
    for &index in order {
        if text.len() > 1 {
            text.push(',');
        }
        write_tensor(&mut text, &tensors[index], offsets[index]);
    }
    text.push('}');
    Ok(text)
}

fn write_metadata(text: &mut String, metadata: &[(&str, &str)]) -> Result<()> {
    let mut sorted = metadata.to_vec();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let message = format!("the metadata key {} is given twice", Named(twice[0].0));
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    text.push_str("\"__metadata__\":{");
    for (index, (key, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(text, key);
        text.push(':');
        write_string(text, value);
    }
    text.push('}');
    Ok(())
}

fn write_tensor(text: &mut String, tensor: &TensorSpec<'_>, offsets: ByteRange) {
    write_string(text, tensor.name);
    text.push_str(":{\"dtype\":\"");
    text.push_str(tensor.dtype.name());
    text.push_str("\",\"shape\":[");
    for (index, size) in tensor.shape.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_number(text, *size);
    }
    text.push_str("],\"data_offsets\":[");
    write_number(text, offsets.start);
    text.push(',');
    write_number(text, offsets.end);
    text.push_str("]}");
}

fn write_number(text: &mut String, number: u64) {
    // A String takes everything that is written to it.
    let _ = write!(text, "{number}");
}

/// Writes `string` in quotes, escaped as crate `serde_json` does.
pub(crate) fn write_string(text: &mut String, string: &str) {
    text.push('"');
    let mut rest = string;
    while let Some(at) = rest
        .bytes()
        .position(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
    {
        text.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            0x8 => text.push_str("\\b"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            0xc => text.push_str("\\f"),
            b'\r' => text.push_str("\\r"),
            control => {
                let _ = write!(text, "\\u{control:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
    text.push('"');
}

/// Pads `head` with spaces up to a multiple of `align`; the header length then.
fn pad(head: &mut Vec<u8>, align: u64) -> Result<u64> {
    let mut size = (head.len() as u64).next_multiple_of(align);
    if size - LENGTH_BYTES == ZIP_MAGIC {
        size += align;
    }
    let length = size - LENGTH_BYTES;
    if length > MAX_HEADER_BYTES {
        let message =
            format!("the header takes {length} bytes, over the limit of {MAX_HEADER_BYTES}");
        return Err(Error::new(ErrorKind::HeaderTooLarge, message)
            .with_hint("write the tensors into several files, or give them shorter names"));
    }
    head.resize(size as usize, b' ');
    Ok(length)
}
