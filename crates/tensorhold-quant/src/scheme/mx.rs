//! The Microscaling formats.

use tensorhold_core::{Dtype, Result};

use super::parts::logical;
use super::{
    Axis, Change, Entries, Groups, Number, Numbers, Packed, Part, Parts, Recipe, Scheme, Value,
    Zeros,
};
use crate::codec::{BitOrder, E8m0, FloatCode};

const BLOCK: u64 = 32;

/// What the parts are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MxNames {
    /// `weight_packed`, `weight_scale`: compressed-tensors.
    CompressedTensors,
    /// `weight`, `weight_scale`: modelopt, Quark, and ComfyUI.
    Modelopt,
    /// `weight`, `scale`: the experts of DeepSeek-V4.
    DeepSeek,
    /// `_blocks`, `_scales`: gpt-oss.
    GptOss,
    /// `qdata`, `scale`: `MXTensor` of torchao.
    Torchao,
}

/// How scales lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ScaleOrder {
    /// In the rows of the weight.
    #[default]
    Rows,
    /// In tiles for cuBLAS, filled up to multiples of 128 rows and 4 columns: ComfyUI, and torchao with `is_swizzled_scales`.
    Tiles,
}

/// Floats of 4, 6 or 8 bits with a power of two for every 32 inputs.
///
/// # Shapes
/// Codes U8 `[N, K * bits / 8]` or `[E, N, K * bits / 8]`, or of the float's own type and the shape of the weight; scales `[N, K / 32]` or
/// `[E, N, K / 32]`, U8 or F8_E8M0, of any shape where they are tiles. Codes of gpt-oss are `[E, N, K / 32, 16]`. The weight is `[N, K]` or
/// `[E, N, K]`; Transformers makes `[E, K, N]` of gpt-oss'.
///
/// # Source
/// The Microscaling specification 1.0; compressed-tensors 0.20.0; gpt-oss; torchao 0.18. A scale of 0xff is NaN as the
/// specification has it, where compressed-tensors and Transformers have infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mx {
    /// What a code is.
    pub float: FloatCode,
    /// What the parts are called.
    pub names: MxNames,
    /// How scales lie.
    pub scales: ScaleOrder,
}

impl Scheme for Mx {
    const PARTS: &'static [&'static str] = &[
        "weight_packed",
        "weight",
        "weight_scale",
        "scale",
        "_blocks",
        "_scales",
        "qdata",
    ];
    const CONFIG_KEYS: &'static [&'static str] = &["quant_method", "format", "num_bits", "type"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let (codes, scales) = self.parts();
        let order = BitOrder::lsb(self.float.width_bits())?;
        let codes = parts.part(codes)?;
        let scales = parts.part(scales)?.of_dtype(&[Dtype::U8, Dtype::F8_E8M0])?;
        let (size, has_experts) = match self.scales {
            ScaleOrder::Rows => (self.size(codes, scales)?, scales.shape.len() == 3),
            ScaleOrder::Tiles => (codes.code_matrices(self.float)?, codes.shape.len() == 3),
        };
        let [experts, rows, columns] = size;
        let grid = [experts, rows, columns.div_ceil(BLOCK)];
        let along = Axis::Columns;
        Recipe {
            shape: logical(size, has_experts),
            codes: codes.codes(size, along, Packed { order, along })?,
            value: Value::Float(self.float),
            groups: Groups {
                rows: 1,
                columns: BLOCK,
            },
            scales: match self.scales {
                ScaleOrder::Rows => scales.numbers(grid, along)?,
                ScaleOrder::Tiles => Numbers {
                    stored: scales.stored(grid, along, Entries::Tiles)?,
                    number: Number::Power(E8m0::default()),
                    change: Change::None,
                },
            },
            global: None,
            zeros: Zeros::None,
            group_index: None,
        }
        .checked()
    }
}

impl Mx {
    /// What codes and scales are called.
    fn parts(self) -> (&'static str, &'static str) {
        match self.names {
            MxNames::CompressedTensors => ("weight_packed", "weight_scale"),
            MxNames::Modelopt => ("weight", "weight_scale"),
            MxNames::DeepSeek => ("weight", "scale"),
            MxNames::GptOss => ("_blocks", "_scales"),
            MxNames::Torchao => ("qdata", "scale"),
        }
    }

    /// The size of the weight that has these scales in rows, if it has these codes.
    fn size(self, codes: Part<'_>, scales: Part<'_>) -> Result<[u64; 3]> {
        let [experts, rows, n_blocks] = scales.matrices()?;
        let columns = n_blocks.checked_mul(BLOCK);
        let columns = columns.ok_or_else(|| scales.wrong("it passes 2^64 inputs"))?;
        let has_experts = scales.shape.len() == 3;
        let size = [experts, rows, columns];
        if FloatCode::of_dtype(codes.dtype) == Some(self.float) {
            codes.of_shape(&[&logical(size, has_experts)])?;
            return Ok(size);
        }
        let codes = codes.of_dtype(&[Dtype::U8, Dtype::I8])?;
        let order = BitOrder::lsb(self.float.width_bits())?;
        let flat = logical([experts, rows, order.size_bytes(columns)?], has_experts);
        let mut split = logical([experts, rows, n_blocks], has_experts);
        split.push(order.size_bytes(BLOCK)?);
        codes.of_shape(&[&flat, &split])?;
        Ok(size)
    }
}

impl Part<'_> {
    /// Experts, rows and codes of a row, in bytes or in elements of their own type.
    ///
    /// # Errors
    /// `InvalidTensor` for another type, and bytes that codes do not fill.
    pub(super) fn code_matrices(self, float: FloatCode) -> Result<[u64; 3]> {
        let [experts, rows, last] = self.matrices()?;
        if FloatCode::of_dtype(self.dtype) == Some(float) {
            return Ok([experts, rows, last]);
        }
        let part = self.of_dtype(&[Dtype::U8, Dtype::I8])?;
        let bits = u64::from(float.width_bits());
        let n_bits = last.checked_mul(8).filter(|n| n.is_multiple_of(bits));
        match n_bits {
            Some(n_bits) => Ok([experts, rows, n_bits / bits]),
            None => Err(part.wrong(&format!("codes of {bits} bits must fill its rows"))),
        }
    }
}
