//! Errors of the engine as Python's exceptions.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tensorhold::{Error, ErrorKind, reference_message};

use crate::interrupt;

static FROM_NATIVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception for `error`, with its own words.
pub(crate) fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    with_message(py, error, &error.to_string())
}

/// The exception for `error` in a drop-in call, whose message begins as the reference's does: `context`, then the
/// reference's words for the kind of problem, then ours.
pub(crate) fn to_py_reading(py: Python<'_>, error: &Error, context: &str) -> PyErr {
    match (reference_message(error), error.kind(), error.file()) {
        (Some(words), ..) => with_message(py, error, &format!("{context}: {words}: {error}")),
        (None, ErrorKind::NotFound, Some(file)) => {
            with_message(py, error, &format!("No such file or directory: {file}"))
        }
        (None, ErrorKind::DuplicateTensor | ErrorKind::Forbidden | ErrorKind::ForeignFormat, _) => {
            with_message(py, error, &format!("{context}: {error}"))
        }
        _ => to_py(py, error),
    }
}

/// An exception of `kind` that says `message` and nothing more.
pub(crate) fn new(py: Python<'_>, kind: ErrorKind, message: impl Into<String>) -> PyErr {
    let message = message.into();
    with_message(py, &Error::new(kind, message.clone()), &message)
}

/// The exception for `error` that says `message`.
pub(crate) fn with_message(py: Python<'_>, error: &Error, message: &str) -> PyErr {
    if let (ErrorKind::Interrupted, Some(raised)) = (error.kind(), interrupt::take_raised()) {
        return raised;
    }
    let made = FROM_NATIVE
        .import(py, "tensorhold._errors", "from_native")
        .and_then(|from_native| {
            from_native.call1((
                format!("{:?}", error.kind()),
                message,
                error.file(),
                error.tensor(),
                error.bytes().map(|bytes| (bytes.start, bytes.end)),
                error.hint(),
                error.os_error(),
            ))
        });
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
