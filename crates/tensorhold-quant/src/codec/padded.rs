//! As many codes as go into a word of 32 bits, from the least significant bit on; the bits above are unused.
//!
//! # Source
//! compressed-tensors before June 2026, for 3, 5, 6 and 7 bits.

use super::unit::{self, Lead};

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
pub(super) fn unpack(bits: u32, packed: &[u8], first: u64, into: &mut [u8]) {
    with_width!(bits, unpack_as(packed, first, into));
}

/// Fills `into` with all `codes`.
pub(super) fn pack(bits: u32, codes: &[u8], into: &mut [u8]) {
    with_width!(bits, pack_as(codes, into));
}

fn unpack_as<const BITS: usize, const CODES: usize>(packed: &[u8], first: u64, into: &mut [u8]) {
    let lead = Lead {
        codes: (first % CODES as u64) as usize,
        bytes: 0,
    };
    unit::unpack::<CODES, 4>(packed, lead, into, |word| {
        let word = u32::from_le_bytes(word);
        core::array::from_fn(|place| (word >> (BITS * place) & ((1 << BITS) - 1)) as u8)
    });
}

fn pack_as<const BITS: usize, const CODES: usize>(codes: &[u8], into: &mut [u8]) {
    unit::pack::<CODES, 4>(codes, into, |codes| {
        let places = codes.iter().enumerate();
        let word = places.fold(0, |word, (place, code)| {
            word | u32::from(*code) << (BITS * place)
        });
        word.to_le_bytes()
    });
}
