//! From strides to a selection.

use alloc::format;
use alloc::vec::Vec;

use super::{Loop, Nest, Selection};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::shape::shape_size_bytes;

pub(super) fn of_strides(
    dtype: Dtype,
    n_elements: u64,
    start: u64,
    shape: &[u64],
    strides: &[u64],
) -> Result<Selection> {
    let tensor_bytes = shape_size_bytes(dtype, &[n_elements])?;
    let size_bytes = shape_size_bytes(dtype, shape)?;
    if shape.len() != strides.len() {
        let message = format!("shape {shape:?} has strides {strides:?}");
        return Err(Error::new(ErrorKind::InvalidSlice, message));
    }
    let dims = shape.iter().copied().zip(strides.iter().copied());
    let first = match size_bytes {
        0 => Nest::NOTHING,
        _ => {
            require_inside(n_elements, start, dims.clone())?;
            nest(start, dims)
        }
    };
    Ok(Selection {
        dtype,
        tensor_bytes,
        shape: shape.to_vec(),
        size_bytes,
        first,
        rest: Vec::new(),
    })
}

fn require_inside(
    n_elements: u64,
    start: u64,
    mut dims: impl Iterator<Item = (u64, u64)>,
) -> Result<()> {
    let last = dims.try_fold(start, |last, (count, stride)| {
        last.checked_add((count - 1).checked_mul(stride)?)
    });
    if last.is_some_and(|last| last < n_elements) {
        return Ok(());
    }
    let message = format!("the view reaches past the {n_elements} elements that it is of");
    Err(Error::new(ErrorKind::InvalidSlice, message))
}

/// The walk of a view that has elements, all of them inside.
fn nest(start: u64, dims: impl DoubleEndedIterator<Item = (u64, u64)>) -> Nest {
    let mut run = 1;
    // Innermost first.
    let mut loops: Vec<Loop> = Vec::new();
    for (count, stride) in dims.rev().filter(|&(count, _)| count > 1) {
        let stride = i64::try_from(stride).expect("two elements lie less than 2^63 bits apart");
        match loops.last_mut() {
            None if stride.unsigned_abs() == run => run *= count,
            Some(inner)
                if i128::from(inner.stride) * i128::from(inner.count) == i128::from(stride) =>
            {
                inner.count *= count;
            }
            _ => loops.push(Loop { count, stride }),
        }
    }
    loops.reverse();
    Nest { start, run, loops }
}
