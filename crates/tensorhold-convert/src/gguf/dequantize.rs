//! The numbers that quantized blocks stand for.
//!
//! A block has one or more scales, often a minimum, and a few bits for each element: an element is
//! `scale * bits - minimum`, with the bits shifted to be signed in some types. Each operation is done once, in F32, in
//! the order in which ggml does it, so that the results have the same bits.
//!
//! # Source
//! The `dequantize_row_*` of `ggml-quants.c` in ggml; `gguf.quants` of the package `gguf` 0.19 is the tests' oracle.

use tensorhold_core::{Error, ErrorKind, Result};

use super::Kind;

/// Writes the numbers of `blocks`, whole blocks of the type `kind`, to `values`.
///
/// # Errors
/// `InvalidArgument` for a type whose blocks are not taken apart here, and if `values` has not one place for each
/// element.
pub fn dequantize(
    kind: Kind,
    is_big_endian: bool,
    blocks: &[u8],
    values: &mut [f32],
) -> Result<()> {
    let block_bytes = kind.block_bytes() as usize;
    let block_elements = kind.block_elements() as usize;
    let n_blocks = blocks.len() / block_bytes;
    if !blocks.len().is_multiple_of(block_bytes) || values.len() != n_blocks * block_elements {
        let (n_bytes, name, n_values) = (blocks.len(), kind.name(), values.len());
        let message = format!("{n_bytes} bytes of {name} are not {n_values} values");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let unpack = unpack_of(kind, is_big_endian).ok_or_else(|| refuse(kind, is_big_endian))?;
    let mut swapped = Vec::new();
    for (block, values) in blocks
        .chunks_exact(block_bytes)
        .zip(values.chunks_exact_mut(block_elements))
    {
        if is_big_endian {
            swapped.clear();
            swapped.extend_from_slice(block);
            swap_scales(kind, &mut swapped);
            unpack(&swapped, values);
        } else {
            unpack(block, values);
        }
    }
    Ok(())
}

impl Kind {
    /// Whether [`dequantize`] takes blocks of this type apart.
    #[must_use]
    pub fn is_dequantized(self, is_big_endian: bool) -> bool {
        unpack_of(self, is_big_endian).is_some()
    }
}

fn refuse(kind: Kind, is_big_endian: bool) -> Error {
    let order = if is_big_endian { "big-endian " } else { "" };
    let message = format!(
        "{order}blocks of the type {} are not dequantized",
        kind.name()
    );
    let error = Error::new(ErrorKind::InvalidArgument, message);
    error.with_hint("keep the tensor as blocks, or convert the file with llama.cpp first")
}

/// Writes the elements of one block.
type Unpack = fn(&[u8], &mut [f32]);

fn unpack_of(kind: Kind, is_big_endian: bool) -> Option<Unpack> {
    // Of these alone is known how big-endian files hold them.
    let is_known = matches!(
        kind,
        Kind::Q4_0 | Kind::Q8_0 | Kind::Q4_K | Kind::Q6_K | Kind::MXFP4
    );
    if is_big_endian && !is_known {
        return None;
    }
    Some(match kind {
        Kind::Q4_0 => q4_0,
        Kind::Q4_1 => q4_1,
        Kind::Q5_0 => q5_0,
        Kind::Q5_1 => q5_1,
        Kind::Q8_0 => q8_0,
        Kind::Q2_K => q2_k,
        Kind::Q3_K => q3_k,
        Kind::Q4_K => q4_k,
        Kind::Q5_K => q5_k,
        Kind::Q6_K => q6_k,
        Kind::IQ4_NL => iq4_nl,
        Kind::IQ4_XS => iq4_xs,
        Kind::MXFP4 => mxfp4,
        _ => return None,
    })
}

/// Turns the 16-bit scales of a big-endian block around.
fn swap_scales(kind: Kind, block: &mut [u8]) {
    let at: &[usize] = match kind {
        Kind::Q4_0 | Kind::Q8_0 => &[0],
        Kind::Q4_K => &[0, 2],
        Kind::Q6_K => &[208],
        _ => &[],
    };
    for &at in at {
        block.swap(at, at + 1);
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    let bits = u16::from_le_bytes([block[at], block[at + 1]]);
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = match (bits >> 10 & 0x1f, u32::from(bits & 0x3ff)) {
        // A subnormal is a count of 2^-24.
        (0, mantissa) => (mantissa as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        (0x1f, mantissa) => 0x7f80_0000 | mantissa << 13,
        (exponent, mantissa) => (u32::from(exponent) + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

fn signed(byte: u8) -> f32 {
    f32::from(byte as i8)
}

/// The low half of each byte for the first elements, the high half for the rest.
fn halves(bytes: &[u8], values: &mut [f32], number: impl Fn(u8, usize) -> f32) {
    let (low, high) = values.split_at_mut(bytes.len());
    for (index, byte) in bytes.iter().enumerate() {
        low[index] = number(byte & 15, index);
        high[index] = number(byte >> 4, index + bytes.len());
    }
}

fn q4_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    halves(&block[2..], values, |bits, _| {
        scale * (f32::from(bits) - 8.0)
    });
}

fn q4_1(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    halves(&block[4..], values, |bits, _| {
        scale * f32::from(bits) + minimum
    });
}

/// The bit of element `index` in 32 bits, as the fifth bit of its value.
fn fifth_bit(bits: &[u8], index: usize) -> u8 {
    (bits[index / 8] >> (index % 8) & 1) << 4
}

fn q5_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    let high = &block[2..6];
    halves(&block[6..], values, |bits, index| {
        scale * (f32::from(bits | fifth_bit(high, index)) - 16.0)
    });
}

fn q5_1(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let high = &block[4..8];
    halves(&block[8..], values, |bits, index| {
        scale * f32::from(bits | fifth_bit(high, index)) + minimum
    });
}

fn q8_0(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    for (value, byte) in values.iter_mut().zip(&block[2..]) {
        *value = scale * signed(*byte);
    }
}

/// For element `index` of 256 with two bits each: in each half of the block, 32 bytes give four runs of 32 elements.
fn two_bits(bytes: &[u8], index: usize) -> u8 {
    let (half, run, place) = (index / 128, index / 32 % 4, index % 32);
    bytes[half * 32 + place] >> (2 * run) & 3
}

fn q2_k(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    let (scales, bits) = (&block[..16], &block[16..80]);
    for (index, value) in values.iter_mut().enumerate() {
        let of_run = scales[index / 16];
        let (scale, minimum) = (
            scale * f32::from(of_run & 15),
            minimum * f32::from(of_run >> 4),
        );
        *value = scale * f32::from(two_bits(bits, index)) - minimum;
    }
}

fn q3_k(block: &[u8], values: &mut [f32]) {
    let (mask, bits, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = half(block, 108);
    for (index, value) in values.iter_mut().enumerate() {
        let run = index / 16;
        let low = packed[run % 8] >> (4 * (run / 8)) & 15;
        let high = packed[8 + run % 4] >> (2 * (run / 4)) & 3;
        let of_run = f32::from(low | high << 4) - 32.0;
        // A bit of the mask that is not set takes four away.
        let taken = if mask[index % 32] >> (index / 32) & 1 == 1 {
            0.0
        } else {
            4.0
        };
        *value = scale * of_run * (f32::from(two_bits(bits, index)) - taken);
    }
}

/// Scale and minimum of a run of 32 elements: 6 bits each, of which later runs have the high two beside the earlier
/// ones' six.
fn scale_and_minimum(packed: &[u8], run: usize) -> (f32, f32) {
    let (scale, minimum) = if run < 4 {
        (packed[run] & 63, packed[run + 4] & 63)
    } else {
        (
            packed[run + 4] & 15 | packed[run - 4] >> 6 << 4,
            packed[run + 4] >> 4 | packed[run] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (packed, bits) = (&block[4..16], &block[16..]);
    for (run, values) in values.chunks_exact_mut(32).enumerate() {
        let (of_scale, of_minimum) = scale_and_minimum(packed, run);
        let (scale, minimum) = (scale * of_scale, minimum * of_minimum);
        for (place, value) in values.iter_mut().enumerate() {
            let bits = bits[run / 2 * 32 + place] >> (4 * (run % 2)) & 15;
            *value = scale * f32::from(bits) - minimum;
        }
    }
}

fn q5_k(block: &[u8], values: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let (packed, high, bits) = (&block[4..16], &block[16..48], &block[48..]);
    for (run, values) in values.chunks_exact_mut(32).enumerate() {
        let (of_scale, of_minimum) = scale_and_minimum(packed, run);
        let (scale, minimum) = (scale * of_scale, minimum * of_minimum);
        for (place, value) in values.iter_mut().enumerate() {
            let low = bits[run / 2 * 32 + place] >> (4 * (run % 2)) & 15;
            let bits = low | (high[place] >> run & 1) << 4;
            *value = scale * f32::from(bits) - minimum;
        }
    }
}

fn q6_k(block: &[u8], values: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half(block, 208);
    for (index, value) in values.iter_mut().enumerate() {
        let (half, run, place) = (index / 128, index / 32 % 4, index % 32);
        let four = low[half * 64 + run % 2 * 32 + place] >> (4 * (run / 2)) & 15;
        let two = high[half * 32 + place] >> (2 * run) & 3;
        let bits = f32::from(four | two << 4) - 32.0;
        *value = scale * signed(scales[index / 16]) * bits;
    }
}

/// The sixteen levels of the non-linear 4-bit types.
const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

fn level(bits: u8) -> f32 {
    f32::from(LEVELS[usize::from(bits)])
}

fn iq4_nl(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    halves(&block[2..], values, |bits, _| scale * level(bits));
}

fn iq4_xs(block: &[u8], values: &mut [f32]) {
    let scale = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    let (low, bits) = (&block[4..8], &block[8..]);
    for (run, values) in values.chunks_exact_mut(32).enumerate() {
        let four = low[run / 2] >> (4 * (run % 2)) & 15;
        let two = (high >> (2 * run) & 3) as u8;
        let scale = scale * (f32::from(four | two << 4) - 32.0);
        halves(&bits[16 * run..16 * run + 16], values, |bits, _| {
            scale * level(bits)
        });
    }
}

fn mxfp4(block: &[u8], values: &mut [f32]) {
    /// The values of E2M1, doubled.
    const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
    // Half of the power of two that the byte stands for; the two least are subnormal.
    let exponent = u32::from(block[0]);
    let scale = f32::from_bits(match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => (exponent - 1) << 23,
    });
    halves(&block[1..], values, |bits, _| {
        scale * f32::from(DOUBLED[usize::from(bits)])
    });
}
