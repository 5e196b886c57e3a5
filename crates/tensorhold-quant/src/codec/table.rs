//! Codes of 4 bits that stand for any 16 numbers.

/// The numbers that the 16 codes of 4 bits stand for.
///
/// A file may have a table of its own, which goes before the one that its format's name stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FourBitTable(pub [f32; 16]);

impl FourBitTable {
    /// NF4: quantiles of the normal distribution, and 0.
    ///
    /// # Source
    /// bitsandbytes 0.50.2, `functional.get_4bit_type`, and arXiv 2305.14314, appendix E.
    pub const NF4: FourBitTable = FourBitTable([
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ]);

    /// The FP4 of bitsandbytes, whose codes are in another order than those of E2M1. Code 8 is +0.
    ///
    /// # Source
    /// bitsandbytes 0.50.2, `functional.get_4bit_type`.
    pub const BITSANDBYTES_FP4: FourBitTable = FourBitTable([
        0.0,
        0.005_208_333_5,
        0.666_666_7,
        1.0,
        0.333_333_34,
        0.5,
        0.166_666_67,
        0.25,
        0.0,
        -0.005_208_333_5,
        -0.666_666_7,
        -1.0,
        -0.333_333_34,
        -0.5,
        -0.166_666_67,
        -0.25,
    ]);

    /// The number that the low 4 bits of `code` stand for.
    #[inline(always)]
    #[must_use]
    pub const fn value(&self, code: u8) -> f32 {
        self.0[(code & 15) as usize]
    }

    /// Writes the numbers that `codes` stand for into `into`, as many as there are of both.
    pub fn decode(&self, codes: &[u8], into: &mut [f32]) {
        for (code, value) in codes.iter().zip(into) {
            *value = self.value(*code);
        }
    }
}
