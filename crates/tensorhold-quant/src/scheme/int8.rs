//! `int-quantized` of compressed-tensors.

use tensorhold_core::{Dtype, Result};

use super::fp8::SCALE_DTYPES;
use super::{Axis, Number, Numbers, Packed, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::BitOrder;

/// Integers of 8 bits, one in a byte.
///
/// # Shapes
/// `weight` I8 `[N, K]`; `weight_scale` `[N, ceil(K / group_size)]`, `[N, 1]` or `[1]`; `weight_zero_point` I8, of the
/// shape of the scales, may be missing.
///
/// # Source
/// compressed-tensors 0.20.0, `int-quantized` and `naive-quantized`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IntQuantized {
    /// Inputs that share a scale, all where `None`.
    pub group_size: Option<u64>,
}

impl Scheme for IntQuantized {
    const PARTS: &'static [&'static str] = &["weight", "weight_scale", "weight_zero_point"];
    const CONFIG_KEYS: &'static [&'static str] =
        &["num_bits", "type", "symmetric", "strategy", "group_size"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("weight")?.of_dtype(&[Dtype::I8])?;
        let [rows, columns] = weight.dims()?;
        let group_size = super::awq::group_size(self.group_size, columns)?;
        let scales = parts.part("weight_scale")?.of_dtype(SCALE_DTYPES)?;
        let (groups, grid) = super::pack::grid(scales, [rows, columns], group_size)?;
        let zeros = parts.find("weight_zero_point").map(|zeros| {
            let zeros = zeros.of_dtype(&[Dtype::I8])?.of_shape(&[scales.shape])?;
            zeros.elements(grid, Axis::Columns)
        });
        let zeros = zeros.transpose()?.map(|stored| Numbers {
            stored,
            number: Number::Signed,
        });
        let packed = Packed {
            order: BitOrder::lsb(8)?,
            along: Axis::Columns,
        };
        Recipe {
            shape: vec![rows, columns],
            codes: weight.codes([1, rows, columns], Axis::Columns, packed)?,
            value: Value::Signed,
            groups,
            scales: scales.numbers(grid, Axis::Columns)?,
            global: None,
            zeros: zeros.map_or(Zeros::None, Zeros::Numbers),
            group_index: None,
        }
        .checked()
    }
}
