//! optimum-quanto: codes of 2 and 4 bits with a scale and a shift.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::fp8::SCALE_DTYPES;
use super::hqq::parted_rows;
use super::{Axis, Change, Groups, Number, Numbers, Part, Parts, Recipe, Scheme, Value, Zeros};
use crate::codec::PartOrder;

/// `qint2` and `qint4`: groups are rows, of which the first half or quarter has the lowest bits of every byte.
///
/// `qint8` is [`IntQuantized`](super::IntQuantized) and `qfloat8` is [`Fp8`](super::Fp8), of `weight._data` and `weight._scale`.
///
/// # Shapes
/// `weight._data._data` U8 `[ceil(n_groups / parts), group_size]`, `weight._scale` and `weight._shift` `[n_groups, 1]`; a shift is a
/// float, or I8 where it is a zero. No part says how many outputs there are: the shape of the weight must come from elsewhere,
/// such as the bias or the configuration, and the groups must fill its rows.
///
/// # Source
/// optimum-quanto 0.2.7, `QBitsDequantizer`; which module has which type stands in the file `*_qmap.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantoBits {
    /// The width of a code: 2 or 4.
    pub bits: u32,
    /// Outputs and inputs.
    pub shape: [u64; 2],
}

impl Scheme for QuantoBits {
    const PARTS: &'static [&'static str] =
        &["weight._data._data", "weight._scale", "weight._shift"];
    const CONFIG_KEYS: &'static [&'static str] = &["weights", "activations"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        if !matches!(self.bits, 2 | 4) {
            let message = format!("quanto has no codes of {} bits: it has 2 and 4", self.bits);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let weight = parts.part("weight._data._data")?.of_dtype(&[Dtype::U8])?;
        let [_, group_size] = weight.dims()?;
        let [rows, columns] = self.shape;
        if group_size == 0 || !columns.is_multiple_of(group_size) {
            return Err(weight.wrong(&format!("its groups do not fill rows of {columns}")));
        }
        let grid = [1, rows, columns / group_size];
        let order = PartOrder::LowFirst;
        let codes = parted_rows(weight, &self.shape, group_size, self.bits, order)?;
        let scales = parts.part("weight._scale")?.of_dtype(SCALE_DTYPES)?;
        let shift = parts.part("weight._shift")?;
        let [experts, rows, columns] = codes.size;
        let grid = match rows {
            1 => [experts, 1, columns / group_size],
            _ => grid,
        };
        Recipe {
            shape: self.shape.to_vec(),
            codes,
            value: Value::Unsigned,
            groups: Groups {
                rows: 1,
                columns: group_size,
            },
            scales: scales.numbers(grid, Axis::Columns)?,
            global: None,
            zeros: zeros(shift, grid)?,
            group_index: None,
        }
        .checked()
    }
}

/// What is taken away: from the codes where it is an integer, and else from the products.
fn zeros(shift: Part<'_>, grid: [u64; 3]) -> Result<Zeros> {
    if shift.dtype == Dtype::I8 {
        return Ok(Zeros::Numbers(Numbers {
            stored: shift.elements(grid, Axis::Columns)?,
            number: Number::Signed,
            change: Change::None,
        }));
    }
    let numbers = shift.of_dtype(SCALE_DTYPES)?.numbers(grid, Axis::Columns)?;
    Ok(Zeros::Bias(Numbers {
        change: Change::Negated,
        ..numbers
    }))
}
