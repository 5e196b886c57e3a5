//! GPTQ, as AutoGPTQ, GPTQModel and AutoRound write it.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::fp8::SCALE_DTYPES;
use super::{Axis, Groups, Packed, Part, Parts, Recipe, Scheme, Stored, Value, Zeros};
use crate::codec::BitOrder;

/// What the stored zeros are, and how codes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GptqFormat {
    /// `gptq`: zeros are stored less one.
    V1,
    /// `gptq_v2`: zeros are stored as they are.
    V2,
    /// `gptq_p`: zeros as they are, codes and zeros in planes.
    Planar,
}

impl GptqFormat {
    /// The format that `checkpoint_format`, `format` or AutoRound's `packing_format` names; `None` where that is no
    /// format of GPTQ.
    ///
    /// A file may hold another than it names: stored zeros tell, where all are the middle of the range or one less.
    ///
    /// # Source
    /// GPTQModel 7.7.0; auto-round 0.16.1, `inference.backend`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<GptqFormat> {
        Some(match name {
            "gptq" | "auto_round:auto_gptq" | "auto_round:gptq" => GptqFormat::V1,
            "gptq_v2" | "auto_round" | "auto_round:gptqmodel" => GptqFormat::V2,
            "gptq_p" => GptqFormat::Planar,
            _ => return None,
        })
    }
}

/// Codes of 2 to 8 bits that lie along the inputs, with zeros that lie along the outputs.
///
/// Where a file of version 1 has the highest zero, it is 0, as in GPTQModel's conversion and ExLlama's kernels;
/// AutoGPTQ takes it for one more than the highest code. Without `qzeros` the zero is half of the range.
///
/// # Shapes
/// `qweight` I32 `[K * bits / 32, N]`, `scales` `[ceil(K / group_size), N]`, `qzeros` I32
/// `[ceil(K / group_size), N * bits / 32]`, `g_idx` I32 `[K]`, which may be missing. The weight is `[N, K]`.
///
/// # Source
/// AutoGPTQ 0.7.1 and GPTQModel 7.7.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gptq {
    /// The width of a code.
    pub bits: u32,
    /// Inputs that share a scale, all where `None`.
    pub group_size: Option<u64>,
    /// What zeros are stored.
    pub format: GptqFormat,
}

impl Scheme for Gptq {
    const PARTS: &'static [&'static str] = &["qweight", "qzeros", "scales", "g_idx"];
    const CONFIG_KEYS: &'static [&'static str] = &[
        "bits",
        "group_size",
        "sym",
        "desc_act",
        "checkpoint_format",
        "format",
        "packing_format",
        "dynamic",
    ];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let order = self.order()?;
        let weight = parts.part("qweight")?.of_dtype(&[Dtype::I32, Dtype::U32])?;
        let [words, rows] = weight.dims()?;
        let index = parts.find("g_idx");
        let columns = self.columns(weight, words, index)?;
        let inputs = Packed {
            order,
            along: Axis::Columns,
        };
        let codes = weight.codes([1, rows, columns], Axis::Rows, inputs)?;
        let group_size = super::awq::group_size(self.group_size, columns)?;
        let n_groups = columns.div_ceil(group_size);
        let scales = parts.part("scales")?.of_dtype(SCALE_DTYPES)?;
        let scales = scales.of_shape(&[&[n_groups, rows]])?;
        let grid = [1, rows, n_groups];
        Recipe {
            shape: vec![rows, columns],
            codes,
            value: Value::Unsigned,
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: scales.numbers(grid, Axis::Rows)?,
            global: None,
            zeros: self.zeros(order, parts.find("qzeros"), grid)?,
            group_index: index.map(|index| group_index(index, columns)).transpose()?,
        }
        .checked()
    }
}

impl Gptq {
    fn order(&self) -> Result<BitOrder> {
        match (self.format, self.bits) {
            (_, 2 | 4 | 8) | (GptqFormat::V1 | GptqFormat::V2, 3) => BitOrder::lsb_words(self.bits),
            (_, 3 | 5..=7) => BitOrder::planar(self.bits),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("GPTQ has no codes of {} bits: it has 2 to 8", self.bits),
            )),
        }
    }

    /// As many inputs as there are codes in `words`, or as `g_idx` has.
    fn columns(&self, weight: Part<'_>, words: u64, index: Option<Part<'_>>) -> Result<u64> {
        if let Some(index) = index {
            let [columns] = index.dims()?;
            return Ok(columns);
        }
        let bits = words
            .checked_mul(32)
            .filter(|n_bits| n_bits.is_multiple_of(self.bits.into()));
        let must = format!("codes of {} bits must fill its words", self.bits);
        bits.map(|n_bits| n_bits / u64::from(self.bits))
            .ok_or_else(|| weight.wrong(&must))
    }

    fn zeros(&self, order: BitOrder, part: Option<Part<'_>>, grid: [u64; 3]) -> Result<Zeros> {
        // There is no version 1 of 5, 6 and 7 bits, whatever a file calls itself.
        let is_less_one = self.format == GptqFormat::V1 && !matches!(self.bits, 5..=7);
        let Some(part) = part else {
            return Ok(Zeros::Constant((1 << (self.bits - 1)) as f32));
        };
        let part = part.of_dtype(&[Dtype::I32, Dtype::U32])?;
        let [_, rows, n_groups] = grid;
        let outputs = Packed {
            order,
            along: Axis::Rows,
        };
        let stored = part.codes(grid, Axis::Rows, outputs)?;
        let [_, _, words] = stored.view()?;
        part.of_shape(&[&[n_groups, words]])
            .map_err(|error| error.with_hint(format!("there are {rows} outputs")))?;
        Ok(Zeros::Packed {
            stored,
            plus: u8::from(is_less_one),
        })
    }
}

/// The group of each of so many inputs.
pub(super) fn group_index(part: Part<'_>, columns: u64) -> Result<Stored> {
    let part = part.of_dtype(&[Dtype::I32])?.of_shape(&[&[columns]])?;
    part.elements([1, 1, columns], Axis::Columns)
}
