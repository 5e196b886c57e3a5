//! Casts between the float types, with the values of PyTorch.
//!
//! Every cast is two steps, as it is in PyTorch: the element is read as an F32 (`decode`), and the F32 is
//! written as the wanted type (`encode`). Blocks that fit the first cache go through both. The steps are plain
//! loops, compiled once for every [`Level`] of the processor; F16 has instructions of its own (`half`). Results
//! are stored by way of the caches: stream stores were slower, for large results too.
//!
//! # Source
//! `torch.Tensor.to` of PyTorch 2.15 on an x86-64 processor with AVX2, bit for bit, as `tests/cast_golden.py`
//! checks. PyTorch has two NaNs for F64 to BF16, 0xffff in whole vectors and 0x7fc0 in what is left at the end
//! of a stretch; here it is always the first. F32 to BF16 has 0xffff in both.

pub(crate) mod decode;
pub(crate) mod encode;
#[cfg(target_arch = "x86_64")]
mod half;
pub(crate) mod level;
mod single;
#[cfg(test)]
mod tests;

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use level::Level;

/// Elements that go through both steps at once: 4 KiB as F32.
const BLOCK: usize = 1024;

/// Whether elements of `from` can be cast to `to`: both are floats of 8 to 64 bits.
#[must_use]
pub fn can_cast(from: Dtype, to: Dtype) -> bool {
    float_bytes(from).is_some() && float_bytes(to).is_some()
}

/// Writes the elements of `bytes`, which are of type `from`, into `into` as type `to`.
///
/// Both are little-endian and of any alignment. Values are rounded to nearest even, by way of F32, as PyTorch
/// does; equal types are copied, NaNs and all.
///
/// # Errors
/// `InvalidArgument` when the pair cannot be cast, when `bytes` ends inside an element, or when `into` is not
/// as long as the elements need.
pub fn cast(from: Dtype, bytes: &[u8], to: Dtype, into: &mut [u8]) -> Result<()> {
    check(from, bytes.len(), to, into.len())?;
    cast_at(Level::detect(), from, bytes, to, into);
    Ok(())
}

/// The width of an element of a type that can be cast.
fn float_bytes(dtype: Dtype) -> Option<usize> {
    use Dtype::*;
    match dtype {
        F8_E4M3 | F8_E5M2 | F8_E4M3FNUZ | F8_E5M2FNUZ | F8_E8M0 => Some(1),
        F16 | BF16 => Some(2),
        F32 => Some(4),
        F64 => Some(8),
        _ => None,
    }
}

fn check(from: Dtype, from_len: usize, to: Dtype, to_len: usize) -> Result<()> {
    let refuse = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
    let (Some(from_bytes), Some(to_bytes)) = (float_bytes(from), float_bytes(to)) else {
        return refuse(format!(
            "cannot cast `{from}` to `{to}`: only floats of 8 to 64 bits are cast"
        ));
    };
    if !from_len.is_multiple_of(from_bytes) {
        return refuse(format!(
            "{from_len} bytes of `{from}` end inside an element of {from_bytes} bytes"
        ));
    }
    let n_elements = from_len / from_bytes;
    if n_elements.checked_mul(to_bytes) != Some(to_len) {
        return refuse(format!(
            "{n_elements} elements cast to `{to}` take {to_bytes} bytes each, but there is room for {to_len} bytes"
        ));
    }
    Ok(())
}

/// Does what [`cast`] does, for what [`check`] has let through.
fn cast_at(level: Level, from: Dtype, bytes: &[u8], to: Dtype, into: &mut [u8]) {
    let is_wide = matches!(from, Dtype::F32 | Dtype::F64);
    match (from, to) {
        _ if from == to => into.copy_from_slice(bytes),
        (Dtype::F32, _) => encode(level, bytes.as_chunks().0, to, is_wide, into),
        (_, Dtype::F32) => decode(level, from, bytes, into.as_chunks_mut().0),
        _ => {
            let mut singles = [[0; 4]; BLOCK];
            let (from_bytes, to_bytes) = (float_bytes(from), float_bytes(to));
            let blocks = bytes.chunks(BLOCK * from_bytes.unwrap_or(1));
            for (bytes, into) in blocks.zip(into.chunks_mut(BLOCK * to_bytes.unwrap_or(1))) {
                let singles = &mut singles[..bytes.len() / from_bytes.unwrap_or(1)];
                decode(level, from, bytes, singles);
                encode(level, singles, to, is_wide, into);
            }
        }
    }
}

fn decode(level: Level, from: Dtype, bytes: &[u8], into: &mut [[u8; 4]]) {
    match from {
        Dtype::F64 => level.decode::<decode::F64>(bytes, into),
        Dtype::F16 => level.decode_half(bytes, into),
        Dtype::BF16 => level.decode::<decode::Bf16>(bytes, into),
        Dtype::F8_E4M3 => level.decode::<decode::F8E4m3>(bytes, into),
        Dtype::F8_E5M2 => level.decode::<decode::F8E5m2>(bytes, into),
        Dtype::F8_E4M3FNUZ => level.decode::<decode::F8E4m3Fnuz>(bytes, into),
        Dtype::F8_E5M2FNUZ => level.decode::<decode::F8E5m2Fnuz>(bytes, into),
        _ => level.decode::<decode::F8E8m0>(bytes, into),
    }
}

fn encode(level: Level, singles: &[[u8; 4]], to: Dtype, is_wide: bool, into: &mut [u8]) {
    match to {
        Dtype::F64 => level.encode::<encode::F64>(singles, into),
        Dtype::F16 => level.encode_half(singles, into),
        Dtype::BF16 if is_wide => level.encode::<encode::Bf16OnesNan>(singles, into),
        Dtype::BF16 => level.encode::<encode::Bf16QuietNan>(singles, into),
        Dtype::F8_E4M3 => level.encode::<encode::F8E4m3>(singles, into),
        Dtype::F8_E5M2 => level.encode::<encode::F8E5m2>(singles, into),
        Dtype::F8_E4M3FNUZ => level.encode::<encode::F8E4m3Fnuz>(singles, into),
        Dtype::F8_E5M2FNUZ => level.encode::<encode::F8E5m2Fnuz>(singles, into),
        _ => level.encode::<encode::F8E8m0>(singles, into),
    }
}
