//! Where the entries of a matrix lie in a tensor.

use core::ops::Range;

use tensorhold_core::{Dtype, Error, ErrorKind, Result, shape_size_bytes};

use super::{Need, Window};
use crate::codec::BitOrder;
#[cfg(doc)]
use crate::codec::BlockedScales;

const TILE_ROWS: u64 = 128;
const TILE_COLUMNS: u64 = 4;
/// The rows of a line where rows are interleaved, and the columns of one that come together.
pub(crate) const INTERLEAVED: [u64; 2] = [4, 64];

/// A direction in a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// From one row to the next: the outputs of a linear layer.
    Rows,
    /// From one column to the next: its inputs.
    Columns,
}

/// Codes in the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packed {
    /// How they lie in the bytes of a run.
    pub order: BitOrder,
    /// The way in which a run goes.
    pub along: Axis,
}

/// What the elements of a tensor are to the entries of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entries {
    /// Each is an entry.
    Elements,
    /// They have codes.
    Packed(Packed),
    /// Each is an entry, of one byte, in the order of [`BlockedScales`]: tiles of 128 rows and 4 columns, filled up.
    Tiles,
    /// They have codes of 4 bits in [`BitOrder::AWQ_FAST`], in lines of four rows: 64 codes of each of the four, then
    /// the next 64 of each.
    Interleaved,
}

/// How the codes of a row come to lie one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowRuns {
    /// They do.
    Lie(BitOrder),
    /// A row has an element of each line: these, put one behind the other.
    Across(BitOrder),
    /// Each element of 4 bytes has a code of 4 bits of eight rows; of those, this nibble. Eight elements of eight lines become
    /// elements of eight rows, each of which has codes in the order [`RowRuns::order`].
    Spread([u8; 8]),
}

impl RowRuns {
    /// The order of codes in the run of a row.
    pub(crate) fn order(self) -> Result<BitOrder> {
        match self {
            RowRuns::Lie(order) | RowRuns::Across(order) => Ok(order),
            RowRuns::Spread(_) => BitOrder::lsb_words(4),
        }
    }
}

/// Matrices of codes or of numbers, one for each expert, as they lie in a tensor.
///
/// The tensor is seen as one of three dimensions, [`Stored::view`]: matrices, lines, and elements of a line.
/// Dimensions of size 1 and how blocks are split make no difference to that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stored {
    /// What the tensor's name ends in.
    pub part: &'static str,
    /// The type of the tensor's elements.
    pub dtype: Dtype,
    /// Experts, rows and columns.
    pub size: [u64; 3],
    /// The way in which the elements of a line go.
    pub lines: Axis,
    /// What the elements are.
    pub entries: Entries,
}

impl Stored {
    /// The tensor's three dimensions: the same elements in the same order as in its own shape.
    ///
    /// # Errors
    /// `Overflow` past 2^64 bits, and where elements are narrower than a byte.
    pub fn view(&self) -> Result<[u64; 3]> {
        let [experts, rows, columns] = self.size;
        let rows = self.n_elements(Axis::Rows, rows)?;
        let columns = self.n_elements(Axis::Columns, columns)?;
        let view = match self.lines {
            Axis::Columns => [experts, rows, columns],
            Axis::Rows => [experts, columns, rows],
        };
        shape_size_bytes(self.dtype, &view)?;
        Ok(view)
    }

    /// The elements of [`Stored::view`] that hold the entries of `window`: all that there is of them, and no
    /// line or element in which there is nothing of them.
    ///
    /// # Errors
    /// `Overflow` past 2^64 bits.
    pub fn cover(&self, window: &Window) -> Result<[Range<u64>; 3]> {
        let mut rows = self.elements(Axis::Rows, window.rows.clone())?;
        let mut columns = self.elements(Axis::Columns, window.columns.clone())?;
        if self.entries == Entries::Interleaved {
            let [n_rows, n_columns] = INTERLEAVED;
            rows = rows.start / n_rows..rows.end.div_ceil(n_rows);
            let unit = n_rows * n_columns / 2 / self.width_bytes();
            columns = columns.start / n_columns * unit..columns.end.div_ceil(n_columns) * unit;
        }
        if self.entries == Entries::Tiles && !rows.is_empty() {
            // Tiles of the same rows lie together.
            rows = rows.start / TILE_ROWS * TILE_ROWS..rows.end.next_multiple_of(TILE_ROWS);
            columns = 0..self.n_elements(Axis::Columns, self.size[2])?;
        }
        Ok(match self.lines {
            Axis::Columns => [window.experts.clone(), rows, columns],
            Axis::Rows => [window.experts.clone(), columns, rows],
        })
    }

