//! HQQ: codes of 1 to 8 bits with a float zero, in groups along rows or columns.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::flat::{n_codes, rows_or_flat};
use super::fp8::SCALE_DTYPES;
use super::{Axis, Entries, Groups, Packed, Part, Parts, Recipe, Scheme, Stored, Value, Zeros};
use crate::codec::{BitOrder, PartOrder};

/// Codes whose groups are the rows, or the columns, of the weight in another shape.
///
/// It computes in the type of the scales and rounds the difference and the product; this rounds once.
///
/// # Shapes
/// `W_q` with `ceil(A / parts)` rows of `B` codes in bytes, or in words of 32 bits for 3 bits, where the groups are `A x B`: with
/// `axis` 1 groups are the rows of `n / group_size` x `group_size`, with 0 the columns of `group_size` x `n / group_size`. `scale` and
/// `zero` have a number for each group. The weight is `shape`, of 1 to 3 dimensions.
///
/// # Source
/// hqq 0.2.8, `Quantizer`. Everything is a tensor in the file: `nbits`, `group_size`, `axis` and `shape` numbers, `packing` and
/// `compute_dtype` text in bytes, of which nothing may be run. Codes of 5 to 7 bits are `8bit_u8`, those of 1.58 bits `2bit_u8`. Where
/// `quant_scale` or `quant_zero` is set, scales or zeros are weights in this scheme themselves, which this does not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hqq {
    /// The bits that `packing` names: 1, 2, 3, 4 or 8.
    pub bits: u32,
    /// Codes in a group; where `None`, a row with `axis` 1, and a column with 0.
    pub group_size: Option<u64>,
    /// Along which way of the matrix of groups one goes: `Columns` is `axis` 1, `Rows` is 0.
    pub axis: Axis,
    /// `shape`: that of the weight.
    pub shape: Vec<u64>,
}

impl Scheme for Hqq {
    const PARTS: &'static [&'static str] = &["W_q", "scale", "zero"];
    const CONFIG_KEYS: &'static [&'static str] =
        &["nbits", "group_size", "axis", "shape", "packing"];

    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe> {
        let weight = parts.part("W_q")?;
        let group_size = self.group_size(weight)?;
        let codes = match self.axis {
            Axis::Columns => {
                let halves = PartOrder::HighFirst;
                parted_rows(weight, &self.shape, group_size, self.bits, halves)?
            }
            Axis::Rows => self.columns(weight, group_size)?,
        };
        let [experts, rows, columns] = codes.size;
        let (groups, grid) = match self.axis {
            Axis::Columns => (
                [1, group_size],
                [experts, rows, columns.div_ceil(group_size)],
            ),
            Axis::Rows => ([group_size, 1], [1, 1, columns]),
        };
        let numbers = |name| {
            let part = parts.part(name)?.of_dtype(SCALE_DTYPES)?;
            part.numbers(grid, Axis::Columns)
        };
        Recipe {
            shape: self.shape.clone(),
            codes,
            value: Value::Unsigned,
            groups: Groups {
                rows: groups[0],
                columns: groups[1],
            },
            scales: numbers("scale")?,
            global: None,
            zeros: Zeros::Numbers(numbers("zero")?),
            group_index: None,
        }
        .checked()
    }
}

impl Hqq {
    /// The size of a group, of which there is a whole number.
    fn group_size(&self, weight: Part<'_>) -> Result<u64> {
        let all = match (self.axis, &self.shape[..]) {
            (Axis::Columns, [.., last]) => *last,
            (Axis::Rows, [first, ..]) => *first,
            _ => 1,
        };
        let group_size = super::awq::group_size(Some(self.group_size.unwrap_or(all.max(1))), 1)?;
        match n_codes(weight, &self.shape)?.is_multiple_of(group_size) {
            true => Ok(group_size),
            false => Err(weight.wrong(&format!(
                "a weight of {:?} has no groups of {group_size}",
                self.shape
            ))),
        }
    }

    /// Codes whose groups are columns.
    fn columns(&self, weight: Part<'_>, group_size: u64) -> Result<Stored> {
        let columns = n_codes(weight, &self.shape)? / group_size;
        let rows = group_size.div_ceil(n_parts(self.bits)?);
        let packed = Packed {
            order: parted(self.bits, PartOrder::HighFirst, rows)?,
            along: Axis::Rows,
        };
        let (size, entries) = ([1, group_size, columns], Entries::Packed(packed));
        weight.stored_as(container(self.bits), size, Axis::Columns, entries)
    }
}

/// Codes in groups of `group_size` that follow one another through a weight of `shape`; the groups are cut into as many parts as
/// there are codes in a byte.
pub(super) fn parted_rows(
    weight: Part<'_>,
    shape: &[u64],
    group_size: u64,
    bits: u32,
    order: PartOrder,
) -> Result<Stored> {
    let n_groups = n_codes(weight, shape)?.div_ceil(group_size);
    let part_codes = n_groups.div_ceil(n_parts(bits)?).checked_mul(group_size);
    let part_codes = part_codes.ok_or_else(|| weight.wrong("it passes 2^64 codes"))?;
    let mut size = rows_or_flat(weight, shape, group_size)?;
    let [experts, _, columns] = size;
    let of_rows = experts == 1 && part_codes.is_multiple_of(columns.max(1));
    let (along, part_entries) = match of_rows {
        true => (Axis::Rows, part_codes / columns.max(1)),
        false => (Axis::Columns, part_codes),
    };
    if !of_rows {
        size = [1, 1, n_codes(weight, shape)?];
    }
    let packed = Packed {
        order: parted(bits, order, part_entries.max(1))?,
        along,
    };
    weight.stored_as(
        container(bits),
        size,
        Axis::Columns,
        Entries::Packed(packed),
    )
}

/// A run in parts of so many codes; codes of 8 bits follow one another.
fn parted(bits: u32, order: PartOrder, part_codes: u64) -> Result<BitOrder> {
    match bits {
        8 => BitOrder::lsb(8),
        _ => BitOrder::strided(bits, order, part_codes),
    }
}

/// The type of what has one code of every part.
fn container(bits: u32) -> Dtype {
    match bits {
        3 => Dtype::I32,
        _ => Dtype::U8,
    }
}

/// The codes in a container.
fn n_parts(bits: u32) -> Result<u64> {
    match bits {
        1 | 2 | 4 | 8 => Ok(8 / u64::from(bits)),
        3 => Ok(10),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("codes of {bits} bits have no parts: they have 1, 2, 3, 4 or 8 bits"),
        )),
    }
}
