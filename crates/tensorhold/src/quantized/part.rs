//! What is wanted of a weight, and the strips that it is made in.
//!
//! ```text
//! result: experts x rows x columns, each so many positions of the weight, some steps apart
//! strip:  rows of one expert, or all rows of several: contiguous in the result
//! window: the box in the weight that covers a strip
//! ```

use std::ops::Range;

use tensorhold_core::{
    Bounds, Dtype, Error, ErrorKind, Index, Result, Selection, Strided, shape_size_bytes,
};
use tensorhold_quant::scheme::Window;

/// Positions of one dimension: `count` of them, from `first` on, `step` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steps {
    first: u64,
    count: u64,
    step: i64,
}

impl Steps {
    /// All of a dimension of `size`.
    const fn all(size: u64) -> Steps {
        Steps {
            first: 0,
            count: size,
            step: 1,
        }
    }

    /// What `index` takes of a dimension of `size`.
    fn of(size: u64, index: Index) -> Result<Steps> {
        let selection = Selection::resolve(Dtype::U8, &[size], &[index], Bounds::Clamped)?;
        let nothing = Steps {
            count: 0,
            ..Steps::all(0)
        };
        Ok(selection.walks().next().map_or(nothing, |walk| {
            let Strided { start, run, loops } = walk;
            let (count, step) = loops
                .first()
                .map_or((run, 1), |each| (each.count, each.stride));
            Steps {
                first: start,
                count,
                step,
            }
        }))
    }

    /// The position of number `number`.
    fn at(self, number: u64) -> u64 {
        // It is one of the dimension, whatever lies between.
        self.first
            .wrapping_add((self.step as u64).wrapping_mul(number))
    }

    /// From the lowest to the highest of the positions of these numbers.
    fn cover(self, numbers: &Range<u64>) -> Range<u64> {
        if numbers.is_empty() {
            return 0..0;
        }
        let (one, other) = (self.at(numbers.start), self.at(numbers.end - 1));
        one.min(other)..one.max(other) + 1
    }

    /// The positions of these numbers in what covers them.
    fn within_cover(self, numbers: &Range<u64>) -> Index {
        let cover = self.cover(numbers);
        let last = (cover.end - cover.start).saturating_sub(1) as i64;
        Index::Range {
            start: Some(if self.step < 0 { last } else { 0 }),
            stop: None,
            step: Some(self.step),
        }
    }
}

/// A box of a weight, with steps.
#[derive(Debug)]
pub(super) struct Part {
    /// The shape of the result.
    pub shape: Vec<u64>,
    /// The type of the result.
    pub dtype: Dtype,
    experts: Steps,
    rows: Steps,
    columns: Steps,
}

/// Rows of a [`Part`], by their numbers in it, side by side in the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strip {
    experts: Range<u64>,
    rows: Range<u64>,
}

