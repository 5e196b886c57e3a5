//! The short way through a tensor's description that is written as every known writer does: the
//! three fields in their usual order and no spaces.
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
    let text = text.strip_prefix(br#"{"dtype":""#)?;
    let length = text
        .iter()
        .take(LONGEST_DTYPE + 1)
        .position(|&byte| byte == b'"')?;
    let (dtype, text) = text.split_at(length);
    let dtype = Dtype::from_name(dtype)?;
    let mut text = text.strip_prefix(br#"","shape":["#)?;
    let dims_start = dims.len();
    let mut n_elements = Some(1_u64);
    if text.first() != Some(&b']') {
        loop {
            let (size, tail) = number(text)?;
            n_elements = n_elements.and_then(|product| product.checked_mul(size));
            if dims.len() - dims_start == LONGEST_SHAPE {
                return None;
            }
            dims.push(size);
            text = tail;
            match text.strip_prefix(b",") {
                Some(tail) => text = tail,
                None => break,
            }
        }
    }
    let text = text.strip_prefix(br#"],"data_offsets":["#)?;
    let (start, text) = number(text)?;
    let (end, text) = number(text.strip_prefix(b",")?)?;
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

const LONGEST_DTYPE: usize = 11;

/// The most dimensions that the short way takes.
pub(super) const LONGEST_SHAPE: usize = 16;

/// The number at the start of `text` if it has at most 19 digits, which no `u64` overflows.
#[inline]
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
