//! The orders in which codes lie in bytes, as one type.

use core::fmt;
use core::ops::Range;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use crate::cast::level::{Level, Work};

use super::strided::Strided;
use super::{awq, awq_fast, high_first, lsb, padded, planar};

/// The order in which codes of 1 to 8 bits lie in bytes.
///
/// ```
/// use tensorhold_quant::codec::BitOrder;
///
/// let order = BitOrder::lsb(4)?;
/// let packed = [0x21, 0x43, 0x65];
/// // The third and the fourth code are in the second byte, and no other byte is needed for them.
/// let bytes = order.bytes_of(2..4)?;
/// let mut codes = [0; 2];
/// order.unpack(&packed[bytes.start as usize..bytes.end as usize], 2, &mut codes)?;
/// assert_eq!(codes, [3, 4]);
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BitOrder(pub(super) Kind);

/// Which part of a strided run the lowest bits of each byte are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartOrder {
    /// The first, as in optimum-quanto and BitNet.
    LowFirst,
    /// The last, as in HQQ.
    HighFirst,
}

/// Which of the two codes of a byte comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PairOrder {
    /// That in the lower half.
    LowFirst,
    /// That in the upper half.
    HighFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Lsb(u32),
    LsbWords(u32),
    Padded(u32),
    Planar(u32),
    Awq,
    AwqFast,
    Strided(Strided),
    HighFirst,
}

use Kind::*;

/// Units, none of which has a part of another's codes.
struct Units {
    codes: u64,
    bytes: u64,
}

impl BitOrder {
    /// Codes of 4 bits, eight in a word whose lower half has those of even places (AutoAWQ, along N).
    pub const AWQ: BitOrder = BitOrder(Awq);

    /// Codes of 4 bits, 32 in 16 bytes, of which those that are eight apart come together (AWQ's GEMV of llm-awq, along
    /// K).
    pub const AWQ_FAST: BitOrder = BitOrder(AwqFast);

    /// Codes of 4 bits, two in a byte, the first in the upper half (bitsandbytes, NVFP4 of ComfyUI).
    pub const HIGH_NIBBLE_FIRST: BitOrder = BitOrder(HighFirst);

    /// Codes of `bits` bits one after another from the least significant bit on, in bytes.
    ///
    /// # Errors
    /// `InvalidArgument` when `bits` is not 1 to 8.
    pub fn lsb(bits: u32) -> Result<BitOrder> {
        Ok(BitOrder(Lsb(code_width(bits)?)))
    }

    /// Codes of `bits` bits one after another, as [`BitOrder::lsb`], in whole words of 32 bits. A code may lie in
    /// two words (GPTQ, MLX, compressed-tensors from June 2026 on).
    ///
    /// # Errors
    /// `InvalidArgument` when `bits` is not 1 to 8.
    pub fn lsb_words(bits: u32) -> Result<BitOrder> {
        Ok(BitOrder(LsbWords(code_width(bits)?)))
    }

    /// As many codes of `bits` bits as go into a word of 32 bits, from the least significant bit on
    /// (compressed-tensors before June 2026).
    ///
    /// # Errors
    /// `InvalidArgument` when `bits` is not 1 to 8.
    pub fn padded(bits: u32) -> Result<BitOrder> {
        Ok(BitOrder(Padded(code_width(bits)?)))
    }

    /// 32 codes of `bits` bits in `bits` words, in planes of 4, 2 and 1 bits (GPTQModel, for 3, 5, 6 and 7 bits).
    ///
    /// # Errors
    /// `InvalidArgument` when `bits` is not 1 to 8.
    pub fn planar(bits: u32) -> Result<BitOrder> {
        Ok(BitOrder(Planar(code_width(bits)?)))
    }

