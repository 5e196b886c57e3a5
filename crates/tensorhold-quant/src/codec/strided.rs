//! A run cut into as many parts as there are codes in a byte; the byte at a place has the codes at that place
//! of all parts.
//!
//! # Source
//! optimum-quanto and BitNet, whose first part has the lowest bits, and HQQ, whose first part has the highest.
//! HQQ's codes of 3 bits are ten to a word of 32 bits, of which the upper 2 bits are unused.

use super::order::PartOrder;
use super::rows::{Piece, Pieces};

/// A run of `part_codes` bytes, or words where codes of this width do not fill a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Strided {
    pub(super) bits: u32,
    pub(super) order: PartOrder,
    pub(super) part_codes: u64,
}

impl Strided {
    /// The bytes that hold one code of each part.
    pub(super) const fn container_bytes(self) -> u64 {
        if 8 % self.bits == 0 { 1 } else { 4 }
    }

    pub(super) const fn n_parts(self) -> u64 {
        self.container_bytes() * 8 / self.bits as u64
    }

    fn shift(self, part: u64) -> u32 {
        let place = match self.order {
            PartOrder::LowFirst => part,
            PartOrder::HighFirst => self.n_parts() - 1 - part,
        };
        place as u32 * self.bits
    }

    /// Where a code lies in the elements of a column.
    #[inline(always)]
    pub(super) fn pieces(self, code: u64) -> Pieces {
        let piece = Piece {
            word: code % self.part_codes,
            shift: self.shift(code / self.part_codes),
            width: self.bits,
            place: 0,
        };
        [Some(piece), None, None]
    }

    /// Fills `into` with the codes from `first` on; `packed` starts with the container of that one, or with the
    /// first of all where the codes are of more than one part.
    #[inline(always)]
    pub(super) fn unpack(self, packed: &[u8], first: u64, into: &mut [u8]) {
        let (mut part, place) = (first / self.part_codes, first % self.part_codes);
        let in_part = (self.part_codes - place).min(into.len() as u64) as usize;
        let skipped = match in_part == into.len() {
            true => 0,
            false => place * self.container_bytes(),
        };
        let (head, rest) = into.split_at_mut(in_part);
        self.unpack_part(part, &packed[skipped as usize..], head);
        let part_codes = usize::try_from(self.part_codes).unwrap_or(usize::MAX);
        for codes in rest.chunks_mut(part_codes) {
            part += 1;
            self.unpack_part(part, packed, codes);
        }
    }

    #[inline(always)]
    fn unpack_part(self, part: u64, packed: &[u8], into: &mut [u8]) {
        let (shift, mask) = (self.shift(part), (1u32 << self.bits) - 1);
        if self.container_bytes() == 1 {
            let mask = mask as u8;
            for (code, byte) in into.iter_mut().zip(packed) {
                *code = byte >> shift & mask;
            }
        } else {
            for (code, word) in into.iter_mut().zip(packed.as_chunks().0) {
                *code = (u32::from_le_bytes(*word) >> shift & mask) as u8;
            }
        }
    }

    /// Fills `into` with all `codes`.
    #[inline(always)]
    pub(super) fn pack(self, codes: &[u8], into: &mut [u8]) {
        into.fill(0);
        let part_codes = usize::try_from(self.part_codes.max(1)).unwrap_or(usize::MAX);
        for (part, codes) in codes.chunks(part_codes).enumerate() {
            let shift = self.shift(part as u64);
            if self.container_bytes() == 1 {
                for (code, byte) in codes.iter().zip(&mut *into) {
                    *byte |= code << shift;
                }
            } else {
                for (code, word) in codes.iter().zip(into.as_chunks_mut().0) {
                    *word = (u32::from_le_bytes(*word) | u32::from(*code) << shift).to_le_bytes();
                }
            }
        }
    }
}
