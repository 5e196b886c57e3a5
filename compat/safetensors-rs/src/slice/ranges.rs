//! From slices to ranges of bytes.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Bound;

use tensorhold_core::{Bounds, ErrorKind, Index, Selection};

use super::{InvalidSlice, TensorIndexer};
use crate::tensor::{Dtype, TensorView, shape_to_core};

/// Ranges of bytes, first and end, from a tensor's first byte on, in the order of the result.
pub type SliceByteRanges = Vec<(usize, usize)>;

/// The size of a result in each dimension.
pub type SlicedShape = Vec<usize>;

/// The bytes that `slices` select of a tensor, which need not be there, and the shape of the result. Dimensions that
/// `slices` does not name are taken whole. One after the other the ranges are the result; there is always one, if
/// only an empty one.
///
/// # Errors
/// `TooManySlices`; `SliceOutOfRange` if a slice, or the shape itself, is more than can be; `MisalignedSlice` if
/// elements narrower than a byte are selected and a piece of them begins or ends inside a byte.
pub fn slice_byte_ranges(
    dtype: Dtype,
    shape: &[usize],
    slices: &[TensorIndexer],
) -> Result<(SliceByteRanges, SlicedShape), InvalidSlice> {
    let (walk, newshape) = resolve(dtype, shape, slices)?;
    Ok((walk.collect(), newshape))
}

/// The pieces of a tensor that make up a slice of it, in order. None is looked up before it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceIterator<'data> {
    data: &'data [u8],
    walk: Walk,
    newshape: Vec<usize>,
}

impl<'data> SliceIterator<'data> {
    pub(crate) fn new(
        view: &TensorView<'data>,
        slices: &[TensorIndexer],
    ) -> Result<Self, InvalidSlice> {
        let (walk, newshape) = resolve(view.dtype(), view.shape(), slices)?;
        Ok(SliceIterator {
            data: view.data(),
            walk,
            newshape,
        })
    }

    /// The number of bytes that are still to come.
    pub fn remaining_byte_len(&self) -> usize {
        self.walk.n_bytes_left
    }

    /// The shape of the result.
    pub fn newshape(&self) -> Vec<usize> {
        self.newshape.clone()
    }
}

impl<'data> Iterator for SliceIterator<'data> {
    type Item = &'data [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (start, end) = self.walk.next()?;
        Some(&self.data[start..end])
    }
}

/// What is taken of one dimension: positions within its bounds.
#[derive(Clone, Copy)]
struct Taken {
    start: usize,
    stop: usize,
    step: usize,
    is_dropped: bool,
}

impl Taken {
    fn count(self) -> usize {
        self.stop.saturating_sub(self.start).div_ceil(self.step)
    }

    fn to_index(self) -> Index {
        // Positions of a tensor that is not empty are far below 2^63, and so is every step that leads to a second one.
        let bound = |number: usize| Some(i64::try_from(number).unwrap_or(i64::MAX));
        match self.is_dropped {
            true => Index::At(i64::try_from(self.start).unwrap_or(i64::MAX)),
            false => Index::Range {
                start: bound(self.start),
                stop: bound(self.stop),
                step: bound(self.step),
            },
        }
    }
}

fn resolve(
    dtype: Dtype,
    shape: &[usize],
    slices: &[TensorIndexer],
) -> Result<(Walk, SlicedShape), InvalidSlice> {
    let taken = take_each(shape, slices)?;
    let kept = taken.iter().filter(|taken| !taken.is_dropped);
    let newshape = kept.map(|taken| taken.count()).collect();
    if shape.contains(&0) || taken.iter().any(|taken| taken.count() == 0) {
        return Ok((Walk::empty(), newshape));
    }
    let index: Vec<Index> = taken.into_iter().map(Taken::to_index).collect();
    let selection = select(dtype, shape, &index)?;
    match selection.is_byte_aligned() {
        true => Ok((Walk::new(&selection), newshape)),
        false => Err(InvalidSlice::MisalignedSlice),
    }
}

