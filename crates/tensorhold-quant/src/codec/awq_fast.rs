//! 32 codes of 4 bits in 16 bytes, in the order in which a kernel of AWQ takes them into registers.
//!
//! Codes go in pairs. The four pairs that are eight codes apart come together, first the even codes of all and then the odd
//! ones: 0, 8, 16, 24, 1, 9, 17, 25, and then the same from 2, 4 and 6 on.
//!
//! # Source
//! `pack_intweight` of llm-awq and AutoAWQ 0.2.9.

use super::unit::{self, Lead, Unit};

/// The number of codes in a unit.
pub(super) const CODES: u64 = 32;

/// Fills `into` with the codes from `first` on; `packed` starts with the unit which that one is in.
#[inline(always)]
pub(super) fn unpack(packed: &[u8], first: u64, into: &mut [u8]) {
    let lead = Lead {
        codes: (first % CODES) as usize,
        bytes: 0,
    };
    unit::unpack::<Fragment, { CODES as usize }, 16>(packed, lead, into);
}

/// Fills `into` with all `codes`.
#[inline(always)]
pub(super) fn pack(codes: &[u8], into: &mut [u8]) {
    unit::pack::<Fragment, { CODES as usize }, 16>(codes, into);
}

struct Fragment;

/// The code at a place of the unit.
const fn code_at(place: usize) -> usize {
    let (pair, odd, octet) = (place / 8, place / 4 % 2, place % 4);
    octet * 8 + pair * 2 + odd
}

impl Unit<{ CODES as usize }, 16> for Fragment {
    #[inline(always)]
    fn unpack(bytes: [u8; 16]) -> [u8; CODES as usize] {
        let mut codes = [0; CODES as usize];
        for (place, byte) in bytes.iter().enumerate() {
            codes[code_at(2 * place)] = byte & 15;
            codes[code_at(2 * place + 1)] = byte >> 4;
        }
        codes
    }

    #[inline(always)]
    fn pack(codes: [u8; CODES as usize]) -> [u8; 16] {
        core::array::from_fn(|place| codes[code_at(2 * place)] | codes[code_at(2 * place + 1)] << 4)
    }
}
