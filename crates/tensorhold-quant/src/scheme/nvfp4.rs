//! NVFP4: floats of 4 bits with two scales.

use tensorhold_core::{Dtype, Result};

use super::parts::logical;
use super::{
    Axis, Change, Effect, Entries, Global, Groups, Number, Numbers, Packed, Part, Parts, Recipe,
    Scheme, Value, Zeros,
};
use crate::codec::{BitOrder, FloatCode};

const BLOCK: u64 = 16;

/// What the parts are called, and what the second scale does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nvfp4Names {
    /// `weight`, `weight_scale`, and `weight_scale_2`, which multiplies.
    Modelopt,
    /// `weight_packed`, `weight_scale`, and `weight_global_scale`, which divides.
    CompressedTensors,
    /// The parts of modelopt, but for the first code in the upper half of a byte and scales in tiles: ComfyUI.
    ///
    /// Nothing in the parts tells it from modelopt where tiles are not filled up; `comfy_quant` does.
    ComfyUi,
    /// `qdata`, `scale`, and `per_tensor_scale`, which multiplies and may be missing: `NVFP4Tensor` of torchao.
    Torchao,
    /// The same, with scales in tiles: `is_swizzled_scales`.
    TorchaoTiles,
}

/// E2M1 with a scale in E4M3 for every 16 inputs, and one in F32 for a matrix.
///
/// The two scales make one first, as in these programs.
///
/// # Shapes
/// Codes U8 `[N, K / 2]` or `[E, N, K / 2]`, or F4 of the shape of the weight; scales F8_E4M3 `[N, K / 16]` or `[E, N, K / 16]`, where they are tiles filled up to
/// multiples of 128 and 4, the second scale F32 `[]` or `[1]`, or `[E]`. The weight is `[N, K]` or `[E, N, K]`.
///
/// # Source
/// modelopt 0.47.0, compressed-tensors 0.20.0, comfy-kitchen 0.2.40, torchao 0.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nvfp4 {
    /// What the parts are called.
    pub names: Nvfp4Names,
}

impl Scheme for Nvfp4 {
    const PARTS: &'static [&'static str] = &[
        "weight_packed",
        "weight",
        "weight_scale",
        "weight_scale_2",
        "weight_global_scale",
        "qdata",
        "scale",
        "per_tensor_scale",
    ];
    const CONFIG_KEYS: &'static [&'static str] = &["quant_algo", "format", "group_size"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let (codes, order, scales) = self.names()?;
        let codes = parts.part(codes)?;
        let scales = parts.part(scales)?.of_dtype(&[Dtype::F8_E4M3])?;
        let size = codes.code_matrices(FloatCode::E2m1)?;
        let [experts, rows, columns] = size;
        let grid = [experts, rows, columns.div_ceil(BLOCK)];
        let has_experts = codes.shape.len() == 3;
        let along = Axis::Columns;
        Recipe {
            shape: logical(size, has_experts),
            codes: codes.codes(size, along, Packed { order, along })?,
            value: Value::Float(FloatCode::E2m1),
            groups: Groups {
                rows: 1,
                columns: BLOCK,
            },
            scales: self.scales(scales, grid, has_experts)?,
            global: self.global(parts, experts, has_experts)?,
            zeros: Zeros::None,
            group_index: None,
        }
        .checked()
    }
}

impl Nvfp4 {
    /// What codes are called, how they lie, and what the first scales are called.
    fn names(self) -> Result<(&'static str, BitOrder, &'static str)> {
        let low_first = BitOrder::lsb(4)?;
        let high_first = BitOrder::HIGH_NIBBLE_FIRST;
        Ok(match self.names {
            Nvfp4Names::Modelopt => ("weight", low_first, "weight_scale"),
            Nvfp4Names::ComfyUi => ("weight", high_first, "weight_scale"),
            Nvfp4Names::CompressedTensors => ("weight_packed", low_first, "weight_scale"),
            Nvfp4Names::Torchao | Nvfp4Names::TorchaoTiles => ("qdata", low_first, "scale"),
        })
    }

    /// The second scale, if there is one.
    fn global(self, parts: &Parts<'_>, experts: u64, has_experts: bool) -> Result<Option<Global>> {
        let (part, effect) = match self.names {
            Nvfp4Names::Modelopt | Nvfp4Names::ComfyUi => {
                (parts.part("weight_scale_2")?, Effect::Multiplies)
            }
            Nvfp4Names::CompressedTensors => (parts.part("weight_global_scale")?, Effect::Divides),
            Nvfp4Names::Torchao | Nvfp4Names::TorchaoTiles => {
                match parts.find("per_tensor_scale") {
                    Some(part) => (part, Effect::Multiplies),
                    None => return Ok(None),
                }
            }
        };
        let part = part.of_dtype(&[Dtype::F32])?;
        let numbers = global_numbers(part, experts, has_experts)?;
        Ok(Some(Global { numbers, effect }))
    }

    /// The first scales, in rows or in tiles.
    fn scales(self, part: Part<'_>, grid: [u64; 3], has_experts: bool) -> Result<Numbers> {
        if !matches!(self.names, Nvfp4Names::ComfyUi | Nvfp4Names::TorchaoTiles) {
            let part = part.of_shape(&[&logical(grid, has_experts)])?;
            return part.numbers(grid, Axis::Columns);
        }
        let stored = part.stored(grid, Axis::Columns, Entries::Tiles)?;
        if self.names == Nvfp4Names::ComfyUi {
            part.of_shape(&[&logical(stored.view()?, has_experts)])?;
        }
        Ok(Numbers {
            stored,
            number: Number::Float(Dtype::F8_E4M3),
            change: Change::None,
        })
    }
}

/// The second scale: one for all, or one for each expert.
fn global_numbers(part: Part<'_>, experts: u64, has_experts: bool) -> Result<Numbers> {
    let shapes: &[&[u64]] = &[&[], &[1], &[experts], &[experts, 1], &[experts, 1, 1]];
    let part = part.of_shape(&shapes[..if has_experts { 5 } else { 2 }])?;
    let n_globals = match part.shape {
        [] | [1] => 1,
        _ => experts,
    };
    part.numbers([n_globals, 1, 1], Axis::Columns)
}
