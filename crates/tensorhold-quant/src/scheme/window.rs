//! Boxes in a weight, and what they need of its parts.

use core::ops::Range;

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, shape_size_bytes};

use super::stored::Stored;

/// A box in a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Experts, 0..1 where the weight is one matrix.
    pub experts: Range<u64>,
    /// Rows.
    pub rows: Range<u64>,
    /// Columns.
    pub columns: Range<u64>,
}

impl Window {
    /// The window of a number for each matrix, or of one for all.
    pub(crate) fn global(&self, stored: &Stored) -> Window {
        let experts = match stored.size[0] {
            1 => 0..1,
            _ => self.experts.clone(),
        };
        Window {
            experts,
            rows: 0..1,
            columns: 0..1,
        }
    }

    /// Experts, rows and columns of it.
    pub(crate) fn size(&self) -> [u64; 3] {
        [&self.experts, &self.rows, &self.columns].map(|range| range.end - range.start)
    }

    pub(crate) fn check(&self, size: [u64; 3]) -> Result<()> {
        let ranges = [&self.experts, &self.rows, &self.columns];
        let inside =
            |(range, size): (&Range<u64>, u64)| range.start <= range.end && range.end <= size;
        if ranges.into_iter().zip(size).all(inside) {
            return Ok(());
        }
        let Window {
            experts,
            rows,
            columns,
        } = self;
        Err(Error::new(
            ErrorKind::InvalidSlice,
            format!(
                "experts {experts:?}, rows {rows:?}, columns {columns:?} are no box in a weight of {size:?}"
            ),
        ))
    }
}

/// The elements of a part that a window needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What the tensor's name ends in.
    pub part: &'static str,
    /// The type that its elements are taken for: U8 where the tensor's own are narrower than a byte, and where codes
    /// lie in floats.
    pub dtype: Dtype,
    /// The tensor as one of three dimensions, with the same bytes in the same order.
    pub view: [u64; 3],
    /// Of each of these dimensions the positions that are needed.
    pub ranges: [Range<u64>; 3],
}

impl Need {
    pub(super) fn of(stored: &Stored, window: &Window) -> Result<Need> {
        Ok(Need {
            part: stored.part,
            dtype: stored.dtype,
            view: stored.view()?,
            ranges: stored.cover(window)?,
        })
    }

    /// The number of bytes of these elements.
    ///
    /// # Errors
    /// `Overflow` past 2^64 bits.
    pub fn size_bytes(&self) -> Result<u64> {
        let shape = self.ranges.each_ref().map(|range| range.end - range.start);
        shape_size_bytes(self.dtype, &shape)
    }

    /// The tensor's bytes from the first of these elements to the last; none where there are no elements.
    ///
    /// # Errors
    /// `Overflow` past 2^64 bits.
    pub fn span(&self) -> Result<ByteRange> {
        shape_size_bytes(self.dtype, &self.view)?;
        if self.ranges.iter().any(Range::is_empty) {
            return Ok(ByteRange::default());
        }
        let [_, lines, elements] = self.view;
        let place =
            |[matrix, line, element]: [u64; 3]| (matrix * lines + line) * elements + element;
        let first = place(self.ranges.each_ref().map(|range| range.start));
        let last = place(self.ranges.each_ref().map(|range| range.end - 1));
        let width = u64::from(self.dtype.width_bytes().unwrap_or(1));
        Ok(ByteRange::new(first * width, (last + 1) * width))
    }

    /// The stretches of the tensor's bytes that these elements are, first to last.
    pub fn stretches(&self) -> impl Iterator<Item = ByteRange> {
        let [_, lines, elements] = self.view;
        let width = u64::from(self.dtype.width_bytes().unwrap_or(1));
        let [outer, middle, inner] = self.ranges.clone();
        outer.flat_map(move |matrix| {
            let inner = inner.clone();
            middle.clone().map(move |line| {
                let start = (matrix * lines + line) * elements;
                ByteRange::new((start + inner.start) * width, (start + inner.end) * width)
            })
        })
    }
}
