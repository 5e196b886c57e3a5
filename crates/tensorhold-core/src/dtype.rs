//! The element types of the format.

use core::fmt;
use core::str::FromStr;

/// The type of one element of a tensor.
///
/// The order is the order of the file: writers place tensors by descending `Dtype`, then by name,
/// so the order of the variants is part of the format's canonical bytes.
///
/// # Source
/// The `Dtype` of crate `safetensors` 0.8.0; the F4, F6, F8 and E8M0 encodings are those of the OCP
/// Microscaling specification 1.0 and of arXiv 2209.05433 and 2206.02915.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
#[repr(u8)]
pub enum Dtype {
    /// A truth value in one byte, 0 or 1.
    BOOL,
    /// 4-bit float, E2M1; two in a byte, the first in the low half.
    F4,
    /// 6-bit float, E2M3; four in three bytes, least significant bit first.
    F6_E2M3,
    /// 6-bit float, E3M2; four in three bytes, least significant bit first.
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
    /// All element types, in file order from last to first.
    pub const ALL: [Dtype; 22] = [
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

    /// The width of one element in bits: 4, 6, 8, 16, 32 or 64.
    #[must_use]
    pub const fn width_bits(self) -> u32 {
        match self {
            F4 => 4,
            F6_E2M3 | F6_E3M2 => 6,
            BOOL | U8 | I8 | F8_E5M2 | F8_E4M3 | F8_E8M0 | F8_E4M3FNUZ | F8_E5M2FNUZ => 8,
            I16 | U16 | F16 | BF16 => 16,
            I32 | U32 | F32 => 32,
            C64 | F64 | I64 | U64 => 64,
        }
    }

    /// The width of one element in bytes, or `None` for elements narrower than a byte.
    #[must_use]
    pub const fn width_bytes(self) -> Option<u32> {
        match self.width_bits() {
            bits if bits % 8 == 0 => Some(bits / 8),
            _ => None,
        }
    }

    /// The name in a file's header, such as `F32` or `F8_E4M3`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BOOL => "BOOL",
            F4 => "F4",
            F6_E2M3 => "F6_E2M3",
            F6_E3M2 => "F6_E3M2",
            U8 => "U8",
            I8 => "I8",
            F8_E5M2 => "F8_E5M2",
            F8_E4M3 => "F8_E4M3",
            F8_E8M0 => "F8_E8M0",
            F8_E4M3FNUZ => "F8_E4M3FNUZ",
            F8_E5M2FNUZ => "F8_E5M2FNUZ",
            I16 => "I16",
            U16 => "U16",
            F16 => "F16",
            BF16 => "BF16",
            I32 => "I32",
            U32 => "U32",
            F32 => "F32",
            C64 => "C64",
            F64 => "F64",
            I64 => "I64",
            U64 => "U64",
        }
    }

    /// The element type that a header's name stands for; names are case-sensitive.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Dtype> {
        Some(match name {
            b"BF16" => BF16,
            b"F32" => F32,
            b"F16" => F16,
            b"BOOL" => BOOL,
            b"F4" => F4,
            b"F6_E2M3" => F6_E2M3,
            b"F6_E3M2" => F6_E3M2,
            b"U8" => U8,
            b"I8" => I8,
            b"F8_E5M2" => F8_E5M2,
            b"F8_E4M3" => F8_E4M3,
            b"F8_E8M0" => F8_E8M0,
            b"F8_E4M3FNUZ" => F8_E4M3FNUZ,
            b"F8_E5M2FNUZ" => F8_E5M2FNUZ,
            b"I16" => I16,
            b"U16" => U16,
            b"I32" => I32,
            b"U32" => U32,
            b"C64" => C64,
            b"F64" => F64,
            b"I64" => I64,
            b"U64" => U64,
            _ => return None,
        })
    }

    /// The name that PyTorch and NumPy (with ml_dtypes) use, such as `float32` or `float8_e4m3fn`;
    /// `None` where no framework has the type. F4 is named as PyTorch's packed pair.
    #[must_use]
    pub const fn framework_name(self) -> Option<&'static str> {
        Some(match self {
            BOOL => "bool",
            F4 => "float4_e2m1fn_x2",
            F6_E2M3 | F6_E3M2 => return None,
            U8 => "uint8",
            I8 => "int8",
            F8_E5M2 => "float8_e5m2",
            F8_E4M3 => "float8_e4m3fn",
            F8_E8M0 => "float8_e8m0fnu",
            F8_E4M3FNUZ => "float8_e4m3fnuz",
            F8_E5M2FNUZ => "float8_e5m2fnuz",
            I16 => "int16",
            U16 => "uint16",
            F16 => "float16",
            BF16 => "bfloat16",
            I32 => "int32",
            U32 => "uint32",
            F32 => "float32",
            C64 => "complex64",
            F64 => "float64",
            I64 => "int64",
            U64 => "uint64",
        })
    }

    /// The element type that a framework's name stands for.
    #[must_use]
    pub fn from_framework_name(name: &str) -> Option<Dtype> {
        Dtype::ALL
            .into_iter()
            .find(|dtype| dtype.framework_name() == Some(name))
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no element type of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownDtype;

impl fmt::Display for UnknownDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no element type of the format has this name")
    }
}

impl core::error::Error for UnknownDtype {}

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Dtype::from_name(name.as_bytes()).ok_or(UnknownDtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_dtype() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name().as_bytes()), Some(dtype));
            if let Some(name) = dtype.framework_name() {
                assert_eq!(Dtype::from_framework_name(name), Some(dtype));
            }
        }
        assert_eq!("f32".parse::<Dtype>(), Err(UnknownDtype));
    }

    #[test]
    fn all_is_in_file_order() {
        assert!(Dtype::ALL.is_sorted());
    }
}
