//! Ctrl-C while bytes move: the engine asks between pieces, and what Python raises then ends the call.

use std::cell::RefCell;

use pyo3::ffi;
use pyo3::prelude::*;

thread_local! {
    /// What a signal's handler raised in this thread, until the engine has come back with it.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Lets the engine ask whether it is to end; called once, when the module is made.
pub(crate) fn install() {
    tensorhold::set_interrupt_check(is_interrupted);
}

/// Runs the handlers of signals that came; Python does so in its main thread only.
///
/// The engine's own threads never ask: one that waited for the interpreter would wait forever where who has it waits for
/// the thread to end.
fn is_interrupted() -> bool {
    if !is_known_to_python() {
        return false;
    }
    let raised = Python::try_attach(|py| py.check_signals().err()).flatten();
    let is_raised = raised.is_some();
    if is_raised {
        RAISED.set(raised);
    }
    is_raised
}

/// Whether Python code ever ran in this thread.
fn is_known_to_python() -> bool {
    // SAFETY: it only looks at the calling thread's own state, for which it needs no interpreter; the module was
    // made, so that the place of that state is there.
    !unsafe { ffi::PyGILState_GetThisThreadState() }.is_null()
}

/// What a handler raised, if the engine ended for it.
pub(crate) fn take_raised() -> Option<PyErr> {
    RAISED.take()
}
