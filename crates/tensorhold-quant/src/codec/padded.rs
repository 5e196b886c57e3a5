//! As many codes as go into a word of 32 bits, from the least significant bit on; the bits above are unused.
//!
//! # Source
//! compressed-tensors before June 2026, for 3, 5, 6 and 7 bits.

use super::rows::{Piece, Pieces};
use super::unit::{self, Lead, Unit};

/// The number of codes in a word.
pub(super) const fn codes_in_word(bits: u32) -> u64 {
    (32 / bits) as u64
}

/// Runs a function for codes of `bits` bits: it is given the bits and the number of codes in a word.
macro_rules! with_width {
    ($bits:expr, $function:ident($($argument:expr),*)) => {
        match $bits {
            1 => $function::<1, 32>($($argument),*),
            2 => $function::<2, 16>($($argument),*),
            3 => $function::<3, 10>($($argument),*),
            4 => $function::<4, 8>($($argument),*),
            5 => $function::<5, 6>($($argument),*),
            6 => $function::<6, 5>($($argument),*),
            7 => $function::<7, 4>($($argument),*),
            _ => $function::<8, 4>($($argument),*),
        }
    };
}

/// Fills `into` with the codes from `first` on; `packed` starts with the word which that one is in.
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
fn unpack_as<const BITS: usize, const CODES: usize>(packed: &[u8], first: u64, into: &mut [u8]) {
    let lead = Lead {
        codes: (first % CODES as u64) as usize,
        bytes: 0,
    };
    unit::unpack::<Word<BITS>, CODES, 4>(packed, lead, into);
}

#[inline(always)]
fn pack_as<const BITS: usize, const CODES: usize>(codes: &[u8], into: &mut [u8]) {
    unit::pack::<Word<BITS>, CODES, 4>(codes, into);
}

/// Where a code lies in the words of a column.
#[inline(always)]
pub(super) fn pieces(bits: u32, code: u64) -> Pieces {
    let word = code / codes_in_word(bits);
    let shift = (code % codes_in_word(bits)) as u32 * bits;
    let piece = Piece {
        word,
        shift,
        width: bits,
        place: 0,
    };
    [Some(piece), None, None]
}

struct Word<const BITS: usize>;

impl<const BITS: usize, const CODES: usize> Unit<CODES, 4> for Word<BITS> {
    #[inline(always)]
    fn unpack(word: [u8; 4]) -> [u8; CODES] {
        let word = u32::from_le_bytes(word);
        let mut codes = [0; CODES];
        for (place, code) in codes.iter_mut().enumerate() {
            *code = (word >> (BITS * place) & ((1 << BITS) - 1)) as u8;
        }
        codes
    }

    #[inline(always)]
    fn pack(codes: [u8; CODES]) -> [u8; 4] {
        let mut word = 0;
        for (place, code) in codes.iter().enumerate() {
            word |= u32::from(*code) << (BITS * place);
        }
        word.to_le_bytes()
    }
}