    /// Parts of `part_codes` codes each, of which every byte has one code: 8 of 1 bit, 4 of 2, 2 of 4. Codes of 3
    /// bits have ten parts, in words of 32 bits.
    ///
    /// Where whole rows are parted, `part_codes` is the rows of a part times the columns.
    ///
    /// # Errors
    /// `InvalidArgument` when `bits` is not 1, 2, 3, 4 or 8, or a part is empty; `Overflow` when the run has more
    /// than 2^64 codes.
    pub fn strided(bits: u32, order: PartOrder, part_codes: u64) -> Result<BitOrder> {
        if !matches!(bits, 1 | 2 | 3 | 4 | 8) || part_codes == 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "parts of {part_codes} codes of {bits} bits: codes must have 1, 2, 3, 4 or 8 bits, and parts a code"
                ),
            ));
        }
        let strided = Strided {
            bits,
            order,
            part_codes,
        };
        let size = part_codes.checked_mul(strided.n_parts().max(strided.container_bytes()));
        size.ok_or_else(|| too_many(part_codes))?;
        Ok(BitOrder(Strided(strided)))
    }

    /// The width of a code in bits, 1 to 8.
    #[must_use]
    pub const fn width_bits(self) -> u32 {
        match self.0 {
            Lsb(bits) | LsbWords(bits) | Padded(bits) | Planar(bits) => bits,
            Strided(strided) => strided.bits,
            Awq | AwqFast | HighFirst => 4,
        }
    }

    /// The number of bytes that `n_codes` codes take, with what fills up the last word.
    ///
    /// # Errors
    /// `Overflow` past 2^64 bits; `InvalidArgument` for more codes than a strided run has.
    pub fn size_bytes(self, n_codes: u64) -> Result<u64> {
        let n_bits = |bits| n_codes.checked_mul(u64::from(bits));
        let size = match self.0 {
            Lsb(bits) => n_bits(bits).map(|n_bits| n_bits.div_ceil(8)),
            LsbWords(bits) => n_bits(bits).map(|n_bits| n_bits.div_ceil(32) * 4),
            HighFirst => n_bits(4).map(|n_bits| n_bits.div_ceil(8)),
            Padded(_) | Planar(_) | Awq | AwqFast => {
                let Units { codes, bytes } = self.units();
                n_codes.div_ceil(codes).checked_mul(bytes)
            }
            Strided(strided) if n_codes <= strided.part_codes * strided.n_parts() => {
                Some(strided.part_codes * strided.container_bytes())
            }
            Strided(strided) => return Err(past_the_end(strided, n_codes)),
        };
        size.ok_or_else(|| too_many(n_codes))
    }

    /// The bytes that the codes of `range` lie in, counted from the start of the run.
    ///
    /// They are the bytes in which there is a bit of these codes; the whole words where the order is one of words
    /// (`AWQ`, padded, and the words of 32 codes for planar and `AWQ_FAST`). A range over the parts of a strided run has all
    /// bytes: whoever wants fewer asks for each part by itself.
    ///
    /// # Errors
    /// `InvalidArgument` when the range ends before it starts, or after the end of a strided run; `Overflow` past
    /// 2^64 bits.
    pub fn bytes_of(self, range: Range<u64>) -> Result<ByteRange> {
        if range.end < range.start {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("codes {}..{} end before they start", range.start, range.end),
            ));
        }
        // The end is the larger: where it can be counted, so can the rest.
        self.size_bytes(range.end)?;
        let Range { start, end } = range;
        Ok(match self.0 {
            _ if start == end => ByteRange::new(0, 0),
            Lsb(bits) | LsbWords(bits) => dense(bits, range),
            HighFirst => dense(4, range),
            Padded(_) | Planar(_) | Awq | AwqFast => {
                let Units { codes, bytes } = self.units();
                ByteRange::new(start / codes * bytes, end.div_ceil(codes) * bytes)
            }
            Strided(strided) => {
                let (n, bytes) = (strided.part_codes, strided.container_bytes());
                match start / n == (end - 1) / n {
                    true => ByteRange::new(start % n * bytes, ((end - 1) % n + 1) * bytes),
                    false => ByteRange::new(0, n * bytes),
                }
            }
        })
    }

    /// Fills `into` with the codes from `first` on, each in the low bits of its byte.
    ///
    /// `packed` are the bytes that [`BitOrder::bytes_of`] has for them, and no others.
    ///
    /// # Errors
    /// `InvalidArgument` when `packed` is longer or shorter, and what `bytes_of` refuses.
    pub fn unpack(self, packed: &[u8], first: u64, into: &mut [u8]) -> Result<()> {
        let n_codes = into.len() as u64;
        let end = first.checked_add(n_codes);
        let end = end.ok_or_else(|| too_many(n_codes))?;
        let wanted = self.bytes_of(first..end)?.len();
        if wanted != packed.len() as u64 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "codes {first}..{end} in the order {self} lie in {wanted} bytes, but there are {}",
                    packed.len()
                ),
            ));
        }
        if !into.is_empty() {
            Level::detect().run(Unpack {
                kind: self.0,
                packed,
                first,
                into,
            });
        }
        Ok(())
    }

    /// Fills `into` with `codes`, from the first of the run on; bits of no code become 0.
    ///
    /// A long run can be packed in pieces of a multiple of 32 codes, or of whole words where it is padded; a
    /// strided one cannot.
    ///
    /// # Errors
    /// `InvalidArgument` when a code has more bits than the order, or `into` is not as long as
    /// [`BitOrder::size_bytes`] says.
    pub fn pack(self, codes: &[u8], into: &mut [u8]) -> Result<()> {
        let wanted = self.size_bytes(codes.len() as u64)?;
        if wanted != into.len() as u64 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} codes in the order {self} take {wanted} bytes, but there is room for {}",
                    codes.len(),
                    into.len()
                ),
            ));
        }
        check_codes(self.width_bits(), codes)?;
        Level::detect().run(Pack {
            kind: self.0,
            codes,
            into,
        });
        Ok(())
    }

    /// Whether each byte is a code.
    pub(crate) const fn is_bytes(self) -> bool {
        matches!(self.0, Lsb(8) | LsbWords(8))
    }

    /// How codes lie in a byte, where each has two that follow one another.
    pub(crate) const fn pair_order(self) -> Option<PairOrder> {
        match self.0 {
            Lsb(4) | LsbWords(4) => Some(PairOrder::LowFirst),
            HighFirst => Some(PairOrder::HighFirst),
            _ => None,
        }
    }

    /// The nibble of a word of 4 bytes in which each of its eight codes lies, if it has so many.
    pub(crate) const fn nibbles_of_word(self) -> Option<[u8; 8]> {
        match self.0 {
            LsbWords(4) | Padded(4) => Some([0, 1, 2, 3, 4, 5, 6, 7]),
            Awq => Some([0, 4, 1, 5, 2, 6, 3, 7]),
            _ => None,
        }
    }

    /// Whether codes that are far apart share a byte.
    pub(crate) const fn has_parts(self) -> bool {
        matches!(self.0, Strided(strided) if strided.n_parts() > 1)
    }

    fn units(self) -> Units {
        let (codes, bytes) = match self.0 {
            Padded(bits) => (padded::codes_in_word(bits), 4),
            Planar(bits) => (planar::CODES, planar::CODES / 8 * u64::from(bits)),
            AwqFast => (awq_fast::CODES, awq_fast::CODES / 2),
            _ => (awq::CODES, 4),
        };
        Units { codes, bytes }
    }
}

