//! Numbers that belong to groups of codes: scales, zeros, and what is added.

use tensorhold_core::{Dtype, Result};

use super::recipe::least_common_multiple;
use super::stored::{Axis, Entries, Stored};
use super::window::{Need, Window};
use crate::can_cast;
use crate::codec::E8m0;

/// What an element stands for where each is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// A float, of this type whatever the tensor's type says.
    Float(Dtype),
    /// A power of two.
    Power(E8m0),
    /// An integer of 8 bits, in two's complement.
    Signed,
    /// An integer of 8 bits.
    Unsigned,
}

/// Numbers, one for each group of codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Where they lie: one row and one column for each group.
    pub stored: Stored,
    /// What they are.
    pub number: Number,
    /// What is made of them first.
    pub change: Change,
}

/// What is made of numbers before they are used.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// Their sign is changed.
    Negated,
    /// One is divided by them.
    Inverted,
    /// They are themselves codes with a scale.
    Nested(Box<Nested>),
}

/// Codes of 8 bits that stand for the numbers of a table, with a scale for so many of them that follow one another.
///
/// A number is `table[code] * scale + offset`, each step rounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Nested {
    /// 256 numbers in F32.
    pub table: Stored,
    /// The scales, F32: one row.
    pub scales: Stored,
    /// Codes that share a scale, counted row by row.
    pub block_size: u64,
    /// What is added to all.
    pub offset: f32,
}

/// The numbers of a table that codes of 8 bits stand for.
pub(crate) const N_CODES: u64 = 256;

impl Numbers {
    /// Adds what `window` of the numbers needs of their parts.
    pub(super) fn add_needs(&self, window: &Window, needs: &mut Vec<Need>) -> Result<()> {
        needs.push(Need::of(&self.stored, window)?);
        if let Change::Nested(nested) = &self.change {
            needs.push(Need::of(&nested.table, &one_row(0..N_CODES))?);
            let blocks = nested.blocks(self.stored.size, window);
            needs.push(Need::of(&nested.scales, &one_row(blocks))?);
        }
        Ok(())
    }

    /// The least number of groups along `axis` that share no element with others.
    pub(super) fn unit(&self, axis: Axis) -> u64 {
        let [_, rows, columns] = self.stored.size;
        let unit = self.stored.unit(axis);
        let Change::Nested(nested) = &self.change else {
            return unit;
        };
        let block = nested.block_size;
        match axis {
            Axis::Rows => least_common_multiple(block, columns) / columns.max(1),
            Axis::Columns if rows <= 1 => block,
            Axis::Columns => columns,
        }
        .max(unit)
    }

    /// Refuses another size, and numbers that elements cannot be.
    pub(super) fn check(&self, size: [u64; 3]) -> Result<()> {
        let Numbers { stored, number, .. } = self;
        let width = match *number {
            Number::Float(dtype) if can_cast(dtype, Dtype::F32) => dtype.width_bytes(),
            Number::Float(_) => None,
            Number::Power(_) | Number::Signed | Number::Unsigned => Some(1),
        };
        let is_packed = matches!(stored.entries, Entries::Packed(_) | Entries::Interleaved);
        if is_packed || width.is_none() || width != stored.dtype.width_bytes() {
            return Err(stored.wrong(&format!("its elements are no {number:?}")));
        }
        stored.check_size(size)?;
        match &self.change {
            Change::Nested(nested) => nested.check(self),
            Change::None | Change::Negated | Change::Inverted => Ok(()),
        }
    }
}

impl Nested {
    /// The scales that a window of the codes has.
    pub(crate) fn blocks(&self, size: [u64; 3], window: &Window) -> core::ops::Range<u64> {
        let Window { rows, columns, .. } = window;
        if rows.is_empty() || columns.is_empty() {
            return 0..0;
        }
        let first = rows.start * size[2] + columns.start;
        let end = (rows.end - 1) * size[2] + columns.end;
        first / self.block_size..end.div_ceil(self.block_size)
    }

    /// Refuses what are no codes in rows of one matrix, and parts of other sizes.
    fn check(&self, codes: &Numbers) -> Result<()> {
        let Stored {
            size,
            lines,
            entries,
            ..
        } = codes.stored;
        let is_plain = entries == Entries::Elements && lines == Axis::Columns && size[0] == 1;
        if codes.number != Number::Unsigned || !is_plain || self.block_size == 0 {
            return Err(codes.stored.wrong("its elements are no codes in rows"));
        }
        for (stored, n_numbers) in [
            (&self.table, N_CODES),
            (&self.scales, (size[1] * size[2]).div_ceil(self.block_size)),
        ] {
            if stored.dtype != Dtype::F32 || stored.entries != Entries::Elements {
                return Err(stored.wrong("its elements must be F32"));
            }
            stored.check_size([1, 1, n_numbers])?;
        }
        Ok(())
    }
}

/// Columns of one row.
pub(crate) fn one_row(columns: core::ops::Range<u64>) -> Window {
    Window {
        experts: 0..1,
        rows: 0..1,
        columns,
    }
}
