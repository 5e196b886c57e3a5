//! Codes one after another from the least significant bit on, across bytes and words alike.
//!
//! Eight codes are spread over the bytes of a u64 in three steps, each of which halves the groups of codes that
//! lie together: 8 codes of 3 bits become twice 4, four times 2, eight times 1. It is arithmetic on whole
//! registers, so that compilers make vectors of it.
//!
//! # Source
//! GPTQ, compressed-tensors, MLX, and the nibbles of the OCP formats.

use super::rows::{Piece, Pieces};
use super::unit::{self, Lead, Unit};

/// Runs a function for the codes of `bits` bits that fill whole bytes: it is given the bits, the number of codes
/// and that of bytes.
macro_rules! with_width {
    ($bits:expr, $function:ident($($argument:expr),*)) => {
        match $bits {
            1 => $function::<1, 8, 1>($($argument),*),
            2 => $function::<2, 4, 1>($($argument),*),
            3 => $function::<3, 8, 3>($($argument),*),
            4 => $function::<4, 2, 1>($($argument),*),
            5 => $function::<5, 8, 5>($($argument),*),
            6 => $function::<6, 4, 3>($($argument),*),
            7 => $function::<7, 8, 7>($($argument),*),
            _ => $function::<8, 8, 8>($($argument),*),
        }
    };
}

/// Fills `into` with the codes from `first` on; `packed` starts with the byte in which that one starts.
#[inline(always)]
pub(super) fn unpack(bits: u32, packed: &[u8], first: u64, into: &mut [u8]) {
    with_width!(bits, unpack_as(packed, first, into));
}

/// Fills `into` with all `codes`.
#[inline(always)]
pub(super) fn pack(bits: u32, codes: &[u8], into: &mut [u8]) {
    with_width!(bits, pack_as(codes, into));
}

#[inline(always)]
fn unpack_as<const BITS: usize, const CODES: usize, const BYTES: usize>(
    packed: &[u8],
    first: u64,
    into: &mut [u8],
) {
    let codes = (first % CODES as u64) as usize;
    let bytes = codes * BITS / 8;
    let lead = Lead { codes, bytes };
    unit::unpack::<Dense<BITS>, CODES, BYTES>(packed, lead, into);
}

#[inline(always)]
fn pack_as<const BITS: usize, const CODES: usize, const BYTES: usize>(
    codes: &[u8],
    into: &mut [u8],
) {
    unit::pack::<Dense<BITS>, CODES, BYTES>(codes, into);
}

/// As many codes of `BITS` bits, up to 8, as fill whole bytes.
struct Dense<const BITS: usize>;

impl<const BITS: usize, const CODES: usize, const BYTES: usize> Unit<CODES, BYTES> for Dense<BITS> {
    #[inline(always)]
    fn unpack(bytes: [u8; BYTES]) -> [u8; CODES] {
        take(spread::<BITS>(word(&bytes)).to_le_bytes())
    }

    #[inline(always)]
    fn pack(codes: [u8; CODES]) -> [u8; BYTES] {
        take(gather::<BITS>(word(&codes)).to_le_bytes())
    }
}

/// Where a code lies in the words of a column, of `WORD` bits each.
#[inline(always)]
pub(super) fn pieces<const WORD: u32>(bits: u32, code: u64) -> Pieces {
    let bit = code * u64::from(bits);
    let (word, shift) = (bit / u64::from(WORD), (bit % u64::from(WORD)) as u32);
    let width = bits.min(WORD - shift);
    let low = Piece {
        word,
        shift,
        width,
        place: 0,
    };
    let high = Piece {
        word: word + 1,
        shift: 0,
        width: bits - width,
        place: width,
    };
    [Some(low), (width < bits).then_some(high), None]
}

/// Up to 8 bytes as the low ones of a word.
#[inline(always)]
pub(super) fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[inline(always)]
fn take<const N: usize>(bytes: [u8; 8]) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[..N]);
    taken
}

/// Eight codes of `BITS` bits that lie together, each in its byte.
#[inline(always)]
pub(super) fn spread<const BITS: usize>(codes: u64) -> u64 {
    let fours = codes & lanes(4 * BITS, 64) | codes >> (4 * BITS) << 32;
    let twos = fours & lanes(2 * BITS, 32) | (fours >> (2 * BITS) & lanes(2 * BITS, 32)) << 16;
    twos & lanes(BITS, 16) | (twos >> BITS & lanes(BITS, 16)) << 8
}

/// The way back from [`spread`], for codes that fit.
#[inline(always)]
pub(super) fn gather<const BITS: usize>(bytes: u64) -> u64 {
    let twos = bytes & lanes(BITS, 16) | (bytes >> 8 & lanes(BITS, 16)) << BITS;
    let fours = twos & lanes(2 * BITS, 32) | (twos >> 16 & lanes(2 * BITS, 32)) << (2 * BITS);
    fours & lanes(4 * BITS, 64) | fours >> 32 << (4 * BITS)
}

/// The low `width` bits of every lane of `lane` bits.
const fn lanes(width: usize, lane: usize) -> u64 {
    let (mut mask, mut at) = (0, 0);
    while at < 64 {
        mask |= ((1 << width) - 1) << at;
        at += lane;
    }
    mask
}
