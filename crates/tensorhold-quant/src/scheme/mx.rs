//! The Microscaling formats of 4 and 6 bits.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::parts::logical;
use super::{Axis, Groups, Packed, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::{BitOrder, FloatCode};

const BLOCK: u64 = 32;

/// What the parts are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MxNames {
    /// `weight_packed`, `weight_scale`: compressed-tensors.
    CompressedTensors,
    /// `weight`, `weight_scale`: modelopt and Quark.
    Modelopt,
    /// `weight`, `scale`: the experts of DeepSeek-V4.
    DeepSeek,
    /// `_blocks`, `_scales`: gpt-oss.
    GptOss,
}

/// Floats of 4 or 6 bits with a power of two for every 32 inputs.
///
/// # Shapes
/// Codes U8 `[N, K * bits / 8]` or `[E, N, K * bits / 8]`, scales `[N, K / 32]` or `[E, N, K / 32]`, U8 or F8_E8M0. Codes of
/// gpt-oss are `[E, N, K / 32, 16]`. The weight is `[N, K]` or `[E, N, K]`; Transformers makes `[E, K, N]` of gpt-oss'.
///
/// # Source
/// The Microscaling specification 1.0; compressed-tensors 0.20.0; gpt-oss. A scale of 0xff is NaN as the specification has
/// it, where compressed-tensors and Transformers have infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mx {
    /// What a code is: E2M1, E2M3 or E3M2.
    pub float: FloatCode,
    /// What the parts are called.
    pub names: MxNames,
}

impl Scheme for Mx {
    const PARTS: &'static [&'static str] = &[
        "weight_packed",
        "weight",
        "weight_scale",
        "scale",
        "_blocks",
        "_scales",
    ];
    const CONFIG_KEYS: &'static [&'static str] = &["quant_method", "format", "num_bits", "type"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let (codes, scales) = self.parts();
        let order = self.order()?;
        let codes = parts.part(codes)?.of_dtype(&[Dtype::U8, Dtype::I8])?;
        let scales = parts.part(scales)?.of_dtype(&[Dtype::U8, Dtype::F8_E8M0])?;
        let grid = scales.matrices()?;
        let [experts, rows, n_blocks] = grid;
        let columns = n_blocks.checked_mul(BLOCK);
        let columns = columns.ok_or_else(|| scales.wrong("it passes 2^64 inputs"))?;
        let has_experts = scales.shape.len() == 3;
        let flat = logical([experts, rows, order.size_bytes(columns)?], has_experts);
        let mut split = logical(grid, has_experts);
        split.push(order.size_bytes(BLOCK)?);
        let codes = codes.of_shape(&[&flat, &split])?;
        let (size, along) = ([experts, rows, columns], Axis::Columns);
        Recipe {
            shape: logical(size, has_experts),
            codes: codes.codes(size, along, Packed { order, along })?,
            value: Value::Float(self.float),
            groups: Groups {
                rows: 1,
                columns: BLOCK,
            },
            scales: scales.numbers(grid, along)?,
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
        }
    }

    fn order(self) -> Result<BitOrder> {
        match self.float.width_bits() {
            bits @ (4 | 6) => BitOrder::lsb(bits),
            bits => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("floats of {bits} bits are not packed"),
            )),
        }
    }
}
