//! Integers of 8 bits, in compressed-tensors, torchao and quanto.

use tensorhold_core::{Dtype, Result};

use super::fp8::SCALE_DTYPES;
use super::{Axis, Change, Number, Numbers, Packed, Part, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::BitOrder;

/// Integers of 8 bits, one in a byte.
///
/// # Shapes
/// `weight` I8 `[N, K]`; `weight_scale` `[N, ceil(K / group_size)]`, `[N, 1]` or `[1]`; `weight_zero_point` I8, of the
/// shape of the scales, may be missing.
///
/// # Source
/// compressed-tensors 0.20.0, `int-quantized` and `naive-quantized`; `Int8Tensor` and `IntxUnpackedToInt8Tensor` of torchao 0.18
/// (`qdata`, `scale`, `zero_point`, which may be a float); `qint8` of quanto (`weight._data`, `weight._scale`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IntQuantized {
    /// Inputs that share a scale, all where `None`.
    pub group_size: Option<u64>,
}

const WEIGHTS: &[&str] = &["weight", "qdata", "weight._data"];
const SCALES: &[&str] = &["weight_scale", "scale", "weight._scale"];
const ZEROS: &[&str] = &["weight_zero_point", "zero_point"];

impl Scheme for IntQuantized {
    const PARTS: &'static [&'static str] = &[
        WEIGHTS[0], WEIGHTS[1], WEIGHTS[2], SCALES[0], SCALES[1], SCALES[2], ZEROS[0], ZEROS[1],
    ];
    const CONFIG_KEYS: &'static [&'static str] =
        &["num_bits", "type", "symmetric", "strategy", "group_size"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.first_of(WEIGHTS)?.of_dtype(&[Dtype::I8])?;
        let [rows, columns] = weight.dims()?;
        let group_size = super::awq::group_size(self.group_size, columns)?;
        let scales = parts.first_of(SCALES)?.of_dtype(SCALE_DTYPES)?;
        let (groups, grid) = super::pack::grid(scales, [rows, columns], group_size)?;
        let zeros = ZEROS.iter().find_map(|name| parts.find(name));
        let zeros = zeros.map(|part| zero_points(part.of_shape(&[scales.shape])?, grid));
        let zeros = zeros.transpose()?;
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

/// Integers of 8 bits, or floats.
fn zero_points(part: Part<'_>, grid: [u64; 3]) -> Result<Numbers> {
    if part.dtype != Dtype::I8 {
        return part.of_dtype(SCALE_DTYPES)?.numbers(grid, Axis::Columns);
    }
    Ok(Numbers {
        stored: part.elements(grid, Axis::Columns)?,
        number: Number::Signed,
        change: Change::None,
    })
}
