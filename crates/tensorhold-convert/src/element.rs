//! The element types that other formats have, and what of this format holds them.

use tensorhold_core::Dtype;

use Element::*;

/// The type of one element of a tensor in a foreign file: one of PyTorch's.
///
/// Where this format lacks the type, [`Element::dtype`] names the type that carries its bits.
///
/// # Source
/// `torch.dtype` of PyTorch 2.15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named as in PyTorch")]
#[allow(non_camel_case_types)]
pub enum Element {
    Bool,
    Uint8,
    Int8,
    Uint16,
    Int16,
    Uint32,
    Int32,
    Uint64,
    Int64,
    Float16,
    Bfloat16,
    Float32,
    Float64,
    Complex32,
    Bcomplex32,
    Complex64,
    Complex128,
    Float8E5m2,
    Float8E4m3fn,
    Float8E5m2fnuz,
    Float8E4m3fnuz,
    Float8E8m0fnu,
    Float4E2m1fnX2,
    Quint8,
    Qint8,
    Qint32,
    Quint4x2,
    Quint2x4,
    Bits1x8,
    Bits2x4,
    Bits4x2,
    Bits8,
    Bits16,
    Int1,
    Int2,
    Int3,
    Int4,
    Int5,
    Int6,
    Int7,
    Uint1,
    Uint2,
    Uint3,
    Uint4,
    Uint5,
    Uint6,
    Uint7,
}

/// Element, PyTorch's name, stored as, stored elements for each, bytes that are swapped together.
const TABLE: [(Element, &str, Dtype, u64, u64); 47] = [
    (Bool, "bool", Dtype::BOOL, 1, 1),
    (Uint8, "uint8", Dtype::U8, 1, 1),
    (Int8, "int8", Dtype::I8, 1, 1),
    (Uint16, "uint16", Dtype::U16, 1, 2),
    (Int16, "int16", Dtype::I16, 1, 2),
    (Uint32, "uint32", Dtype::U32, 1, 4),
    (Int32, "int32", Dtype::I32, 1, 4),
    (Uint64, "uint64", Dtype::U64, 1, 8),
    (Int64, "int64", Dtype::I64, 1, 8),
    (Float16, "float16", Dtype::F16, 1, 2),
    (Bfloat16, "bfloat16", Dtype::BF16, 1, 2),
    (Float32, "float32", Dtype::F32, 1, 4),
    (Float64, "float64", Dtype::F64, 1, 8),
    (Complex32, "complex32", Dtype::F16, 2, 2),
    (Bcomplex32, "bcomplex32", Dtype::BF16, 2, 2),
    (Complex64, "complex64", Dtype::C64, 1, 4),
    (Complex128, "complex128", Dtype::F64, 2, 8),
    (Float8E5m2, "float8_e5m2", Dtype::F8_E5M2, 1, 1),
    (Float8E4m3fn, "float8_e4m3fn", Dtype::F8_E4M3, 1, 1),
    (Float8E5m2fnuz, "float8_e5m2fnuz", Dtype::F8_E5M2FNUZ, 1, 1),
    (Float8E4m3fnuz, "float8_e4m3fnuz", Dtype::F8_E4M3FNUZ, 1, 1),
    (Float8E8m0fnu, "float8_e8m0fnu", Dtype::F8_E8M0, 1, 1),
    (Float4E2m1fnX2, "float4_e2m1fn_x2", Dtype::F4, 2, 1),
    (Quint8, "quint8", Dtype::U8, 1, 1),
    (Qint8, "qint8", Dtype::I8, 1, 1),
    (Qint32, "qint32", Dtype::I32, 1, 4),
    (Quint4x2, "quint4x2", Dtype::U8, 1, 1),
    (Quint2x4, "quint2x4", Dtype::U8, 1, 1),
    (Bits1x8, "bits1x8", Dtype::U8, 1, 1),
    (Bits2x4, "bits2x4", Dtype::U8, 1, 1),
    (Bits4x2, "bits4x2", Dtype::U8, 1, 1),
    (Bits8, "bits8", Dtype::U8, 1, 1),
    (Bits16, "bits16", Dtype::U16, 1, 2),
    (Int1, "int1", Dtype::U8, 1, 1),
    (Int2, "int2", Dtype::U8, 1, 1),
    (Int3, "int3", Dtype::U8, 1, 1),
    (Int4, "int4", Dtype::U8, 1, 1),
    (Int5, "int5", Dtype::U8, 1, 1),
    (Int6, "int6", Dtype::U8, 1, 1),
    (Int7, "int7", Dtype::U8, 1, 1),
    (Uint1, "uint1", Dtype::U8, 1, 1),
    (Uint2, "uint2", Dtype::U8, 1, 1),
    (Uint3, "uint3", Dtype::U8, 1, 1),
    (Uint4, "uint4", Dtype::U8, 1, 1),
    (Uint5, "uint5", Dtype::U8, 1, 1),
    (Uint6, "uint6", Dtype::U8, 1, 1),
    (Uint7, "uint7", Dtype::U8, 1, 1),
];

impl Element {
    /// PyTorch's name, such as `float32`.
    #[must_use]
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The element type that PyTorch's name stands for; the older names (`half`, `cfloat`) too.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Element> {
        let name = match name {
            "float" => "float32",
            "double" => "float64",
            "half" => "float16",
            "short" => "int16",
            "int" => "int32",
            "long" => "int64",
            "chalf" => "complex32",
            "cfloat" => "complex64",
            "cdouble" => "complex128",
            name => name,
        };
        let found = TABLE.iter().find(|row| row.1 == name);
        found.map(|row| row.0)
    }

    /// The bytes of one element in memory.
    #[must_use]
    pub fn width_bytes(self) -> u64 {
        let (_, _, dtype, n_stored, _) = TABLE[self as usize];
        u64::from(dtype.width_bits()) * n_stored / 8
    }

    /// The element type of this format that carries the bits.
    #[must_use]
    pub fn dtype(self) -> Dtype {
        TABLE[self as usize].2
    }

    /// How many elements of [`Element::dtype`] one element is: 2 for pairs that this format does not have.
    #[must_use]
    pub fn n_stored(self) -> u64 {
        TABLE[self as usize].3
    }

    /// Whether the format's type says everything, so that no other name has to be kept.
    #[must_use]
    pub fn is_native(self) -> bool {
        self.dtype().framework_name() == Some(self.name())
    }

    /// How many bytes are turned around together to change the byte order.
    #[must_use]
    pub fn swap_width_bytes(self) -> u64 {
        TABLE[self as usize].4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_its_own_row() {
        for (row, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.0 as usize, row);
            assert_eq!(Element::from_name(entry.1), Some(entry.0));
        }
    }

    #[test]
    fn widths_are_those_of_pytorch() {
        let widths = [
            Bool,
            Float16,
            Float32,
            Complex32,
            Complex64,
            Complex128,
            Float4E2m1fnX2,
        ];
        assert_eq!(widths.map(Element::width_bytes), [1, 2, 4, 4, 8, 16, 1]);
        assert!(Complex64.is_native() && Float4E2m1fnX2.is_native() && !Quint8.is_native());
    }
}
