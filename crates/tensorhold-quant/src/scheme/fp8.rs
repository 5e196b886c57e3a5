//! Floats of 8 bits with a scale for all, for each row, or for each block.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::parts::logical;
use super::{Axis, Groups, Packed, Part, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::{BitOrder, FloatCode};

/// Floats of 8 bits with scales: one of a tensor, of a row, or of a block whose edges may be partial.
///
/// `weight_scale_inv` is multiplied by as any other scale. A grid of scales does not tell the size of its blocks,
/// which the configuration must say. MXFP8 is this with blocks of 1 x 32.
///
/// # Shapes
/// The weight is `[N, K]` or `[E, N, K]`. Scales are `[]` or `[1]`; `[N]` or `[N, 1]`;
/// `[ceil(N / rows), ceil(K / columns)]`, or that with a 1 after each of the two; for experts with `E` before it. Without a
/// block also `[N, blocks, 1]`, where a row is so many blocks of the same size.
///
/// # Source
/// DeepSeek-V3 and V4, Transformers' `finegrained_fp8`, compressed-tensors (`float-quantized`, `mxfp8-quantized`),
/// modelopt (`FP8`, `FP8_PER_CHANNEL_PER_TOKEN`, `FP8_PB_WO`, `MXFP8`), fbgemm, musubi-tuner (blocks of a row), ComfyUI where a scale is one number, `Float8Tensor` of torchao
/// (`qdata`, `scale`), and `qfloat8` of quanto (`weight._data`, `weight._scale`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fp8 {
    /// Rows and columns of a block; `None` for one scale of a tensor or a row.
    pub block: Option<[u64; 2]>,
}

const SCALES: &[&str] = &[
    "weight_scale_inv",
    "weight_scale",
    "scale",
    "qscale_weight",
    "scale_weight",
    "_scale_inv",
    "weight._scale",
];

const WEIGHTS: &[&str] = &["weight", "", "qdata", "weight._data"];

impl Scheme for Fp8 {
    const PARTS: &'static [&'static str] = &[
        WEIGHTS[0], WEIGHTS[1], WEIGHTS[2], WEIGHTS[3], SCALES[0], SCALES[1], SCALES[2], SCALES[3],
        SCALES[4], SCALES[5], SCALES[6],
    ];
    const CONFIG_KEYS: &'static [&'static str] = &["weight_block_size", "scale_fmt"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.first_of(WEIGHTS)?;
        let Some(float) = FloatCode::of_dtype(weight.dtype).filter(|float| float.width_bits() == 8)
        else {
            return Err(weight.wrong("it must be floats of 8 bits"));
        };
        let size = weight.matrices()?;
        let packed = Packed {
            order: BitOrder::lsb(8)?,
            along: Axis::Columns,
        };
        let scale = parts.first_of(SCALES)?;
        let (groups, grid) = self.groups(size, scale)?;
        Recipe {
            shape: logical(size, weight.shape.len() == 3),
            codes: weight.codes(size, Axis::Columns, packed)?,
            value: Value::Float(float),
            groups,
            scales: scale.numbers(grid, Axis::Columns)?,
            global: None,
            zeros: Zeros::None,
            group_index: None,
        }
        .checked()
    }
}

impl Fp8 {
    /// What shares a scale, and the size of the grid of scales.
    fn groups(&self, size: [u64; 3], scale: Part<'_>) -> Result<(Groups, [u64; 3])> {
        let [experts, rows, columns] = size;
        let Some([block_rows, block_columns]) = self.block else {
            return whole_or_rows(size, scale);
        };
        if block_rows == 0 || block_columns == 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("blocks of {block_rows} x {block_columns} hold nothing"),
            ));
        }
        let (high, wide) = (rows.div_ceil(block_rows), columns.div_ceil(block_columns));
        let (flat, spaced) = ([experts, high, wide], [high, 1, wide, 1]);
        match experts == 1 {
            true => scale.of_shape(&[&flat[1..], &spaced, &flat])?,
            false => scale.of_shape(&[&flat])?,
        };
        Ok((
            Groups {
                rows: block_rows,
                columns: block_columns,
            },
            flat,
        ))
    }
}

/// Scales of which there is one for a matrix or one for a row.
fn whole_or_rows(size: [u64; 3], scale: Part<'_>) -> Result<(Groups, [u64; 3])> {
    let [experts, rows, columns] = size;
    let whole = Groups {
        rows: rows.max(1),
        columns: columns.max(1),
    };
    let each = Groups { rows: 1, ..whole };
    let of_row = [experts, rows, 1];
    Ok(match scale.shape {
        [] | [1] | [1, 1] if experts == 1 => (whole, [1, 1, 1]),
        [n] | [n, 1] | [n, 1, 1] if experts > 1 && *n == experts => (whole, [experts, 1, 1]),
        [n] | [n, 1] if experts == 1 && *n == rows => (each, of_row),
        shape if shape == of_row => (each, of_row),
        [n, n_blocks, 1] if experts == 1 && *n == rows && is_cut(columns, *n_blocks) => {
            let of_block = Groups {
                rows: 1,
                columns: (columns / n_blocks).max(1),
            };
            (of_block, [1, rows, *n_blocks])
        }
        _ => {
            let must = format!("without blocks it must be one scale, or {rows} of rows");
            return Err(scale
                .wrong(&must)
                .with_hint("a grid of scales needs `weight_block_size`"));
        }
    })
}

/// Whether rows of so many columns are so many blocks.
fn is_cut(columns: u64, n_blocks: u64) -> bool {
    n_blocks > 0 && columns > 0 && columns.is_multiple_of(n_blocks)
}

/// Types that scales come in.
pub(super) const SCALE_DTYPES: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];
