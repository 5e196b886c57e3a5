//! Two codes of 4 bits in a byte, the first in the upper half.
//!
//! # Source
//! bitsandbytes, and the NVFP4 of ComfyUI.

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