    /// The elements of a tensor that hold the entries of `window`.
    ///
    /// # Errors
    /// `InvalidSlice` for a window that is no box inside of the matrices; `Overflow` past 2^64 bits.
    pub fn need(&self, window: &Window) -> Result<Need> {
        window.check(self.size)?;
        Need::of(self, window)
    }

    /// The least number of entries along `axis` that share no element with others, and no tile.
    #[must_use]
    pub fn unit(&self, axis: Axis) -> u64 {
        if self.entries == Entries::Tiles {
            return match axis {
                Axis::Rows => TILE_ROWS,
                Axis::Columns => self.size[2].max(1),
            };
        }
        if self.entries == Entries::Interleaved {
            return INTERLEAVED[usize::from(axis == Axis::Columns)];
        }
        let Some(order) = self.order_along(axis) else {
            return 1;
        };
        if order.has_parts() {
            let [_, rows, columns] = self.size;
            return if axis == Axis::Rows { rows } else { columns }.max(1);
        }
        let width = self.width_bytes();
        let is_unit = |codes: &u64| {
            let before = order.bytes_of(0..*codes).map(|bytes| bytes.end);
            let after = order.bytes_of(*codes..codes + 1).map(|bytes| bytes.start);
            matches!((before, after), (Ok(end), Ok(start)) if end == start && end.is_multiple_of(width))
        };
        (1..=32).find(is_unit).unwrap_or(32)
    }

    /// The width of a code in bits; 8 where each is an element.
    pub(crate) fn code_bits(&self) -> u32 {
        match self.entries {
            Entries::Packed(packed) => packed.order.width_bits(),
            Entries::Elements | Entries::Tiles => 8,
            Entries::Interleaved => BitOrder::AWQ_FAST.width_bits(),
        }
    }

    /// How codes lie, which are bytes where each is an element.
    pub(crate) fn packed(&self) -> Result<Packed> {
        match self.entries {
            Entries::Packed(packed) => Ok(packed),
            Entries::Interleaved => Ok(Packed {
                order: BitOrder::AWQ_FAST,
                along: Axis::Columns,
            }),
            Entries::Elements | Entries::Tiles => Ok(Packed {
                order: BitOrder::lsb(8)?,
                along: self.lines,
            }),
        }
    }

    /// How the codes of a row come to be a run; `None` where they can only be taken out one by one.
    pub(crate) fn row_runs(&self) -> Option<RowRuns> {
        let packed = match self.entries {
            Entries::Packed(packed) => packed,
            Entries::Elements => Packed {
                order: BitOrder::lsb(8).ok()?,
                along: Axis::Columns,
            },
            Entries::Tiles | Entries::Interleaved => return None,
        };
        let Packed { order, along } = packed;
        match (self.lines, along) {
            (Axis::Columns, Axis::Columns) => Some(RowRuns::Lie(order)),
            (Axis::Rows, Axis::Columns) => {
                let fills = order.element_bytes() == Some(self.width_bytes());
                (fills && !order.has_parts()).then_some(RowRuns::Across(order))
            }
            (Axis::Rows, Axis::Rows) if self.width_bytes() == 4 => {
                order.nibbles_of_word().map(RowRuns::Spread)
            }
            _ => None,
        }
    }

