//! The garbage collector, kept from running while many objects are made.

use pyo3::ffi;
use pyo3::prelude::*;

/// Keeps the collector from running until it is dropped.
///
/// A dict of 100 000 tensors is made of objects that all stay; every collection meanwhile looks at all of
/// them and frees none, which takes as long as making them.
pub(crate) struct Paused<'py> {
    was_enabled: bool,
    _py: Python<'py>,
}

impl<'py> Paused<'py> {
    pub(crate) fn new(py: Python<'py>) -> Paused<'py> {
        // SAFETY: the interpreter is held, as `py` shows.
        let was_enabled = unsafe { ffi::PyGC_Disable() } == 1;
        Paused {
            was_enabled,
            _py: py,
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if self.was_enabled {
            // SAFETY: the interpreter is held, as `_py` shows.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}
