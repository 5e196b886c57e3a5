//! From an index to a selection.
//!
//! ```text
//! span = 1
//! for each dimension, last first:
//!     (first, count, step) = what its part of the index takes
//!     start += first * span
//!     a loop of `count` with stride `step * span`, joined with the loop inside it where it can be
//!     span *= the dimension's size
//! ```
//!
//! Going from the last dimension to the first needs no table of strides, and reports the same one
//! of several faults as the reference does.

use alloc::format;
use alloc::vec::Vec;
use core::mem;

use super::{Bounds, Index, Loop, Nest, Selection};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::shape::shape_size_bytes;

pub(super) fn resolve(
    dtype: Dtype,
    shape: &[u64],
    index: &[Index],
    bounds: Bounds,
) -> Result<Selection> {
    let tensor_bytes = shape_size_bytes(dtype, shape)?;
    let n_left = n_left_over(shape.len(), index)?;
    let mut walk = Walk::new(shape, bounds, tensor_bytes == 0);
    if !index.contains(&Index::Ellipsis) {
        walk.take_all(n_left);
    }
    for part in index.iter().rev() {
        match *part {
            Index::At(position) => walk.take_at(position)?,
            Index::Range { start, stop, step } => walk.take_range(start, stop, step)?,
            Index::Ellipsis => walk.take_all(n_left),
            Index::NewAxis => walk.result.push(1),
        }
    }
    walk.finish(dtype, tensor_bytes)
}

/// The number of dimensions that the index does not name, which are taken whole.
fn n_left_over(rank: usize, index: &[Index]) -> Result<usize> {
    let count = |wanted: fn(&Index) -> bool| index.iter().filter(|part| wanted(part)).count();
    if count(|part| matches!(part, Index::Ellipsis)) > 1 {
        return Err(invalid(
            "Only one ellipsis (...) is allowed in slice index".into(),
        ));
    }
    let n_named = count(|part| matches!(part, Index::At(_) | Index::Range { .. }));
    rank.checked_sub(n_named).ok_or_else(|| {
        let dimensions = if rank == 1 { "dimension" } else { "dimensions" };
        let were = if n_named == 1 { "was" } else { "were" };
        invalid(format!(
            "too many indices: tensor has {rank} {dimensions}, but {n_named} {were} given"
        ))
    })
}

pub(super) struct Walk<'a> {
    /// The dimensions that are still to come, the next one last.
    shape: &'a [u64],
    bounds: Bounds,
    /// The number of elements between neighbours of the next dimension; 0 if the tensor is empty,
    /// where products of sizes may pass 2^64 and are never needed.
    span: u64,
    start: u64,
    /// Innermost first.
    result: Vec<u64>,
    /// Innermost first.
    loops: Vec<Loop>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shape: &'a [u64], bounds: Bounds, is_empty: bool) -> Walk<'a> {
        Walk {
            shape,
            bounds,
            span: u64::from(!is_empty),
            start: 0,
            result: Vec::with_capacity(shape.len()),
            loops: Vec::with_capacity(shape.len()),
        }
    }

    /// The next dimension's number and size.
    fn dimension(&self) -> (usize, u64) {
        let (&size, before) = self
            .shape
            .split_last()
            .expect("the index names no more dimensions than there are");
        (before.len(), size)
    }

    fn take_all(&mut self, n_dimensions: usize) {
        for _ in 0..n_dimensions {
            let (_, size) = self.dimension();
            self.result.push(size);
            self.take(0, size, 1);
        }
    }

    fn take_at(&mut self, position: i64) -> Result<()> {
        let (number, size) = self.dimension();
        let at = match u64::try_from(position) {
            Ok(at) if at < size => at,
            Ok(at) => return Err(out_of_bounds(at, number, size)),
            Err(_) => size.checked_sub(position.unsigned_abs()).ok_or_else(|| {
                invalid(format!(
                    "Invalid index {position} for dimension {number} of size {size}"
                ))
            })?,
        };
        self.take(at, 1, 1);
        Ok(())
    }

    fn take_range(
        &mut self,
        start: Option<i64>,
        stop: Option<i64>,
        step: Option<i64>,
    ) -> Result<()> {
        let (number, size) = self.dimension();
        if self.bounds == Bounds::Checked {
            check_range(start, stop, number, size)?;
        }
        let step = step.unwrap_or(1);
        let (first, count) = clamp_range(start, stop, step, size)?;
        self.result.push(count);
        self.take(first, count, step);
        Ok(())
    }

    fn take(&mut self, first: u64, count: u64, step: i64) {
        self.take_rounds(first, &[(count, step)]);
    }

    /// Takes of the next dimension what loops go through, the innermost first, each with its count and its step.
    pub(super) fn take_rounds(&mut self, first: u64, rounds: &[(u64, i64)]) {
        let (_, size) = self.dimension();
        self.shape = &self.shape[..self.shape.len() - 1];
        if self.span != 0 && rounds.iter().all(|&(count, _)| count != 0) {
            self.start += first * self.span;
        }
        for &(count, step) in rounds.iter().filter(|&&(count, _)| count > 1) {
            if self.span != 0 {
                let stride = i128::from(step) * i128::from(self.span);
                self.push_loop(Loop {
                    count,
                    stride: i64::try_from(stride).expect("two elements lie less than 2^62 apart"),
                });
            }
        }
        self.span *= size;
    }

    fn push_loop(&mut self, outer: Loop) {
        match self.loops.last_mut() {
            Some(inner)
                if i128::from(inner.stride) * i128::from(inner.count)
                    == i128::from(outer.stride) =>
            {
                inner.count *= outer.count;
            }
            _ => self.loops.push(outer),
        }
    }

    fn finish(mut self, dtype: Dtype, tensor_bytes: u64) -> Result<Selection> {
        self.result.reverse();
        let size_bytes =
            shape_size_bytes(dtype, &self.result).map_err(|error| with_legal_cut(error, dtype))?;
        let shape = mem::take(&mut self.result);
        Ok(Selection {
            dtype,
            tensor_bytes,
            shape,
            size_bytes,
            first: match size_bytes {
                0 => Nest::NOTHING,
                _ => self.nest(),
            },
            rest: Vec::new(),
        })
    }

    /// The loops, of a walk that visits something.
    pub(super) fn nest(mut self) -> Nest {
        let mut run = 1;
        if let Some(&Loop { count, stride: 1 }) = self.loops.first() {
            run = count;
            self.loops.remove(0);
        }
        self.loops.reverse();
        Nest {
            start: self.start,
            run,
            loops: self.loops,
        }
    }
}

