//! MLX: codes of 2 to 8 bits in words, with a scale and a bias, or the floats of the OCP and of NVIDIA.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::fp8::SCALE_DTYPES;
use super::parts::logical;
use super::{
    Axis, Change, Groups, Number, Numbers, Packed, Part, Parts, Recipe, Scheme, Value, Zeros,
};
use crate::codec::{BitOrder, E8m0, FloatCode};

/// What the codes are, and their scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MlxMode {
    /// `affine`: integers, with a scale that multiplies and a bias that is added.
    Affine,
    /// `mxfp4`: E2M1 with powers of two.
    Mxfp4,
    /// `mxfp8`: E4M3 with powers of two.
    Mxfp8,
    /// `nvfp4`: E2M1 with scales in E4M3.
    Nvfp4,
}

/// Codes one after another in words of 32 bits along the inputs.
///
/// Where MLX computes in the type of the scales, of 16 bits, and rounds product and sum, this rounds once.
///
/// # Shapes
/// `weight` U32 `[N, K * bits / 32]`, `scales` `[N, K / group_size]`, U8 but for `affine`, and `biases` like them for `affine`
/// alone; all with experts before that. The weight is `[N, K]` or `[E, N, K]`.
///
/// # Source
/// MLX 0.32, `dequantize`. The configuration is `quantization` of `config.json`, with an entry for each module that differs;
/// `mode` may be missing, and is `affine` then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mlx {
    /// What the codes are.
    pub mode: MlxMode,
    /// The width of a code: 2, 3, 4, 5, 6 or 8.
    pub bits: u32,
    /// Inputs that share a scale.
    pub group_size: u64,
}

impl Scheme for Mlx {
    const PARTS: &'static [&'static str] = &["weight", "scales", "biases"];
    const CONFIG_KEYS: &'static [&'static str] = &["group_size", "bits", "mode"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let (value, order) = (self.value()?, BitOrder::lsb_words(self.bits)?);
        let group_size = super::awq::group_size(Some(self.group_size), 1)?;
        let weight = parts.part("weight")?.of_dtype(&[Dtype::U32])?;
        let scales = parts.part("scales")?;
        let grid = scales.matrices()?;
        let [experts, rows, n_groups] = grid;
        let columns = n_groups.checked_mul(group_size);
        let columns = columns.ok_or_else(|| scales.wrong("it passes 2^64 inputs"))?;
        let has_experts = scales.shape.len() == 3;
        let (size, along) = ([experts, rows, columns], Axis::Columns);
        let words = order.size_bytes(columns)? / 4;
        let weight = weight.of_shape(&[&logical([experts, rows, words], has_experts)])?;
        Recipe {
            shape: logical(size, has_experts),
            codes: weight.codes(size, along, Packed { order, along })?,
            value,
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: self.scales(scales, grid)?,
            global: None,
            zeros: self.biases(parts, scales, grid)?,
            group_index: None,
        }
        .checked()
    }
}

impl Mlx {
    /// What a code stands for, if there are such codes.
    fn value(&self) -> Result<Value> {
        match (self.mode, self.bits) {
            (MlxMode::Affine, 2..=6 | 8) => Ok(Value::Unsigned),
            (MlxMode::Mxfp4 | MlxMode::Nvfp4, 4) => Ok(Value::Float(FloatCode::E2m1)),
            (MlxMode::Mxfp8, 8) => Ok(Value::Float(FloatCode::E4m3)),
            (mode, bits) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("MLX has no codes of {bits} bits in mode {mode:?}"),
            )),
        }
    }

    fn scales(&self, part: Part<'_>, grid: [u64; 3]) -> Result<Numbers> {
        let number = match self.mode {
            MlxMode::Affine => {
                return part.of_dtype(SCALE_DTYPES)?.numbers(grid, Axis::Columns);
            }
            MlxMode::Mxfp4 | MlxMode::Mxfp8 => Number::Power(E8m0::default()),
            MlxMode::Nvfp4 => Number::Float(Dtype::F8_E4M3),
        };
        Ok(Numbers {
            stored: part.of_dtype(&[Dtype::U8])?.elements(grid, Axis::Columns)?,
            number,
            change: Change::None,
        })
    }

    fn biases(&self, parts: &Parts<'_>, scales: Part<'_>, grid: [u64; 3]) -> Result<Zeros> {
        if self.mode != MlxMode::Affine {
            return Ok(Zeros::None);
        }
        let biases = parts.part("biases")?.of_dtype(SCALE_DTYPES)?;
        let biases = biases.of_shape(&[scales.shape])?;
        Ok(Zeros::Bias(biases.numbers(grid, Axis::Columns)?))
    }
}