/// What [`BitOrder::unpack`] does once all lengths are right.
struct Unpack<'a> {
    kind: Kind,
    packed: &'a [u8],
    first: u64,
    into: &'a mut [u8],
}

impl Work for Unpack<'_> {
    #[inline(always)]
    fn run(self) {
        let Unpack {
            packed,
            first,
            into,
            ..
        } = self;
        match self.kind {
            Lsb(bits) | LsbWords(bits) => lsb::unpack(bits, packed, first, into),
            Padded(bits) => padded::unpack(bits, packed, first, into),
            Planar(bits) => planar::unpack(bits, packed, first, into),
            Awq => awq::unpack(packed, first, into),
            AwqFast => awq_fast::unpack(packed, first, into),
            Strided(strided) => strided.unpack(packed, first, into),
            HighFirst => high_first::unpack(packed, first, into),
        }
    }
}

/// What [`BitOrder::pack`] does once all lengths are right and all codes fit.
struct Pack<'a> {
    kind: Kind,
    codes: &'a [u8],
    into: &'a mut [u8],
}

impl Work for Pack<'_> {
    #[inline(always)]
    fn run(self) {
        let Pack { codes, into, .. } = self;
        match self.kind {
            Lsb(bits) | LsbWords(bits) => lsb::pack(bits, codes, into),
            Padded(bits) => padded::pack(bits, codes, into),
            Planar(bits) => planar::pack(bits, codes, into),
            Awq => awq::pack(codes, into),
            AwqFast => awq_fast::pack(codes, into),
            Strided(strided) => strided.pack(codes, into),
            HighFirst => high_first::pack(codes, into),
        }
    }
}

