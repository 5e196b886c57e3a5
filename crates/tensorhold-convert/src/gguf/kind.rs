//! The types that tensors of GGUF have, and how many bytes their blocks take.

use crate::element::Element;

/// The type of a tensor's elements.
///
/// # Source
/// `enum ggml_type` and the blocks of `ggml-common.h` in ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is named as in ggml")]
#[allow(non_camel_case_types)]
pub enum Kind {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
}

use Kind::*;

/// Type, ggml's number of it, its name, elements in a block, bytes of a block.
const TABLE: [(Kind, u32, &str, u64, u64); 34] = [
    (F32, 0, "F32", 1, 4),
    (F16, 1, "F16", 1, 2),
    (Q4_0, 2, "Q4_0", 32, 18),
    (Q4_1, 3, "Q4_1", 32, 20),
    (Q5_0, 6, "Q5_0", 32, 22),
    (Q5_1, 7, "Q5_1", 32, 24),
    (Q8_0, 8, "Q8_0", 32, 34),
    (Q8_1, 9, "Q8_1", 32, 36),
    (Q2_K, 10, "Q2_K", 256, 84),
    (Q3_K, 11, "Q3_K", 256, 110),
    (Q4_K, 12, "Q4_K", 256, 144),
    (Q5_K, 13, "Q5_K", 256, 176),
    (Q6_K, 14, "Q6_K", 256, 210),
    (Q8_K, 15, "Q8_K", 256, 292),
    (IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    (IQ2_XS, 17, "IQ2_XS", 256, 74),
    (IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    (IQ1_S, 19, "IQ1_S", 256, 50),
    (IQ4_NL, 20, "IQ4_NL", 32, 18),
    (IQ3_S, 21, "IQ3_S", 256, 110),
    (IQ2_S, 22, "IQ2_S", 256, 82),
    (IQ4_XS, 23, "IQ4_XS", 256, 136),
    (I8, 24, "I8", 1, 1),
    (I16, 25, "I16", 1, 2),
    (I32, 26, "I32", 1, 4),
    (I64, 27, "I64", 1, 8),
    (F64, 28, "F64", 1, 8),
    (IQ1_M, 29, "IQ1_M", 256, 56),
    (BF16, 30, "BF16", 1, 2),
    (TQ1_0, 34, "TQ1_0", 256, 54),
    (TQ2_0, 35, "TQ2_0", 256, 66),
    (MXFP4, 39, "MXFP4", 32, 17),
    (NVFP4, 40, "NVFP4", 64, 36),
    (Q1_0, 41, "Q1_0", 128, 18),
];

impl Kind {
    /// Every type.
    pub fn all() -> impl Iterator<Item = Kind> {
        TABLE.iter().map(|row| row.0)
    }

    /// The type that ggml's number stands for.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Kind> {
        TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The type of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Kind> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// ggml's number.
    #[must_use]
    pub fn number(self) -> u32 {
        TABLE[self as usize].1
    }

    /// ggml's name in capitals, such as `Q4_K`.
    #[must_use]
    pub fn name(self) -> &'static str {
        TABLE[self as usize].2
    }

    /// How many elements are packed together; 1 for plain numbers.
    #[must_use]
    pub fn block_elements(self) -> u64 {
        TABLE[self as usize].3
    }

    /// How many bytes a block has.
    #[must_use]
    pub fn block_bytes(self) -> u64 {
        TABLE[self as usize].4
    }

    /// The element type of plain numbers; `None` for blocks.
    #[must_use]
    pub fn element(self) -> Option<Element> {
        Some(match self {
            F32 => Element::Float32,
            F16 => Element::Float16,
            BF16 => Element::Bfloat16,
            F64 => Element::Float64,
            I8 => Element::Int8,
            I16 => Element::Int16,
            I32 => Element::Int32,
            I64 => Element::Int64,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_its_own_row() {
        for (row, kind) in Kind::all().enumerate() {
            assert_eq!(kind as usize, row);
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
            let width = kind.element().map(Element::width_bytes);
            assert_eq!(width.is_some(), kind.block_elements() == 1);
            assert!(width.is_none_or(|width| width == kind.block_bytes()));
        }
    }
}
