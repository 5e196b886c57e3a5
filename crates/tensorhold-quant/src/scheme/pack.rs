//! `pack-quantized` of compressed-tensors.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::fp8::SCALE_DTYPES;
use super::gptq::group_index;
use super::{Axis, Groups, Packed, Part, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::BitOrder;

/// How codes of 3, 5, 6 and 7 bits lie; all others lie the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackOrder {
    /// As many in a word as fit, up to May 2026.
    Padded,
    /// One after another, across words, from June 2026 on.
    Dense,
}

/// Codes of 1 to 8 bits that lie along the inputs, in words.
///
/// No part says which [`PackOrder`] there is; the width of `weight_packed` does, for most numbers of inputs.
///
/// # Shapes
/// `weight_packed` I32 `[N, words of K]`; `weight_scale` `[N, ceil(K / group_size)]`, `[N, 1]` or `[1]`;
/// `weight_zero_point` I32 `[words of N, ceil(K / group_size)]`; `weight_g_idx` I32 `[K]`. The last two may be missing.
///
/// # Source
/// compressed-tensors 0.11.0 and 0.20.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackQuantized {
    /// The width of a code.
    pub bits: u32,
    /// Inputs that share a scale, all where `None`.
    pub group_size: Option<u64>,
    /// The two numbers in `weight_shape`: outputs and inputs.
    pub shape: [u64; 2],
    /// How codes lie, where it is known.
    pub order: Option<PackOrder>,
}

impl Scheme for PackQuantized {
    const PARTS: &'static [&'static str] = &[
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_g_idx",
        "weight_shape",
    ];
    const CONFIG_KEYS: &'static [&'static str] = &[
        "num_bits",
        "type",
        "symmetric",
        "strategy",
        "group_size",
        "actorder",
    ];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("weight_packed")?.of_dtype(&[Dtype::I32])?;
        let [rows, columns] = self.shape;
        let order = self.order(weight)?;
        let along = Axis::Columns;
        let group_size = super::awq::group_size(self.group_size, columns)?;
        let scales = parts.part("weight_scale")?.of_dtype(SCALE_DTYPES)?;
        let (groups, grid) = grid(scales, self.shape, group_size)?;
        let zeros = parts
            .find("weight_zero_point")
            .map(|part| packed_zeros(part, grid, order));
        let middle = Zeros::Constant((1 << (self.bits - 1)) as f32);
        let index = parts
            .find("weight_g_idx")
            .map(|index| group_index(index, columns));
        Recipe {
            shape: self.shape.to_vec(),
            codes: weight.codes([1, rows, columns], along, Packed { order, along })?,
            value: Value::Unsigned,
            groups,
            scales: scales.numbers(grid, Axis::Columns)?,
            global: None,
            zeros: zeros.transpose()?.unwrap_or(middle),
            group_index: index.transpose()?,
        }
        .checked()
    }
}

impl PackQuantized {
    /// The order in which `weight` is as wide as it is.
    fn order(&self, weight: Part<'_>) -> Result<BitOrder> {
        let (dense, padded) = (
            BitOrder::lsb_words(self.bits)?,
            BitOrder::padded(self.bits)?,
        );
        let [rows, columns] = self.shape;
        let widths = [
            dense.size_bytes(columns)? / 4,
            padded.size_bytes(columns)? / 4,
        ];
        let [rows_there, words] = weight.dims()?;
        let fits = |width: u64| rows_there == rows && words == width;
        let order = match self.order {
            Some(PackOrder::Dense) => (dense, fits(widths[0])),
            Some(PackOrder::Padded) => (padded, fits(widths[1])),
            None if 32 % self.bits == 0 => (dense, fits(widths[0])),
            None if widths[0] == widths[1] && fits(widths[0]) => {
                return Err(ambiguous(self.bits, columns));
            }
            None if fits(widths[1]) => (padded, true),
            None => (dense, fits(widths[0])),
        };
        match order {
            (order, true) => Ok(order),
            (_, false) => {
                let [dense, padded] = widths;
                Err(weight.wrong(&format!(
                    "for {rows} x {columns} codes of {} bits it must be [{rows}, {dense}] (dense) or [{rows}, {padded}] (padded)",
                    self.bits
                )))
            }
        }
    }
}

/// Zeros whose runs go down the outputs.
fn packed_zeros(part: Part<'_>, grid: [u64; 3], order: BitOrder) -> Result<Zeros> {
    let along = Axis::Rows;
    let part = part.of_dtype(&[Dtype::I32])?;
    let stored = part.codes(grid, Axis::Columns, Packed { order, along })?;
    let [_, words, n_groups] = stored.view()?;
    part.of_shape(&[&[words, n_groups]])?;
    Ok(Zeros::Packed { stored, plus: 0 })
}

fn ambiguous(bits: u32, columns: u64) -> Error {
    let message = format!("{columns} codes of {bits} bits take as many words padded as dense");
    Error::new(ErrorKind::InvalidTensor, message)
        .with_hint("say which: padded before June 2026, dense since then")
}

/// What shares a scale, and the size of the grid of scales.
pub(super) fn grid(
    scales: Part<'_>,
    shape: [u64; 2],
    group_size: u64,
) -> Result<(Groups, [u64; 3])> {
    let [rows, columns] = shape;
    let n_groups = columns.div_ceil(group_size);
    if matches!(scales.shape, [] | [1] | [1, 1]) && group_size >= columns {
        let groups = Groups {
            rows: rows.max(1),
            columns: columns.max(1),
        };
        return Ok((groups, [1, 1, 1]));
    }
    scales.of_shape(&[&[rows, n_groups]])?;
    Ok((
        Groups {
            rows: 1,
            columns: group_size,
        },
        [1, rows, n_groups],
    ))
}