    /// The order of codes whose runs go along `axis`.
    fn order_along(&self, axis: Axis) -> Option<BitOrder> {
        match self.entries {
            Entries::Packed(packed) if packed.along == axis => Some(packed.order),
            _ => None,
        }
    }

    pub(crate) fn width_bytes(&self) -> u64 {
        self.dtype.width_bytes().unwrap_or(1).into()
    }

    /// The elements along `axis` that hold these entries.
    fn elements(&self, axis: Axis, entries: Range<u64>) -> Result<Range<u64>> {
        let Some(order) = self.order_along(axis) else {
            return Ok(entries);
        };
        let bytes = order.bytes_of(entries)?;
        let width = self.width_bytes();
        Ok(bytes.start / width..bytes.end.div_ceil(width))
    }

    /// All elements along `axis`, which have `n_entries`, with what fills up the last word.
    fn n_elements(&self, axis: Axis, n_entries: u64) -> Result<u64> {
        if let Some(order) = self.order_along(axis) {
            return Ok(order.size_bytes(n_entries)?.div_ceil(self.width_bytes()));
        }
        let filled = match (self.entries, axis) {
            (Entries::Tiles, Axis::Rows) => n_entries.checked_next_multiple_of(TILE_ROWS),
            (Entries::Tiles, Axis::Columns) => n_entries.checked_next_multiple_of(TILE_COLUMNS),
            (Entries::Interleaved, Axis::Rows) => Some(n_entries.div_ceil(INTERLEAVED[0])),
            (Entries::Interleaved, Axis::Columns) => n_entries
                .checked_next_multiple_of(INTERLEAVED[1])
                .and_then(|n_codes| n_codes.checked_mul(INTERLEAVED[0] / 2))
                .map(|n_bytes| n_bytes / self.width_bytes()),
            _ => Some(n_entries),
        };
        filled.ok_or_else(|| {
            let message = format!(
                "{n_entries} entries in tiles of part `{}` pass 2^64",
                self.part
            );
            Error::new(ErrorKind::Overflow, message)
        })
    }

    /// Refuses anything but codes of this size.
    pub(super) fn check_codes(&self, size: [u64; 3]) -> Result<()> {
        match self.entries {
            Entries::Packed(_) | Entries::Interleaved => self.check_size(size),
            Entries::Elements if self.dtype.width_bytes() == Some(1) => self.check_size(size),
            _ => Err(self.wrong("its elements are no codes")),
        }
    }

    /// Refuses anything but a number of 32 bits for each column.
    pub(super) fn check_index(&self, n_columns: u64) -> Result<()> {
        match (self.entries, self.lines, self.dtype) {
            (Entries::Elements, Axis::Columns, Dtype::I32 | Dtype::U32) => {
                self.check_size([1, 1, n_columns])
            }
            _ => Err(self.wrong("its elements are no groups")),
        }
    }

    /// Refuses another size than this, and what [`Stored::check`] refuses.
    pub(super) fn check_size(&self, size: [u64; 3]) -> Result<()> {
        match self.size == size {
            true => self.check(),
            false => Err(self.wrong(&format!(
                "it has {:?} entries in place of {size:?}",
                self.size
            ))),
        }
    }

    /// Refuses types whose elements are no whole bytes, and tiles of anything but bytes in rows.
    pub(super) fn check(&self) -> Result<()> {
        let width = self.dtype.width_bytes();
        match self.entries {
            _ if width.is_none() => Err(self.wrong("its elements are no whole bytes")),
            Entries::Tiles if width != Some(1) || self.lines != Axis::Columns => {
                Err(self.wrong("only bytes in rows lie in tiles"))
            }
            Entries::Interleaved if width > Some(2) || self.lines != Axis::Columns => {
                Err(self.wrong("only elements of 1 or 2 bytes in rows are interleaved"))
            }
            _ => self.view().map(|_| ()),
        }
    }

    pub(super) fn wrong(&self, what: &str) -> Error {
        let message = format!("part `{}` of type {}: {what}", self.part, self.dtype);
        Error::new(ErrorKind::InvalidTensor, message)
    }
}
