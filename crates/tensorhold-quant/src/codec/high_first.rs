//! Two codes of 4 bits in a byte, the first in the upper half.
//!
//! # Source
//! bitsandbytes, and the NVFP4 of ComfyUI.

use super::rows::{Piece, Pieces};
use super::unit::{self, Lead, Unit};

/// Fills `into` with the codes from `first` on; `packed` starts with the byte which that one is in.
#[inline(always)]
pub(super) fn unpack(packed: &[u8], first: u64, into: &mut [u8]) {
    let lead = Lead {
        codes: (first % 2) as usize,
        bytes: 0,
    };
    unit::unpack::<Pair, 2, 1>(packed, lead, into);
}

/// Fills `into` with all `codes`.
#[inline(always)]
pub(super) fn pack(codes: &[u8], into: &mut [u8]) {
    unit::pack::<Pair, 2, 1>(codes, into);
}

/// Where a code lies in the bytes of a column.
#[inline(always)]
pub(super) fn pieces(code: u64) -> Pieces {
    let piece = Piece {
        word: code / 2,
        shift: if code.is_multiple_of(2) { 4 } else { 0 },
        width: 4,
        place: 0,
    };
    [Some(piece), None, None]
}

struct Pair;

impl Unit<2, 1> for Pair {
    #[inline(always)]
    fn unpack([byte]: [u8; 1]) -> [u8; 2] {
        [byte >> 4, byte & 15]
    }

    #[inline(always)]
    fn pack([high, low]: [u8; 2]) -> [u8; 1] {
        [high << 4 | low]
    }
}
