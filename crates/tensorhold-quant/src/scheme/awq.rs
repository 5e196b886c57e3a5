//! AWQ in the layout of its GEMM kernel.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::fp8::SCALE_DTYPES;
use super::{Axis, Groups, Packed, Part, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::BitOrder;

/// Codes of 4 bits that lie along the outputs, eight in a word.
///
/// Without `qzeros` the zero is 8.
///
/// # Shapes
/// `qweight` I32 `[K, N / 8]`, `scales` `[K / group_size, N]`, `qzeros` I32 `[K / group_size, N / 8]`.
/// The weight is `[N, K]`.
///
/// # Source
/// AutoAWQ 0.2.9, `version` `gemm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwqGemm {
    /// Inputs that share a scale, all where `None`.
    pub group_size: Option<u64>,
}

const PACKED: Packed = Packed {
    order: BitOrder::AWQ,
    along: Axis::Rows,
};

impl Scheme for AwqGemm {
    const PARTS: &'static [&'static str] = &["qweight", "qzeros", "scales"];
    const CONFIG_KEYS: &'static [&'static str] = &[
        "bits",
        "w_bit",
        "group_size",
        "q_group_size",
        "zero_point",
        "version",
        "format",
    ];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("qweight")?.of_dtype(&[Dtype::I32])?;
        let [columns, words] = weight.dims()?;
        let rows = words
            .checked_mul(8)
            .ok_or_else(|| weight.wrong("it passes 2^64 outputs"))?;
        let group_size = group_size(self.group_size, columns)?;
        let n_groups = columns.div_ceil(group_size);
        let grid = [1, rows, n_groups];
        let scales = parts.part("scales")?.of_dtype(SCALE_DTYPES)?;
        let zeros = parts.find("qzeros").map(|part| zeros(part, grid, words));
        Recipe {
            shape: vec![rows, columns],
            codes: weight.codes([1, rows, columns], Axis::Rows, PACKED)?,
            value: Value::Unsigned,
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: scales
                .of_shape(&[&[n_groups, rows]])?
                .numbers(grid, Axis::Rows)?,
            global: None,
            zeros: zeros.transpose()?.unwrap_or(Zeros::Constant(8.0)),
            group_index: None,
        }
        .checked()
    }
}

/// The zeros, as many words wide as the codes.
fn zeros(part: Part<'_>, grid: [u64; 3], words: u64) -> Result<Zeros> {
    let [_, _, n_groups] = grid;
    let part = part
        .of_dtype(&[Dtype::I32])?
        .of_shape(&[&[n_groups, words]])?;
    let stored = part.codes(grid, Axis::Rows, PACKED)?;
    Ok(Zeros::Packed { stored, plus: 0 })
}

/// The size of a group of `columns`, which is at least 1.
pub(super) fn group_size(given: Option<u64>, columns: u64) -> Result<u64> {
    match given {
        Some(0) => Err(Error::new(
            ErrorKind::InvalidArgument,
            "groups of 0 inputs hold nothing",
        )),
        Some(size) => Ok(size),
        None => Ok(columns.max(1)),
    }
}
