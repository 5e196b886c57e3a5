//! bitsandbytes: 4 bits in blocks of the flat weight, and 8 bits in rows.

use tensorhold_core::{Dtype, Result};

use super::flat::{n_codes, rows_or_flat};
use super::{
    Axis, Change, Entries, Groups, Nested, Number, Numbers, Packed, Part, Parts, Recipe, Scheme,
    Value, Zeros,
};
use crate::codec::{BitOrder, FourBitTable};

/// Codes of 4 bits, any 16 numbers, with a scale for so many that follow one another through the whole weight.
///
/// The weight is not known from its parts: its shape, the size of blocks and the offset stand in the JSON of
/// `weight.quant_state.bitsandbytes__nf4` or `__fp4`. The 16 numbers are in `weight.quant_map`, which goes before the
/// table that the name stands for.
///
/// # Shapes
/// `weight` of any type with `ceil(n / 2)` bytes, first code in the upper half; `weight.absmax` F32 `[ceil(n / block_size)]`. Nested:
/// `weight.absmax` U8, `weight.nested_absmax` F32 `[ceil(n_absmax / nested block_size)]`, `weight.nested_quant_map` F32 `[256]`.
/// GPTQModel writes `weight_absmax` and so on, and the JSON in `weight_quant_state`. The weight is `shape`, of 1 to 3 dimensions.
///
/// # Source
/// bitsandbytes 0.50.2, `QuantState` and `functional.dequantize_4bit`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bitsandbytes4 {
    /// `shape`: that of the weight.
    pub shape: Vec<u64>,
    /// `blocksize`: codes that share a scale.
    pub block_size: u64,
    /// What the codes stand for.
    pub table: FourBitTable,
    /// What the scales are, where they are codes themselves.
    pub nested: Option<NestedScales>,
}

/// The scales of scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NestedScales {
    /// `nested_blocksize`: scales that share a scale.
    pub block_size: u64,
    /// `nested_offset`: what is added to all.
    pub offset: f32,
}

impl Scheme for Bitsandbytes4 {
    const PARTS: &'static [&'static str] = &[
        "weight",
        "weight.absmax",
        "weight.nested_absmax",
        "weight.nested_quant_map",
        "weight.quant_map",
        "weight_absmax",
        "weight_nested_absmax",
        "weight_nested_quant_map",
        "weight_quant_map",
    ];
    const CONFIG_KEYS: &'static [&'static str] = &[
        "load_in_4bit",
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "bnb_4bit_quant_storage",
    ];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("weight")?;
        let group_size = super::awq::group_size(Some(self.block_size), 1)?;
        let mut size = rows_or_flat(weight, &self.shape, group_size)?;
        if size[0] > 1 && self.nested.is_some() {
            size = [1, 1, n_codes(weight, &self.shape)?];
        }
        let along = Axis::Columns;
        let order = BitOrder::HIGH_NIBBLE_FIRST;
        let entries = Entries::Packed(Packed { order, along });
        let grid = [size[0], size[1], size[2].div_ceil(group_size)];
        Recipe {
            shape: self.shape.clone(),
            codes: weight.stored_as(Dtype::U8, size, along, entries)?,
            value: Value::Table(self.table),
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: self.scales(parts, grid)?,
            global: None,
            zeros: Zeros::None,
            group_index: None,
        }
        .checked()
    }
}

impl Bitsandbytes4 {
    fn scales(&self, parts: &Parts<'_>, grid: [u64; 3]) -> Result<Numbers> {
        let part = parts.first_of(&["weight.absmax", "weight_absmax"])?;
        let Some(NestedScales { block_size, offset }) = self.nested else {
            return part.of_dtype(&[Dtype::F32])?.numbers(grid, Axis::Columns);
        };
        let block_size = super::awq::group_size(Some(block_size), 1)?;
        let part = part.of_dtype(&[Dtype::U8])?;
        // The product is that of a weight whose codes are there.
        let n_scales = grid.iter().product::<u64>();
        let row = |names: &[&'static str], n: u64| {
            let part = parts.first_of(names)?.of_dtype(&[Dtype::F32])?;
            part.of_shape(&[&[n]])?.elements([1, 1, n], Axis::Columns)
        };
        let scales = ["weight.nested_absmax", "weight_nested_absmax"];
        let tables = ["weight.nested_quant_map", "weight_nested_quant_map"];
        Ok(Numbers {
            stored: part.elements(grid, Axis::Columns)?,
            number: Number::Unsigned,
            change: Change::Nested(Box::new(Nested {
                table: row(&tables, 256)?,
                scales: row(&scales, n_scales.div_ceil(block_size))?,
                block_size,
                offset,
            })),
        })
    }
}

/// Integers of 8 bits with the largest magnitude of each row, which 127 stands for: `LLM.int8()`.
///
/// # Shapes
/// `weight` I8 `[N, K]`, `SCB` F32 `[N]`, which GPTQModel calls `weight_scb`. `weight_format` U8 `[]`, where it is there, must be 0 (rows): whoever can read
/// it holds it to that.
///
/// # Source
/// bitsandbytes 0.50.2, `functional.int8_vectorwise_dequant`: the product with the scale is multiplied by 1 / 127.
/// GPTQModel's `dequantize_weight` divides the scale by 127 first, which may round to the float beside it; its `forward` is bitsandbytes'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bitsandbytes8;

/// 1 / 127 as the program has it.
const FRACTION: f32 = 7.874_016e-3;

impl Scheme for Bitsandbytes8 {
    const PARTS: &'static [&'static str] = &["weight", "SCB", "weight_scb", "weight_format"];
    const CONFIG_KEYS: &'static [&'static str] = &["load_in_8bit"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("weight")?.of_dtype(&[Dtype::I8])?;
        let [rows, columns] = weight.dims()?;
        let scales: Part<'_> = parts.first_of(&["SCB", "weight_scb"])?;
        let scales = scales.of_dtype(&[Dtype::F32])?.of_shape(&[&[rows]])?;
        let packed = Packed {
            order: BitOrder::lsb(8)?,
            along: Axis::Columns,
        };
        Recipe {
            shape: vec![rows, columns],
            codes: weight.codes([1, rows, columns], Axis::Columns, packed)?,
            value: Value::Signed,
            groups: Groups {
                rows: 1,
                columns: columns.max(1),
            },
            scales: scales.numbers([1, rows, 1], Axis::Columns)?,
            global: None,
            zeros: Zeros::Factor(FRACTION),
            group_index: None,
        }
        .checked()
    }
}
