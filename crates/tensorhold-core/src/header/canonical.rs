//! The short way through a tensor's description that is written as every known writer does: the
//! three fields in their usual order, without spaces or with one after commas and colons.
//!
//! Whatever else is found, it answers `None`, and the general way decides.

use alloc::vec::Vec;

use crate::dtype::Dtype;

use super::shapes::Place;

/// What a description says: the dtype, the shape, the product of its dims unless that passes 2^64,
/// and the offsets.
pub(super) struct Description {
    pub dtype: Dtype,
    pub shape: Place,
    pub n_elements: Option<u64>,
    pub start: u64,
    pub end: u64,
}

/// The description at the start of `text`, and the text after it. Its dims are appended to `dims`,
/// which may hold a part of them where the answer is `None`.
#[inline]
pub(super) fn description<'a>(
    text: &'a [u8],
    dims: &mut Vec<u64>,
) -> Option<(Description, &'a [u8])> {
    let text = after(text, br#"{"dtype":""#, br#" {"dtype": ""#)?;
    let length = text
        .iter()
        .take(LONGEST_DTYPE + 1)
        .position(|&byte| byte == b'"')?;
    let (dtype, text) = text.split_at(length);
    let dtype = Dtype::from_name(dtype)?;
    let text = after(text, br#"","shape":["#, br#"", "shape": ["#)?;
    let dims_start = dims.len();
    let (n_elements, text) = shape(text, dims)?;
    let text = after(text, br#"],"data_offsets":["#, br#"], "data_offsets": ["#)?;
    let (start, text) = number(text)?;
    let (end, text) = number(after(text, b", ", b",")?)?;
    let text = text.strip_prefix(b"]}")?;
    let rank = (dims.len() - dims_start) as u32;
    let shape = Place {
        start: dims_start as u32,
        rank,
        is_long: false,
    };
    Some((
        Description {
            dtype,
            shape,
            n_elements,
            start,
            end,
        },
        text,
    ))
}

/// Appends the dims at the start of `text` to `dims`; their product, and the text from the `]` on.
#[inline]
fn shape<'a>(mut text: &'a [u8], dims: &mut Vec<u64>) -> Option<(Option<u64>, &'a [u8])> {
    let mut n_elements = Some(1_u64);
    if text.first() == Some(&b']') {
        return Some((n_elements, text));
    }
    for _ in 0..LONGEST_SHAPE {
        let (size, tail) = number(text)?;
        n_elements = n_elements.and_then(|product| product.checked_mul(size));
        dims.push(size);
        if tail.first() == Some(&b']') {
            return Some((n_elements, tail));
        }
        text = after(tail, b", ", b",")?;
    }
    None
}

/// What follows `first`, or else `second`, at the start of `text`.
#[inline(always)]
fn after<'a, const N: usize, const M: usize>(
    text: &'a [u8],
    first: &[u8; N],
    second: &[u8; M],
) -> Option<&'a [u8]> {
    text.strip_prefix(first)
        .or_else(|| text.strip_prefix(second))
}

const LONGEST_DTYPE: usize = 11;

/// The most dimensions that the short way takes.
pub(super) const LONGEST_SHAPE: usize = 16;

/// The number at the start of `text` if it has at most 19 digits, which no `u64` overflows.
#[inline(always)]
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    let mut length = 0;
    while let Some(digit) = text.get(length).map(|byte| byte.wrapping_sub(b'0')) {
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        length += 1;
    }
    let is_one_digit = length == 1;
    let is_number = is_one_digit || (2..=19).contains(&length) && text[0] != b'0';
    is_number.then(|| (value, &text[length..]))
}