/// The order as documentation names it, such as `lsb(4)`.
impl fmt::Display for BitOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Lsb(bits) => write!(f, "lsb({bits})"),
            LsbWords(bits) => write!(f, "lsb_words({bits})"),
            Padded(bits) => write!(f, "padded({bits})"),
            Planar(bits) => write!(f, "planar({bits})"),
            Awq => write!(f, "awq"),
            AwqFast => write!(f, "awq_fast"),
            Strided(Strided { bits, order, .. }) => write!(f, "strided({bits}, {order:?})"),
            HighFirst => write!(f, "high_nibble_first"),
        }
    }
}

/// The bytes with a bit of the codes of `range`, whose last bit can be counted.
fn dense(bits: u32, range: Range<u64>) -> ByteRange {
    let bits = u64::from(bits);
    ByteRange::new(range.start * bits / 8, (range.end * bits).div_ceil(8))
}

fn code_width(bits: u32) -> Result<u32> {
    match bits {
        1..=8 => Ok(bits),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("codes of {bits} bits: codes have 1 to 8 bits"),
        )),
    }
}

pub(super) fn check_codes(bits: u32, codes: &[u8]) -> Result<()> {
    let fits = |code: u8| u32::from(code) >> bits == 0;
    if fits(codes.iter().fold(0, |all, code| all | code)) {
        return Ok(());
    }
    let (place, code) = codes
        .iter()
        .enumerate()
        .find(|(_, code)| !fits(**code))
        .unwrap_or((0, &0));
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("code {code} at place {place} does not fit in {bits} bits"),
    ))
}

pub(super) fn too_many(n_codes: u64) -> Error {
    Error::new(
        ErrorKind::Overflow,
        format!("{n_codes} codes have more than 2^64 bits"),
    )
}

fn past_the_end(strided: Strided, n_codes: u64) -> Error {
    let Strided { part_codes, .. } = strided;
    Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "a run of {} parts of {part_codes} codes has no {n_codes} codes",
            strided.n_parts()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_the_processor_does_the_same() {
        let packed: Vec<u8> = (0u32..4000)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut orders = vec![
            BitOrder::AWQ,
            BitOrder::AWQ_FAST,
            BitOrder::HIGH_NIBBLE_FIRST,
        ];
        for bits in 1..=8 {
            let plain = [BitOrder::lsb, BitOrder::padded, BitOrder::planar];
            orders.extend(plain.map(|order| order(bits).expect("it has 1 to 8 bits")));
            orders.extend(BitOrder::strided(bits, PartOrder::LowFirst, 600));
        }
        for order in orders {
            for first in [0, 7, 32] {
                let range = first..first + 500;
                let range = order.bytes_of(range).expect("it is short").len() as usize;
                let mut seen = Vec::new();
                for level in Level::available() {
                    let mut codes = vec![0; 500];
                    level.run(Unpack {
                        kind: order.0,
                        packed: &packed[..range],
                        first,
                        into: &mut codes,
                    });
                    let mut again = vec![0; order.size_bytes(500).expect("it is short") as usize];
                    level.run(Pack {
                        kind: order.0,
                        codes: &codes,
                        into: &mut again,
                    });
                    seen.push((codes, again));
                }
                assert!(seen.iter().all(|one| *one == seen[0]), "{order} at {first}");
            }
        }
    }
}
