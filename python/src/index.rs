//! Python's indices in the engine's words.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PyInt, PySlice, PyTuple};
use tensorhold::Index;

/// What an index asks for.
pub(crate) enum Asked {
    /// Integers, ranges, `...` and None only.
    Basic(Vec<Index>),
    /// Something else (a list, a mask, an array), at this position.
    Other(usize),
}

/// Reads what stands between the brackets.
pub(crate) fn parse(index: &Bound<'_, PyAny>) -> PyResult<Asked> {
    let Ok(items) = index.cast::<PyTuple>() else {
        return Ok(match item(index)? {
            Some(index) => Asked::Basic(vec![index]),
            None => Asked::Other(0),
        });
    };
    let mut basic = Vec::with_capacity(items.len());
    for (position, part) in items.iter().enumerate() {
        match item(&part)? {
            Some(index) => basic.push(index),
            None => return Ok(Asked::Other(position)),
        }
    }
    Ok(Asked::Basic(basic))
}

fn item(part: &Bound<'_, PyAny>) -> PyResult<Option<Index>> {
    let py = part.py();
    if part.is_none() {
        return Ok(Some(Index::NewAxis));
    }
    if part.is_instance_of::<PyEllipsis>() {
        return Ok(Some(Index::Ellipsis));
    }
    if let Ok(range) = part.cast::<PySlice>() {
        let bound = |name| -> PyResult<Option<i64>> {
            let value = range.getattr(name)?;
            if value.is_none() {
                Ok(None)
            } else {
                integer(&value).map(Some)
            }
        };
        return Ok(Some(Index::Range {
            start: bound(intern!(py, "start"))?,
            stop: bound(intern!(py, "stop"))?,
            step: bound(intern!(py, "step"))?,
        }));
    }
    // A bool is an int to Python, but a mask to every framework; an array of one element has `__index__` too.
    if part.is_instance_of::<PyBool>() || part.hasattr(intern!(py, "__len__"))? {
        return Ok(None);
    }
    match part.is_instance_of::<PyInt>() || part.hasattr(intern!(py, "__index__"))? {
        true => integer(part).map(Index::At).map(Some),
        false => Ok(None),
    }
}

/// An integer, with those past 64 bits taken to the nearest end, as Python does for ranges.
fn integer(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    let py = value.py();
    let value = match value.is_instance_of::<PyInt>() {
        true => value.clone(),
        false => value.call_method0(intern!(py, "__index__"))?,
    };
    match value.extract::<i64>() {
        Ok(value) => Ok(value),
        Err(_) if value.lt(0)? => Ok(i64::MIN),
        Err(_) => Ok(i64::MAX),
    }
}

/// The index as the reference prints it: `[2:, 20]`.
pub(crate) fn display(index: &[Index]) -> String {
    let bound = |value: &Option<i64>| value.map_or_else(String::new, |value| value.to_string());
    let parts: Vec<String> = index
        .iter()
        .map(|part| match part {
            Index::At(at) => at.to_string(),
            Index::Range {
                start,
                stop,
                step: None | Some(1),
            } => format!("{}:{}", bound(start), bound(stop)),
            Index::Range { start, stop, step } => {
                format!("{}:{}:{}", bound(start), bound(stop), bound(step))
            }
            Index::Ellipsis => "...".to_owned(),
            Index::NewAxis => "None".to_owned(),
        })
        .collect();
    format!("[{}]", parts.join(", "))
}