/// Refuses what the reference's slicer refuses, and names the position that it names. The reference
/// also refuses a start that equals the size, which makes empty slices and empty dimensions
/// unreachable there; NumPy's verdict is kept for these.
fn check_range(start: Option<i64>, stop: Option<i64>, number: usize, size: u64) -> Result<()> {
    let start = start
        .and_then(|start| u64::try_from(start).ok())
        .unwrap_or(0);
    let stop = stop.and_then(|stop| u64::try_from(stop).ok()).unwrap_or(0);
    if start <= size && stop <= size {
        return Ok(());
    }
    let asked = if start >= size { start } else { stop - 1 };
    Err(out_of_bounds(asked, number, size))
}

/// The first position of a range and the number of its positions.
///
/// # Source
/// Python's `slice.indices`.
fn clamp_range(start: Option<i64>, stop: Option<i64>, step: i64, size: u64) -> Result<(u64, u64)> {
    if step == 0 {
        return Err(invalid("slice step cannot be zero".into()));
    }
    let (size, step) = (i128::from(size), i128::from(step));
    let (lowest, highest) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let clamp = |bound: i64| match i128::from(bound) {
        from_end @ ..0 => (from_end + size).clamp(lowest, highest),
        bound => bound.clamp(lowest, highest),
    };
    let (first, last) = if step > 0 {
        (lowest, highest)
    } else {
        (highest, lowest)
    };
    let start = start.map_or(first, clamp);
    let way = (stop.map_or(last, clamp) - start) * step.signum();
    let count = (way.max(0) + step.abs() - 1) / step.abs();
    let fits = |number: i128| u64::try_from(number).expect("it lies within the dimension");
    Ok(if count == 0 {
        (0, 0)
    } else {
        (fits(start), fits(count))
    })
}

/// Says how many elements fill whole bytes, where it is that.
fn with_legal_cut(error: Error, dtype: Dtype) -> Error {
    if error.kind() != ErrorKind::Misaligned {
        return error;
    }
    let whole = (1..=8u32).find(|count| (count * dtype.width_bits()).is_multiple_of(8));
    let count = whole.unwrap_or(8);
    error.with_hint(format!("take a multiple of {count} elements"))
}

fn out_of_bounds(asked: u64, number: usize, size: u64) -> Error {
    invalid(format!(
        "index {asked} out of bounds for tensor dimension #{number} of size {size}"
    ))
}

fn invalid(message: alloc::string::String) -> Error {
    Error::new(ErrorKind::InvalidSlice, message)
}
