//! BitNet: -1, 0 and 1 with one scale.

use tensorhold_core::{Dtype, Result};

use super::fp8::SCALE_DTYPES;
use super::{Axis, Change, Groups, Packed, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::{BitOrder, PartOrder};

/// What the scale does to the codes: `linear_class` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitNetScale {
    /// `bitlinear`, and where none is named: a weight is the code divided by it.
    Divides,
    /// `autobitlinear`: a weight is the code times it.
    Multiplies,
}

/// Codes of 2 bits, one more than -1, 0 or 1: the first quarter of the rows has the lowest bits of every byte.
///
/// # Shapes
/// `weight` U8 `[N / 4, K]`, `weight_scale` `[]` or `[1]`. The weight is `[N, K]`.
///
/// # Source
/// Transformers 5.23, `integrations.bitnet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitNet {
    /// What the scale does.
    pub scale: BitNetScale,
}

const PARTS_OF_ROWS: u64 = 4;

impl Scheme for BitNet {
    const PARTS: &'static [&'static str] = &["weight", "weight_scale"];
    const CONFIG_KEYS: &'static [&'static str] = &["linear_class", "quantization_mode"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("weight")?.of_dtype(&[Dtype::U8])?;
        let [bytes, columns] = weight.dims()?;
        let rows = bytes
            .checked_mul(PARTS_OF_ROWS)
            .ok_or_else(|| weight.wrong("it passes 2^64 outputs"))?;
        let packed = Packed {
            order: BitOrder::strided(2, PartOrder::LowFirst, bytes.max(1))?,
            along: Axis::Rows,
        };
        let scale = parts.part("weight_scale")?.of_dtype(SCALE_DTYPES)?;
        let mut scales = scale
            .of_shape(&[&[], &[1]])?
            .numbers([1, 1, 1], Axis::Columns)?;
        if self.scale == BitNetScale::Divides {
            // Of 0 and 1 the quotient and the product with the inverse are the same.
            scales.change = Change::Inverted;
        }
        Recipe {
            shape: vec![rows, columns],
            codes: weight.codes([1, rows, columns], Axis::Columns, packed)?,
            value: Value::Unsigned,
            groups: Groups {
                rows: rows.max(1),
                columns: columns.max(1),
            },
            scales,
            global: None,
            zeros: Zeros::Constant(1.0),
            group_index: None,
        }
        .checked()
    }
}
