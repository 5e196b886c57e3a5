//! Eight codes of 4 bits in a word: its lower half has those of even places, its upper half the others.
//!
//! # Source
//! The GEMM layout of AutoAWQ, where a word is 8 columns of a row.

use super::rows::{Piece, Pieces};
use super::unit::{self, Lead, Unit};

/// The number of codes in a word.
pub(super) const CODES: u64 = 8;

/// Fills `into` with the codes from `first` on; `packed` starts with the word which that one is in.
#[inline(always)]
pub(super) fn unpack(packed: &[u8], first: u64, into: &mut [u8]) {
    let lead = Lead {
        codes: (first % CODES) as usize,
        bytes: 0,
    };
    unit::unpack::<Word, { CODES as usize }, 4>(packed, lead, into);
}

/// Fills `into` with all `codes`.
#[inline(always)]
pub(super) fn pack(codes: &[u8], into: &mut [u8]) {
    unit::pack::<Word, { CODES as usize }, 4>(codes, into);
}

/// Where a code lies in the words of a column.
#[inline(always)]
pub(super) fn pieces(code: u64) -> Pieces {
    let place = (code % CODES) as u32;
    let shift = place / 2 * 4 + place % 2 * 16;
    let piece = Piece {
        word: code / CODES,
        shift,
        width: 4,
        place: 0,
    };
    [Some(piece), None, None]
}

struct Word;

impl Unit<{ CODES as usize }, 4> for Word {
    #[inline(always)]
    fn unpack(word: [u8; 4]) -> [u8; CODES as usize] {
        let word = u64::from(u32::from_le_bytes(word));
        (spread(word & 0xffff) | spread(word >> 16) << 8).to_le_bytes()
    }

    #[inline(always)]
    fn pack([a, b, c, d, e, f, g, h]: [u8; CODES as usize]) -> [u8; 4] {
        [a | c << 4, e | g << 4, b | d << 4, f | h << 4]
    }
}

/// The four nibbles of a half word, each in 16 bits.
#[inline(always)]
fn spread(nibbles: u64) -> u64 {
    let twos = (nibbles | nibbles << 24) & 0x0000_00ff_0000_00ff;
    (twos | twos << 12) & 0x000f_000f_000f_000f
}
