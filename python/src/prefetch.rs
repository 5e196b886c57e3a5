//! The plans of `safe_open(...).prefetch`, with the words of the reference's 0.9 for what is wrong with one.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyEllipsis, PyInt, PySlice, PyTuple};
use tensorhold::{Bounds, Checkpoint, ErrorKind, Index, Tensor};

use crate::error;
use crate::index::{self, Asked};
use crate::load::Wanted;
use crate::narrow::{Part, Piece, type_and_shape};
use crate::safe_open::find;

/// What `plan` names: a tensor whole for None, else the part that a slice, or a tuple of slices, selects. In the order of the file.
pub(crate) fn wanted<'a>(
    py: Python<'_>,
    checkpoint: &'a Checkpoint,
    plan: &Bound<'_, PyDict>,
) -> PyResult<Wanted<'a>> {
    let mut pieces = Vec::with_capacity(plan.len());
    for (name, part) in plan.iter() {
        let name: String = name
            .extract()
            .map_err(|_| refused(py, "prefetch plan keys must be tensor names"))?;
        let tensor = find(py, checkpoint, &name)?;
        pieces.push(match part.is_none() {
            true => Piece::whole(&tensor).map_err(|error| error::to_py(py, &error))?,
            false => Piece::part(&tensor, selection(py, &tensor, &part)?),
        });
    }
    if pieces.is_empty() {
        return Err(refused(py, "prefetch plan selects no tensors"));
    }
    pieces.sort_by_key(|piece| piece.request.tensor);
    Ok(Wanted::of(checkpoint, pieces))
}

fn selection(py: Python<'_>, tensor: &Tensor<'_>, part: &Bound<'_, PyAny>) -> PyResult<Part> {
    let (name, (_, shape)) = (tensor.info().name, type_and_shape(tensor));
    let is_slices = match part.cast::<PyTuple>() {
        Ok(parts) => parts.iter().all(|part| {
            part.is_instance_of::<PySlice>()
                || part.is_instance_of::<PyEllipsis>()
                || part.is_instance_of::<PyInt>()
        }),
        Err(_) => part.is_instance_of::<PySlice>(),
    };
    if !is_slices {
        return Err(refused(
            py,
            format!(
                "prefetch plan values must be None or a slice, or a tuple of slices, got {} for {name}",
                part.get_type()
            ),
        ));
    }
    if shape.is_empty() {
        return Err(refused(
            py,
            format!("cannot slice rows of the 0-d tensor {name}"),
        ));
    }
    let asked = match index::parse(part) {
        Ok(Asked::Basic(asked)) => asked,
        _ => {
            return Err(refused(
                py,
                format!("prefetch plan slice bounds for {name} must be integers or None"),
            ));
        }
    };
    if !part.is_instance_of::<PyTuple>() {
        check_rows(py, name, &asked, shape[0])?;
    }
    Part::resolve(tensor, &asked, Bounds::Clamped).map_err(|error| {
        refused(
            py,
            format!(
                "invalid prefetch plan slice for {name}: {}",
                error.message()
            ),
        )
    })
}

/// A plan that misses the tensor is a mistake, where an index would be clamped.
fn check_rows(py: Python<'_>, name: &str, asked: &[Index], n_rows: u64) -> PyResult<()> {
    let [Index::Range { start, stop, .. }] = asked else {
        return Ok(());
    };
    for (word, bound) in [("start", start), ("stop", stop)] {
        if let Some(bound) = bound.filter(|bound| bound.unsigned_abs() > n_rows) {
            return Err(refused(
                py,
                format!(
                    "prefetch plan slice {word} {bound} for {name} is out of range for {n_rows} rows"
                ),
            ));
        }
    }
    Ok(())
}

fn refused(py: Python<'_>, message: impl Into<String>) -> PyErr {
    error::new(py, ErrorKind::InvalidArgument, message)
}
