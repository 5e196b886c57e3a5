//! Saves that go on while Python does something else.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tensorhold::{
    BackgroundOptions, ErrorKind, PendingSave, SaveOptions, SaveOutcome, save_in_background,
};

use crate::error;
use crate::narrow;
use crate::save::{parse_durability, stopped};
use crate::spec::{Named, borrow, metadata_of};

/// The saves that may still go on, so that the interpreter can wait for them before it ends.
static GOING_ON: Mutex<Vec<Arc<Save>>> = Mutex::new(Vec::new());

/// A save that was begun by `save_async`.
#[pyclass(frozen, module = "tensorhold")]
pub(crate) struct SaveHandle {
    save: Arc<Save>,
}

/// What the handle and the thread that saves share.
struct Save {
    pending: Mutex<Option<PendingSave>>,
    /// What the progress callback raised.
    raised: Arc<Mutex<Option<PyErr>>>,
    /// Nobody can wait for it any more.
    is_orphan: AtomicBool,
    /// Somebody knows how it ended.
    is_told: AtomicBool,
}

/// Begins to save a list of tensors, and returns when all of them are copied or written.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the Python function"
)]
pub(crate) fn save_async(
    py: Python<'_>,
    items: &Bound<'_, PyList>,
    target: PathBuf,
    metadata: Option<&Bound<'_, PyAny>>,
    max_shard_size: Option<u64>,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
    memory_limit: Option<u64>,
) -> PyResult<SaveHandle> {
    let options = BackgroundOptions {
        save: SaveOptions {
            align: Some(align),
            durability: parse_durability(py, durability)?,
        },
        max_shard_bytes: max_shard_size,
        memory_limit_bytes: memory_limit,
    };
    let named = Named::of_items(items)?;
    let metadata = narrow::described(&named, metadata_of(metadata)?);
    let save = Arc::new(Save::new());
    lock(&GOING_ON).push(Arc::clone(&save));
    let total = named.size_bytes();
    let report = report(progress, total, Arc::clone(&save.raised));
    let when_done = {
        let save = Arc::clone(&save);
        move || save.end()
    };
    let begun = py.detach(|| {
        let queues = named.queues()?;
        // SAFETY: every item carries the object that keeps its bytes alive, and the list outlives this call, after
        // which they are not read.
        let views = unsafe { named.views(&queues)? };
        let metadata = borrow(&metadata);
        save_in_background(
            &target,
            &views,
            metadata.as_deref(),
            &options,
            Box::new(report),
            when_done,
        )
    });
    match begun {
        Ok(pending) => {
            save.set(py, pending);
            Ok(SaveHandle { save })
        }
        Err(error) => {
            save.forget();
            Err(error::to_py(py, &error))
        }
    }
}

/// Waits for all saves that still go on, and tells of those that failed and that nobody asked about.
#[pyfunction]
pub(crate) fn finish_saves(py: Python<'_>) -> PyResult<()> {
    let all = std::mem::take(&mut *lock(&GOING_ON));
    for save in all {
        if save.wait(py, None)?.is_some() {
            save.tell_nobody(py);
        }
    }
    Ok(())
}

#[pymethods]
impl SaveHandle {
    /// Waits until the files are in place; the paths written.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<String>> {
        let limit = timeout.map(seconds).transpose()?;
        match self.save.wait(py, limit)? {
            Some(outcome) => {
                self.save.is_told.store(true, Ordering::SeqCst);
                self.save.settle();
                match outcome {
                    Ok(paths) => Ok(paths
                        .iter()
                        .map(|path| path.to_string_lossy().into_owned())
                        .collect()),
                    Err(error) => Err(self.save.exception(py, &error)),
                }
            }
            None => {
                let message = format!("the save still goes on after {} s", timeout.unwrap_or(0.0));
                Err(PyTimeoutError::new_err(message))
            }
        }
    }

    /// Whether it has ended, well or not.
    fn done(&self) -> bool {
        self.save.outcome().is_some()
    }
}

impl Drop for SaveHandle {
    fn drop(&mut self) {
        self.save.is_orphan.store(true, Ordering::SeqCst);
        let _ = Python::try_attach(|py| self.save.tell_nobody(py));
    }
}

impl Save {
    fn new() -> Save {
        Save {
            pending: Mutex::new(None),
            raised: Arc::new(Mutex::new(None)),
            is_orphan: AtomicBool::new(false),
            is_told: AtomicBool::new(false),
        }
    }

    fn set(&self, _py: Python<'_>, pending: PendingSave) {
        *lock(&self.pending) = Some(pending);
        self.settle();
    }

    fn outcome(&self) -> Option<SaveOutcome> {
        lock(&self.pending).as_ref().and_then(PendingSave::outcome)
    }

    fn wait(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<Option<SaveOutcome>> {
        let Some(pending) = lock(&self.pending).clone() else {
            return Ok(None);
        };
        py.detach(|| pending.wait(timeout))
            .map_err(|error| error::to_py(py, &error))
    }

    /// In the thread that saved, when it is done.
    fn end(&self) {
        self.settle();
        if self.is_orphan.load(Ordering::SeqCst) {
            let _ = Python::try_attach(|py| self.tell_nobody(py));
        }
    }

    /// Forgets a save that has ended well, or whose failure was told; another is told of when the interpreter ends.
    fn settle(&self) {
        match self.outcome() {
            Some(Ok(_)) => self.forget(),
            Some(Err(_)) if self.is_told.load(Ordering::SeqCst) => self.forget(),
            _ => {}
        }
    }

    fn forget(&self) {
        lock(&GOING_ON).retain(|save| !std::ptr::eq(&**save, self));
    }

    /// Tells of a failure that nobody asked about, where it cannot be raised.
    fn tell_nobody(&self, py: Python<'_>) {
        if let Some(Err(error)) = self.outcome()
            // A forked child has nothing to tell of its parent's saves.
            && error.kind() != ErrorKind::Closed
            && !self.is_told.swap(true, Ordering::SeqCst)
        {
            self.exception(py, &error).write_unraisable(py, None);
            self.settle();
        }
    }

    fn exception(&self, py: Python<'_>, error: &tensorhold::Error) -> PyErr {
        match &*lock(&self.raised) {
            Some(raised) => raised.clone_ref(py),
            None => error::to_py(py, error),
        }
    }
}

fn report(
    progress: Option<Py<PyAny>>,
    total: u64,
    raised: Arc<Mutex<Option<PyErr>>>,
) -> impl FnMut(u64) -> tensorhold::Result<()> + Send {
    move |done| {
        let Some(progress) = &progress else {
            return Ok(());
        };
        let called = Python::try_attach(|py| progress.call1(py, (done, total)).map(|_| ()));
        match called {
            Some(Err(error)) => Err(stopped(&mut lock(&raised), error)),
            _ => Ok(()),
        }
    }
}

fn seconds(timeout: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout.max(0.0))
        .map_err(|_| PyValueError::new_err(format!("timeout {timeout} is no number of seconds")))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
