//! From lists of ranges, one for each dimension, to a selection.
//!
//! ```text
//! boxes(ranges):
//!     if the ranges of each dimension are equally long and equally far apart: one walk
//!     d = the first dimension whose ranges are not
//!     for each position in the dimensions before d, and for each range of d: boxes(ranges with these alone)
//! ```

use alloc::format;
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use super::resolve::Walk;
use super::{Bounds, Nest, Selection};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::shape::shape_size_bytes;

/// More walks than this would take more memory than many a tensor.
const MAX_WALKS: usize = 1 << 20;

type Ranges = Vec<Range<u64>>;

pub(super) fn of_ranges(dtype: Dtype, shape: &[u64], ranges: &[Ranges]) -> Result<Selection> {
    let tensor_bytes = shape_size_bytes(dtype, shape)?;
    check(shape, ranges)?;
    let joined: Vec<Ranges> = ranges.iter().map(|ranges| join(ranges)).collect();
    let result: Vec<u64> = joined
        .iter()
        .map(|ranges| count(ranges))
        .collect::<Option<_>>()
        .ok_or_else(|| invalid("the ranges hold over 2^64 positions".into()))?;
    let size_bytes = shape_size_bytes(dtype, &result)?;
    let mut nests = Vec::new();
    if size_bytes > 0 {
        add_boxes(shape, joined, &mut nests)?;
    }
    let mut nests = nests.into_iter();
    Ok(Selection {
        dtype,
        tensor_bytes,
        shape: result,
        size_bytes,
        first: nests.next().unwrap_or(Nest::NOTHING),
        rest: nests.collect(),
    })
}

fn check(shape: &[u64], ranges: &[Ranges]) -> Result<()> {
    if shape.len() != ranges.len() {
        return Err(invalid(format!(
            "there are ranges for {} dimensions, but the tensor has {}",
            ranges.len(),
            shape.len()
        )));
    }
    for (number, (&size, ranges)) in shape.iter().zip(ranges).enumerate() {
        if let Some(Range { start, end }) = ranges.iter().find(|range| range.end > size) {
            return Err(invalid(format!(
                "positions {start}..{end} pass the end of dimension {number} of size {size}"
            )));
        }
    }
    Ok(())
}

/// The same positions in fewer ranges, none of them empty.
fn join(ranges: &[Range<u64>]) -> Ranges {
    let mut joined: Ranges = Vec::with_capacity(ranges.len());
    for range in ranges.iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range.clone()),
        }
    }
    joined
}

fn count(ranges: &[Range<u64>]) -> Option<u64> {
    let mut lengths = ranges.iter().map(|range| range.end - range.start);
    lengths.try_fold(0u64, u64::checked_add)
}

/// Adds the walks of a box of which no dimension is empty.
fn add_boxes(shape: &[u64], ranges: Vec<Ranges>, nests: &mut Vec<Nest>) -> Result<()> {
    if nests.len() >= MAX_WALKS {
        return Err(invalid(format!("the part takes over {MAX_WALKS} walks")));
    }
    let combs: Vec<Option<Comb>> = ranges.iter().map(|ranges| Comb::of(ranges)).collect();
    let Some(irregular) = combs.iter().position(Option::is_none) else {
        nests.push(nest(shape, combs.into_iter().flatten()));
        return Ok(());
    };
    let mut fixed = ranges.clone();
    for_each_position(&ranges[..irregular], &mut |position| {
        for (fixed, &at) in fixed.iter_mut().zip(position) {
            *fixed = iter::once(at..at + 1).collect();
        }
        for range in &ranges[irregular] {
            fixed[irregular] = iter::once(range.clone()).collect();
            add_boxes(shape, fixed.clone(), nests)?;
        }
        Ok(())
    })
}

/// Calls `take` with each combination of positions, in order.
fn for_each_position(ranges: &[Ranges], take: &mut dyn FnMut(&[u64]) -> Result<()>) -> Result<()> {
    fn go(
        ranges: &[Ranges],
        before: &mut Vec<u64>,
        take: &mut dyn FnMut(&[u64]) -> Result<()>,
    ) -> Result<()> {
        let Some((first, rest)) = ranges.split_first() else {
            return take(before);
        };
        for at in first.iter().cloned().flatten() {
            before.push(at);
            go(rest, before, take)?;
            before.pop();
        }
        Ok(())
    }
    go(ranges, &mut Vec::with_capacity(ranges.len()), take)
}

/// Ranges of one length at one distance, which do not overlap.
#[derive(Debug, Clone, Copy)]
struct Comb {
    first: u64,
    len: u64,
    n_teeth: u64,
    distance: i64,
}

impl Comb {
    fn of(ranges: &[Range<u64>]) -> Option<Comb> {
        let (first, rest) = ranges.split_first()?;
        let len = first.end - first.start;
        let distance = |pair: &[Range<u64>]| i128::from(pair[1].start) - i128::from(pair[0].start);
        let common = ranges.windows(2).map(distance).next().unwrap_or(0);
        let is_regular = rest.iter().all(|range| range.end - range.start == len)
            && ranges.windows(2).all(|pair| distance(pair) == common)
            && (rest.is_empty() || common.unsigned_abs() >= len.into());
        Some(Comb {
            first: first.start,
            len,
            n_teeth: ranges.len() as u64,
            distance: i64::try_from(common).ok().filter(|_| is_regular)?,
        })
    }
}

fn nest(shape: &[u64], combs: impl DoubleEndedIterator<Item = Comb>) -> Nest {
    let mut walk = Walk::new(shape, Bounds::Checked, false);
    for comb in combs.rev() {
        walk.take_rounds(comb.first, &[(comb.len, 1), (comb.n_teeth, comb.distance)]);
    }
    walk.nest()
}

fn invalid(message: alloc::string::String) -> Error {
    Error::new(ErrorKind::InvalidSlice, message)
}
