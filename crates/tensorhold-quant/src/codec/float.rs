//! The small floats of 4, 6 and 8 bits.

use tensorhold_core::Dtype;

use crate::cast::decode::{self, F8E4m3, F8E4m3Fnuz, F8E5m2, F8E5m2Fnuz, finite};
use crate::cast::level::{Level, Work};

/// A float of 4, 6 or 8 bits, whose code is in the low bits of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatCode {
    /// 4 bits, up to 6.
    E2m1,
    /// 6 bits, up to 7.5 in steps of 0.125 at least.
    E2m3,
    /// 6 bits, up to 28 in steps of 0.0625 at least.
    E3m2,
    /// 8 bits, up to 448; 0x7f and 0xff are NaN, and nothing is infinite.
    E4m3,
    /// 8 bits, up to 57344, with infinities.
    E5m2,
    /// 8 bits, up to 240; 0x80 is NaN, and there is no -0.
    E4m3Fnuz,
    /// 8 bits, up to 57344; 0x80 is NaN, and there is neither -0 nor an infinity.
    E5m2Fnuz,
}

use FloatCode::*;

impl FloatCode {
    /// The float that elements of `dtype` are, or `None` where that is none of 4 to 8 bits.
    #[must_use]
    pub const fn of_dtype(dtype: Dtype) -> Option<FloatCode> {
        Some(match dtype {
            Dtype::F4 => E2m1,
            Dtype::F6_E2M3 => E2m3,
            Dtype::F6_E3M2 => E3m2,
            Dtype::F8_E4M3 => E4m3,
            Dtype::F8_E5M2 => E5m2,
            Dtype::F8_E4M3FNUZ => E4m3Fnuz,
            Dtype::F8_E5M2FNUZ => E5m2Fnuz,
            _ => return None,
        })
    }

    /// The width of a code in bits: 4, 6 or 8.
    #[must_use]
    pub const fn width_bits(self) -> u32 {
        match self {
            E2m1 => 4,
            E2m3 | E3m2 => 6,
            E4m3 | E5m2 | E4m3Fnuz | E5m2Fnuz => 8,
        }
    }

    /// The number that `code` is; bits above the code's are left out of account.
    #[inline]
    #[must_use]
    pub fn value(self, code: u8) -> f32 {
        let mut value = [0.0];
        self.decode(&[code], &mut value);
        value[0]
    }

    /// The bits of the F32 that a code of [`E2m1`] is.
    #[inline(always)]
    pub(crate) fn e2m1_bits(code: u8) -> u32 {
        signed::<1, 1, 4>(code)
    }

    /// The numbers that all codes are, in the order of the codes, for kernels that look them up: the first
    /// 16 or 64 of them for the floats of 4 and 6 bits, and then again.
    #[must_use]
    pub fn table(self) -> [f32; 256] {
        let mut table = [0.0; 256];
        self.decode(
            &core::array::from_fn::<u8, 256, _>(|code| code as u8),
            &mut table,
        );
        table
    }

    /// Writes the numbers that `codes` are into `into`, as many as there are of both.
    ///
    /// Every number of these is one of F32. A NaN is quiet but for those of the `Fnuz` ones, as in a cast.
    pub fn decode(self, codes: &[u8], into: &mut [f32]) {
        Level::detect().run(Decode {
            code: self,
            codes,
            into,
        });
    }
}

/// What [`FloatCode::decode`] does.
struct Decode<'a> {
    code: FloatCode,
    codes: &'a [u8],
    into: &'a mut [f32],
}

impl Work for Decode<'_> {
    #[inline(always)]
    fn run(self) {
        let Decode { code, codes, into } = self;
        match code {
            E2m1 => decode_as(codes, into, FloatCode::e2m1_bits),
            E2m3 => decode_as(codes, into, signed::<3, 1, 6>),
            E3m2 => decode_as(codes, into, signed::<2, 3, 6>),
            E4m3 => decode_as(codes, into, whole_byte::<F8E4m3>),
            E5m2 => decode_as(codes, into, whole_byte::<F8E5m2>),
            E4m3Fnuz => decode_as(codes, into, whole_byte::<F8E4m3Fnuz>),
            E5m2Fnuz => decode_as(codes, into, whole_byte::<F8E5m2Fnuz>),
        }
    }
}

#[inline(always)]
fn decode_as(codes: &[u8], into: &mut [f32], bits: impl Fn(u8) -> u32) {
    for (code, value) in codes.iter().zip(into) {
        *value = f32::from_bits(bits(*code));
    }
}

/// The bits of a float of `WIDTH` bits that is always finite.
#[inline(always)]
fn signed<const MANTISSA: u32, const BIAS: u32, const WIDTH: u32>(code: u8) -> u32 {
    let (code, sign) = (u32::from(code), 1 << (WIDTH - 1));
    (code & sign) << (32 - WIDTH) | finite::<MANTISSA, BIAS>(code & (sign - 1))
}

#[inline(always)]
fn whole_byte<T: decode::Decode<Bytes = [u8; 1]>>(code: u8) -> u32 {
    T::decode([code])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_the_processor_has_the_same_numbers() {
        let codes: Vec<u8> = (0..=255).chain(3..80).collect();
        for code in [E2m1, E2m3, E3m2, E4m3, E5m2, E4m3Fnuz, E5m2Fnuz] {
            for level in Level::available() {
                let mut values = vec![0.0; codes.len()];
                level.run(Decode {
                    code,
                    codes: &codes,
                    into: &mut values,
                });
                let one_by_one = codes.iter().map(|&one| code.value(one).to_bits());
                assert!(
                    one_by_one.eq(values.iter().map(|value| value.to_bits())),
                    "{code:?}"
                );
            }
        }
    }
}
