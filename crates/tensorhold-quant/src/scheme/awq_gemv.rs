//! AWQ in the layouts of its GEMV kernels.

use tensorhold_core::{Dtype, Result};

use super::fp8::SCALE_DTYPES;
use super::{Axis, Entries, Groups, Packed, Part, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::BitOrder;

/// Codes of 4 bits that lie along the inputs, eight in a word, in plain order.
///
/// # Shapes
/// `qweight` I32 `[N, K / 8]`; `scales` `[N, 8 * words]` and `qzeros` I32 `[N, words]`, with as many words as hold the zeros of
/// `K / group_size` groups, or more, which nothing is in. The weight is `[N, K]`.
///
/// # Source
/// AutoAWQ 0.2.9, `version` `gemv`: words are rounded up to 2 for groups of 64 inputs, and to 4 for 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwqGemv {
    /// Inputs that share a scale, all where `None`.
    pub group_size: Option<u64>,
}

const CODES_IN_WORD: u64 = 8;

impl Scheme for AwqGemv {
    const PARTS: &'static [&'static str] = &["qweight", "qzeros", "scales"];
    const CONFIG_KEYS: &'static [&'static str] = super::AwqGemm::CONFIG_KEYS;

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let along = Axis::Columns;
        let order = BitOrder::lsb_words(4)?;
        let packed = Packed { order, along };
        let weight = parts.part("qweight")?.of_dtype(&[Dtype::I32])?;
        let [rows, words] = weight.dims()?;
        let columns = words
            .checked_mul(CODES_IN_WORD)
            .ok_or_else(|| weight.wrong("it passes 2^64 inputs"))?;
        let group_size = super::awq::group_size(self.group_size, columns)?;
        let zeros = parts.part("qzeros")?.of_dtype(&[Dtype::I32])?;
        let n_columns = n_zeros(zeros, rows, columns.div_ceil(group_size))?;
        let grid = [1, rows, n_columns];
        let scales = parts.part("scales")?.of_dtype(SCALE_DTYPES)?;
        let scales = scales.of_shape(&[&[rows, n_columns]])?;
        Recipe {
            shape: vec![rows, columns],
            codes: weight.codes([1, rows, columns], along, packed)?,
            value: Value::Unsigned,
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: scales.numbers(grid, along)?,
            global: None,
            zeros: Zeros::Packed {
                stored: zeros.codes(grid, along, packed)?,
                plus: 0,
            },
            group_index: None,
        }
        .checked()
    }
}

/// The zeros of a row with what fills it up, of which there are at least as many as groups.
fn n_zeros(zeros: Part<'_>, rows: u64, n_groups: u64) -> Result<u64> {
    let n_words = n_groups.div_ceil(CODES_IN_WORD);
    let [rows_there, words] = zeros.dims()?;
    if rows_there != rows || words < n_words {
        let must = format!("it must have shape [{rows}, {n_words}] or more columns");
        return Err(zeros.wrong(&must));
    }
    let n_zeros = words.checked_mul(CODES_IN_WORD);
    n_zeros.ok_or_else(|| zeros.wrong("it passes 2^64 zeros"))
}

/// Codes of 4 bits in lines of four rows, with a scale and a bias: the newer kernel.
///
/// # Shapes
/// `qweight` I16 `[N / 4, K]`; `scales` and `qzeros`, which are `-scale * zero`, `[groups, N]`, of which more may be there than the
/// `K / group_size` that something is in; llm-awq calls them `scaled_zeros`. The weight is `[N, K]`.
///
/// # Source
/// AutoAWQ 0.2.9, `version` `gemv_fast`; llm-awq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwqGemvFast {
    /// Inputs that share a scale, all where `None`.
    pub group_size: Option<u64>,
}

const ROWS_IN_LINE: u64 = super::INTERLEAVED[0];

impl Scheme for AwqGemvFast {
    const PARTS: &'static [&'static str] = &["qweight", "qzeros", "scales", "scaled_zeros"];
    const CONFIG_KEYS: &'static [&'static str] = super::AwqGemm::CONFIG_KEYS;

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("qweight")?.of_dtype(&[Dtype::I16])?;
        let [lines, columns] = weight.dims()?;
        let rows = lines
            .checked_mul(ROWS_IN_LINE)
            .ok_or_else(|| weight.wrong("it passes 2^64 outputs"))?;
        let group_size = super::awq::group_size(self.group_size, columns)?;
        let n_groups = columns.div_ceil(group_size);
        let scales = parts.part("scales")?.of_dtype(SCALE_DTYPES)?;
        let [groups_there, rows_there] = scales.dims()?;
        if rows_there != rows || groups_there < n_groups {
            let must = format!("it must have shape [{n_groups}, {rows}] or more rows");
            return Err(scales.wrong(&must));
        }
        let grid = [1, rows, groups_there];
        let biases = parts.first_of(&["qzeros", "scaled_zeros"])?;
        let biases = biases.of_dtype(SCALE_DTYPES)?.of_shape(&[scales.shape])?;
        Recipe {
            shape: vec![rows, columns],
            codes: weight.stored([1, rows, columns], Axis::Columns, Entries::Interleaved)?,
            value: Value::Unsigned,
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: scales.numbers(grid, Axis::Rows)?,
            global: None,
            zeros: Zeros::Bias(biases.numbers(grid, Axis::Rows)?),
            group_index: None,
        }
        .checked()
    }
}
