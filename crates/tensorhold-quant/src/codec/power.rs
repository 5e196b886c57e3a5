//! Scales of one byte, E8M0: two to the power of the byte less 127.

use crate::cast::level::{Level, Work};

/// What the byte 0xff is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AllOnes {
    /// NaN, as the specification, PyTorch and ml_dtypes have it.
    #[default]
    Nan,
    /// Infinity, 2^128, as compressed-tensors and the MXFP4 of Transformers compute it.
    Infinity,
}

/// What the byte 0 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Zero {
    /// 2^-127, which is subnormal, as the specification has it.
    #[default]
    Subnormal,
    /// 0, as programs have it whose processors take subnormals for it.
    Flushed,
}

/// The numbers of E8M0; the default are those of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct E8m0 {
    /// What 0xff is.
    pub all_ones: AllOnes,
    /// What 0 is.
    pub zero: Zero,
}

impl E8m0 {
    /// The number that `code` is.
    #[inline(always)]
    #[must_use]
    pub fn value(self, code: u8) -> f32 {
        match code {
            0 => self.of_zero(),
            0xff => self.of_ones(),
            _ => f32::from_bits(u32::from(code) << 23),
        }
    }

    /// Writes the numbers that `codes` are into `into`, as many as there are of both.
    pub fn decode(self, codes: &[u8], into: &mut [f32]) {
        Level::detect().run(Decode {
            scales: self,
            codes,
            into,
        });
    }

    #[inline(always)]
    fn of_zero(self) -> f32 {
        match self.zero {
            Zero::Subnormal => f32::from_bits(1 << 22),
            Zero::Flushed => 0.0,
        }
    }

    #[inline(always)]
    fn of_ones(self) -> f32 {
        match self.all_ones {
            AllOnes::Nan => f32::NAN,
            AllOnes::Infinity => f32::INFINITY,
        }
    }
}

/// What [`E8m0::decode`] does.
struct Decode<'a> {
    scales: E8m0,
    codes: &'a [u8],
    into: &'a mut [f32],
}

impl Work for Decode<'_> {
    #[inline(always)]
    fn run(self) {
        for (code, value) in self.codes.iter().zip(self.into) {
            *value = self.scales.value(*code);
        }
    }
}