impl Part {
    /// What `index` selects of a weight of `shape`, as `dtype`; ranges past the end are clamped.
    pub fn resolve(shape: &[u64], index: &[Index], dtype: Dtype) -> Result<Part> {
        let whole = Selection::resolve(dtype, shape, index, Bounds::Clamped)?;
        let steps = shape.iter().zip(by_dimension(shape.len(), index));
        let steps = steps.map(|(size, index)| Steps::of(*size, index));
        let (experts, rows, columns) = match steps.collect::<Result<Vec<Steps>>>()?[..] {
            [columns] => (Steps::all(1), Steps::all(1), columns),
            [rows, columns] => (Steps::all(1), rows, columns),
            [experts, rows, columns] => (experts, rows, columns),
            _ => {
                let message = format!("a weight of shape {shape:?} is not read in parts");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        };
        Ok(Part {
            shape: whole.shape().to_vec(),
            dtype,
            experts,
            rows,
            columns,
        })
    }

    /// The bytes of the result.
    pub fn size_bytes(&self) -> Result<u64> {
        shape_size_bytes(self.dtype, &self.shape)
    }

    /// The result as strips whose windows are of about `strip_bytes`, from first to last.
    pub fn strips(&self, strip_bytes: u64) -> Vec<Strip> {
        let Part { experts, rows, .. } = *self;
        if experts.count == 0 || rows.count == 0 || self.columns.count == 0 {
            return Vec::new();
        }
        let row_bytes = self.row_bytes().saturating_mul(rows.step.unsigned_abs());
        let together = (strip_bytes / row_bytes.max(1)).max(1);
        if together >= rows.count {
            let matrix_bytes = row_bytes.saturating_mul(rows.count);
            let matrix_bytes = matrix_bytes.saturating_mul(experts.step.unsigned_abs());
            let together = (strip_bytes / matrix_bytes.max(1)).max(1);
            let strip = |experts| Strip {
                experts,
                rows: 0..rows.count,
            };
            return pieces(0, experts.count, together).map(strip).collect();
        }
        // Boundaries where blocks of scales and words of codes end, wherever that is.
        let (together, before) = match rows.step {
            1 if together >= ROWS => {
                let together = together / ROWS * ROWS;
                (together, rows.first % together)
            }
            _ => (together, 0),
        };
        let strips = (0..experts.count).flat_map(|expert| {
            pieces(before, rows.count, together).map(move |rows| Strip {
                experts: expert..expert + 1,
                rows,
            })
        });
        strips.collect()
    }

    /// The bytes of a row of the window of a strip.
    pub fn row_bytes(&self) -> u64 {
        let cover = self.columns.cover(&(0..self.columns.count));
        let width = u64::from(self.dtype.width_bytes().unwrap_or(1));
        (cover.end - cover.start).saturating_mul(width)
    }

    /// The bytes of a strip in the result.
    pub fn strip_bytes(&self, strip: &Strip) -> u64 {
        let width = u64::from(self.dtype.width_bytes().unwrap_or(1));
        let [experts, rows] = [&strip.experts, &strip.rows].map(|range| range.end - range.start);
        experts * rows * self.columns.count * width
    }

    /// The box that a strip is in.
    pub fn window(&self, strip: &Strip) -> Window {
        Window {
            experts: self.experts.cover(&strip.experts),
            rows: self.rows.cover(&strip.rows),
            columns: self.columns.cover(&(0..self.columns.count)),
        }
    }

    /// What a strip is of its window; `None` where it is all of it, in its order.
    pub fn pick(&self, strip: &Strip) -> Result<Option<Selection>> {
        let window = self.window(strip);
        let size = [&window.experts, &window.rows, &window.columns];
        let size = size.map(|range| range.end - range.start);
        let index = [
            self.experts.within_cover(&strip.experts),
            self.rows.within_cover(&strip.rows),
            self.columns.within_cover(&(0..self.columns.count)),
        ];
        let selection = Selection::resolve(self.dtype, &size, &index, Bounds::Clamped)?;
        Ok((!selection.is_whole()).then_some(selection))
    }
}

/// So many rows, or a multiple of that, share no word of codes with others in any scheme, and mostly no scale.
const ROWS: u64 = 128;

/// `0..count` in pieces of `size`, the first of which is shorter by `before`.
fn pieces(before: u64, count: u64, size: u64) -> impl Iterator<Item = Range<u64>> {
    let end = before + count;
    let numbers = before / size..end.div_ceil(size);
    numbers.map(move |number| {
        let start = (number * size).max(before) - before;
        start..(number * size + size).min(end) - before
    })
}

/// What an index that fits a shape of `rank` dimensions says of each.
fn by_dimension(rank: usize, index: &[Index]) -> Vec<Index> {
    let is_named = |part: &&Index| matches!(part, Index::At(_) | Index::Range { .. });
    let n_left = rank.saturating_sub(index.iter().filter(is_named).count());
    let mut all = Vec::with_capacity(rank);
    for part in index {
        match part {
            Index::Ellipsis => all.extend(std::iter::repeat_n(Index::ALL, n_left)),
            Index::NewAxis => {}
            part => all.push(*part),
        }
    }
    all.resize(rank, Index::ALL);
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

    use super::*;

    #[test]
    fn pieces_end_at_multiples_of_their_size() {
        let of = |before, count, size| pieces(before, count, size).collect::<Vec<_>>();
        assert_eq!(of(0, 10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(of(3, 10, 4), [0..1, 1..5, 5..9, 9..10]);
        assert_eq!(of(2, 4, 3), [0..1, 1..4]);
    }

    #[test]
    fn steps_backwards_are_covered_from_the_lowest() {
        let index = Index::Range {
            start: None,
            stop: None,
            step: Some(-3),
        };
        let steps = Steps::of(10, index).unwrap();
        assert_eq!((steps.first, steps.count, steps.step), (9, 4, -3));
        assert_eq!(steps.cover(&(1..3)), 3..7);
    }
}
