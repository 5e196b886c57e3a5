//! The packing of 4 bits that is modelopt's own.

use tensorhold_core::{Dtype, Result};

use super::fp8::SCALE_DTYPES;
use super::{Axis, Groups, Packed, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::BitOrder;

/// `W4A16_AWQ`: codes in two's complement, two rows in a byte, the even one in the lower half.
///
/// Inputs are multiplied by `pre_quant_scale` before they meet the weight, so that it is not the one of an unquantized checkpoint: it is
/// the weight divided by that, which this does not undo.
///
/// # Shapes
/// `weight` U8 `[N / 2, K]`, `weight_scale` `[N, K / group_size]`. The weight is `[N, K]`.
///
/// # Source
/// modelopt 0.47.0, `export.quant_utils.pack_int4_in_uint8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct W4a16Awq {
    /// Inputs that share a scale.
    pub group_size: u64,
}

impl Scheme for W4a16Awq {
    const PARTS: &'static [&'static str] = &["weight", "weight_scale", "pre_quant_scale"];
    const CONFIG_KEYS: &'static [&'static str] = &[
        "quant_algo",
        "group_size",
        "has_zero_point",
        "pre_quant_scale",
    ];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("weight")?.of_dtype(&[Dtype::U8])?;
        let [pairs, columns] = weight.dims()?;
        let rows = pairs
            .checked_mul(2)
            .ok_or_else(|| weight.wrong("it passes 2^64 outputs"))?;
        let group_size = super::awq::group_size(Some(self.group_size), columns)?;
        let packed = Packed {
            order: BitOrder::lsb(4)?,
            along: Axis::Rows,
        };
        let n_groups = columns.div_ceil(group_size);
        let scales = parts.part("weight_scale")?.of_dtype(SCALE_DTYPES)?;
        let scales = scales.of_shape(&[&[rows, n_groups]])?;
        Recipe {
            shape: vec![rows, columns],
            codes: weight.codes([1, rows, columns], Axis::Columns, packed)?,
            value: Value::Signed,
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: scales.numbers([1, rows, n_groups], Axis::Columns)?,
            global: None,
            zeros: Zeros::None,
            group_index: None,
        }
        .checked()
    }
}