/// What is taken of every dimension. Of several faults the one in the last dimension is reported, as in the published crate.
fn take_each(shape: &[usize], slices: &[TensorIndexer]) -> Result<Vec<Taken>, InvalidSlice> {
    if slices.len() > shape.len() {
        return Err(InvalidSlice::TooManySlices);
    }
    let mut taken: Vec<Taken> = shape
        .iter()
        .map(|&size| Taken {
            start: 0,
            stop: size,
            step: 1,
            is_dropped: false,
        })
        .collect();
    for (dim_index, slice) in slices.iter().enumerate().rev() {
        taken[dim_index] =
            take(slice, shape[dim_index]).map_err(|asked| InvalidSlice::SliceOutOfRange {
                dim_index,
                asked,
                dim_size: shape[dim_index],
            })?;
    }
    Ok(taken)
}

/// What is taken of a dimension of `size`; the position that is too far otherwise.
///
/// A start or stop that equals the size is within bounds: it selects nothing, as in Python.
fn take(slice: &TensorIndexer, size: usize) -> Result<Taken, usize> {
    let (start, stop, step) = match *slice {
        TensorIndexer::Select(position) if position < size => {
            return Ok(Taken {
                start: position,
                stop: position + 1,
                step: 1,
                is_dropped: true,
            });
        }
        TensorIndexer::Select(position) => return Err(position),
        TensorIndexer::Narrow(start, stop, step) => (start, stop, step.get()),
    };
    let start = match start {
        Bound::Unbounded => 0,
        Bound::Included(start) => start,
        Bound::Excluded(before) => before.checked_add(1).ok_or(before)?,
    };
    let stop = match stop {
        Bound::Unbounded => size,
        Bound::Included(last) => last.checked_add(1).ok_or(last)?,
        Bound::Excluded(stop) => stop,
    };
    if start > size || stop > size {
        return Err(if start >= size { start } else { stop - 1 });
    }
    Ok(Taken {
        start,
        stop,
        step,
        is_dropped: false,
    })
}

fn select(dtype: Dtype, shape: &[usize], index: &[Index]) -> Result<Selection, InvalidSlice> {
    let mut shape = shape_to_core(shape);
    let impossible = match shape.first() {
        Some(&size) => InvalidSlice::SliceOutOfRange {
            dim_index: 0,
            asked: size as usize - 1,
            dim_size: size as usize,
        },
        None => InvalidSlice::MisalignedSlice,
    };
    if let (Some(size), 1..8) = (shape.first_mut(), dtype.bitsize()) {
        // Only what is selected must fill whole bytes. No place depends on the first dimension's size, so it can be one
        // with which the tensor does.
        *size = size.checked_next_multiple_of(8).ok_or(impossible)?;
    }
    Selection::resolve(dtype.to_core(), &shape, index, Bounds::Clamped).map_err(|error| match error
        .kind()
    {
        ErrorKind::Misaligned => InvalidSlice::MisalignedSlice,
        _ => impossible,
    })
}

/// The pieces of a selection in bytes, one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Walk {
    next: Option<usize>,
    run: usize,
    /// Outermost first.
    loops: Vec<Round>,
    n_bytes_left: usize,
}

/// How often a loop goes round, how far it moves each time, and how often it has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    count: usize,
    stride: usize,
    n_done: usize,
}

impl Walk {
    fn empty() -> Walk {
        Walk {
            next: Some(0),
            run: 0,
            loops: vec![],
            n_bytes_left: 0,
        }
    }

    fn new(selection: &Selection) -> Walk {
        let width_bits = u64::from(selection.dtype().width_bits());
        let in_bytes = |n_elements: u64| (n_elements * width_bits / 8) as usize;
        let Some(strided) = selection.walks().next() else {
            return Walk::empty();
        };
        let loops = strided.loops.iter().map(|each| Round {
            count: each.count as usize,
            // No step is negative here.
            stride: in_bytes(each.stride.unsigned_abs()),
            n_done: 0,
        });
        Walk {
            next: Some(in_bytes(strided.start)),
            run: in_bytes(strided.run),
            loops: loops.collect(),
            n_bytes_left: selection.size_bytes() as usize,
        }
    }
}

impl Iterator for Walk {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let start = self.next.take()?;
        self.n_bytes_left -= self.run;
        let mut next = start;
        for round in self.loops.iter_mut().rev() {
            if round.n_done + 1 < round.count {
                round.n_done += 1;
                self.next = Some(next + round.stride);
                break;
            }
            next -= round.stride * round.n_done;
            round.n_done = 0;
        }
        Some((start, start + self.run))
    }
}
