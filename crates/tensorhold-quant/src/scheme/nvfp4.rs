//! NVFP4: floats of 4 bits with two scales.

use tensorhold_core::{Dtype, Result};

use super::parts::logical;
use super::{
    Axis, Effect, Entries, Global, Groups, Number, Numbers, Packed, Part, Parts, Recipe, Scheme,
    Value, Zeros,
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
}

/// E2M1 with a scale in E4M3 for every 16 inputs, and one in F32 for a matrix.
///
/// The two scales make one first, as in these programs.
///
/// # Shapes
/// Codes U8 `[N, K / 2]` or `[E, N, K / 2]`, scales F8_E4M3 `[N, K / 16]` or `[E, N, K / 16]`, where they are tiles filled up to
/// multiples of 128 and 4, the second scale F32 `[]` or `[1]`, or `[E]`. The weight is `[N, K]` or `[E, N, K]`.
///
/// # Source
/// modelopt 0.47.0, compressed-tensors 0.20.0, comfy-kitchen 0.2.40.
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
    ];
    const CONFIG_KEYS: &'static [&'static str] = &["quant_algo", "format", "group_size"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let (codes, order, global, effect) = self.names()?;
        let codes = parts.part(codes)?.of_dtype(&[Dtype::U8])?;
        let scales = parts.part("weight_scale")?.of_dtype(&[Dtype::F8_E4M3])?;
        let global = parts.part(global)?.of_dtype(&[Dtype::F32])?;
        let [experts, rows, bytes] = codes.matrices()?;
        let columns = bytes
            .checked_mul(2)
            .ok_or_else(|| codes.wrong("it passes 2^64 inputs"))?;
        let (size, grid) = (
            [experts, rows, columns],
            [experts, rows, columns.div_ceil(BLOCK)],
        );
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
            global: Some(Global {
                numbers: global_numbers(global, experts, has_experts)?,
                effect,
            }),
            zeros: Zeros::None,
            group_index: None,
        }
        .checked()
    }
}

impl Nvfp4 {
    /// What codes are called and how they lie, what the second scale is called and does.
    fn names(self) -> Result<(&'static str, BitOrder, &'static str, Effect)> {
        let low_first = BitOrder::lsb(4)?;
        let high_first = BitOrder::HIGH_NIBBLE_FIRST;
        let (product, quotient) = ("weight_scale_2", "weight_global_scale");
        Ok(match self.names {
            Nvfp4Names::Modelopt => ("weight", low_first, product, Effect::Multiplies),
            Nvfp4Names::ComfyUi => ("weight", high_first, product, Effect::Multiplies),
            Nvfp4Names::CompressedTensors => {
                ("weight_packed", low_first, quotient, Effect::Divides)
            }
        })
    }

    /// The first scales, in rows or in tiles.
    fn scales(self, part: Part<'_>, grid: [u64; 3], has_experts: bool) -> Result<Numbers> {
        if self.names != Nvfp4Names::ComfyUi {
            let part = part.of_shape(&[&logical(grid, has_experts)])?;
            return part.numbers(grid, Axis::Columns);
        }
        let stored = part.stored(grid, Axis::Columns, Entries::Tiles)?;
        part.of_shape(&[&logical(stored.view()?, has_experts)])?;
        Ok(Numbers {
            stored,
            number: Number::Float(Dtype::F8_E4M3),
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
