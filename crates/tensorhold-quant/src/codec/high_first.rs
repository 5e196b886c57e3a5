//! Two codes of 4 bits in a byte, the first in the upper half.
//!
//! # Source
//! bitsandbytes, and the NVFP4 of ComfyUI.

use super::unit::{self, Lead};

/// Fills `into` with the codes from `first` on; `packed` starts with the byte which that one is in.
pub(super) fn unpack(packed: &[u8], first: u64, into: &mut [u8]) {
    let lead = Lead {
        codes: (first % 2) as usize,
        bytes: 0,
    };
    unit::unpack(packed, lead, into, |[byte]| [byte >> 4, byte & 15]);
}

/// Fills `into` with all `codes`.
pub(super) fn pack(codes: &[u8], into: &mut [u8]) {
    unit::pack(codes, into, |[high, low]| [high << 4 | low]);
}
