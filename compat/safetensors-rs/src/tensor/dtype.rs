//! The element types of the format.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The type of one element of a tensor, ordered as in files: writers place tensors by descending `Dtype`.
#[derive(Debug, Deserialize, Serialize, Clone, Copy, PartialEq, Eq, Ord, PartialOrd)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
pub enum Dtype {
    /// A truth value in one byte, 0 or 1.
    BOOL,
    /// 4-bit float, E2M1; two in a byte.
    F4,
    /// 6-bit float, E2M3; four in three bytes.
    F6_E2M3,
    /// 6-bit float, E3M2; four in three bytes.
    F6_E3M2,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// 8-bit float, E5M2.
    F8_E5M2,
    /// 8-bit float, E4M3, finite only.
    F8_E4M3,
    /// 8-bit power of two, E8M0.
    F8_E8M0,
    /// 8-bit float, E4M3, finite only, unsigned zero.
    F8_E4M3FNUZ,
    /// 8-bit float, E5M2, finite only, unsigned zero.
    F8_E5M2FNUZ,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16: the upper half of an F32.
    BF16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// IEEE 754 single precision.
    F32,
    /// Complex of two F32, real part first.
    C64,
    /// IEEE 754 double precision.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
}

use Dtype::*;

impl Dtype {
    /// In the order of the core's own list, so that a position in one is a position in the other.
    const ALL: [Dtype; 22] = [
        BOOL,
        F4,
        F6_E2M3,
        F6_E3M2,
        U8,
        I8,
        F8_E5M2,
        F8_E4M3,
        F8_E8M0,
        F8_E4M3FNUZ,
        F8_E5M2FNUZ,
        I16,
        U16,
        F16,
        BF16,
        I32,
        U32,
        F32,
        C64,
        F64,
        I64,
        U64,
    ];

    /// The width of one element in bits.
    pub fn bitsize(&self) -> usize {
        self.to_core().width_bits() as usize
    }

    /// The width of one element in whole bytes: 0 for those narrower than a byte.
    #[deprecated(
        since = "0.6.0",
        note = "use `bitsize`: some elements are narrower than a byte"
    )]
    pub fn size(&self) -> usize {
        self.bitsize() / 8
    }

    pub(crate) fn to_core(self) -> tensorhold_core::Dtype {
        tensorhold_core::Dtype::ALL[self as usize]
    }

    pub(crate) fn from_core(dtype: tensorhold_core::Dtype) -> Dtype {
        Dtype::ALL[dtype as usize]
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_core().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn every_dtype_is_the_one_of_the_same_name_in_the_core() {
        assert_eq!(Dtype::ALL.len(), tensorhold_core::Dtype::ALL.len());
        for core in tensorhold_core::Dtype::ALL {
            let dtype = Dtype::from_core(core);
            assert_eq!(dtype.to_core(), core);
            assert_eq!(format!("{dtype:?}"), core.name());
        }
    }
}
