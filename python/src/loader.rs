//! Tensors that are read in the background, given out one by one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyList, PyString};
use tensorhold::{Error, ErrorKind, LoadPlan, Memory, Transfer};

use crate::assembly::Assembly;
use crate::error;
use crate::stats::Stats;

/// The tensors of a checkpoint while they are read in the background.
///
/// Each tensor is given out once, by `take` or by iterating, to whichever thread asks.
#[pyclass(frozen, name = "PrefetchLoader", module = "tensorhold._native")]
pub(crate) struct Loader {
    /// `None` once it is closed.
    transfer: RwLock<Option<Arc<Transfer>>>,
    assembly: Assembly,
    /// Tensors by request that came with others of their buffer, and were not given out yet.
    left: Mutex<Left>,
    by_name: OnceLock<HashMap<String, usize>>,
}

impl Loader {
    /// What gives the tensors of `transfer`, which gets memory for those that it begins with.
    pub(crate) fn new(py: Python<'_>, assembly: Assembly, transfer: Transfer) -> PyResult<Loader> {
        let loader = Loader {
            transfer: RwLock::new(None),
            assembly,
            left: Mutex::new(Left::new()),
            by_name: OnceLock::new(),
        };
        loader.pay(py, &transfer)?;
        *loader
            .transfer
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(transfer));
        Ok(loader)
    }

    fn transfer(&self, py: Python<'_>) -> PyResult<Arc<Transfer>> {
        let transfer = self.transfer.read().unwrap_or_else(PoisonError::into_inner);
        transfer
            .clone()
            .ok_or_else(|| error::new(py, ErrorKind::Closed, "prefetch loader closed"))
    }

    /// The buffer's number for `name`.
    fn number(&self, py: Python<'_>, plan: &LoadPlan, name: &str) -> PyResult<usize> {
        let by_name = self.by_name.get_or_init(|| {
            let names = plan
                .requests()
                .iter()
                .map(|request| plan.tensor(request).name);
            names.map(str::to_owned).zip(0..).collect()
        });
        by_name.get(name).copied().ok_or_else(|| {
            let message = format!("tensor {name} is not in the prefetch plan");
            let error = Error::new(ErrorKind::TensorNotFound, message.clone());
            error::with_message(py, &error.with_tensor(name), &message)
        })
    }

    /// Lets go of the transfer, without the interpreter while its threads come to an end.
    fn end(&self, py: Python<'_>) {
        let mut kept = self
            .transfer
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let transfer = kept.take();
        // Who waits for this lock has the interpreter.
        drop(kept);
        py.detach(|| {
            if let Some(transfer) = &transfer {
                transfer.cancel();
            }
            drop(transfer);
        });
    }

    /// Gives the memory of devices that is needed now.
    fn pay(&self, py: Python<'_>, transfer: &Transfer) -> PyResult<()> {
        if !self.assembly.shares_buffers() {
            return Ok(());
        }
        let owed: Vec<usize> = transfer.owed().iter().map(|(number, _)| *number).collect();
        if !owed.is_empty() {
            transfer.offer(self.assembly.allocate(py, transfer.plan(), &owed)?);
        }
        Ok(())
    }

    /// The tensors that came with others of their buffer. Where there can be such, whoever asks for a tensor waits here.
    fn left(&self, py: Python<'_>) -> Option<MutexGuard<'_, Left>> {
        let lock = || self.left.lock_py_attached(py);
        let left = self.assembly.shares_buffers().then(lock);
        left.map(|left| left.unwrap_or_else(PoisonError::into_inner))
    }

    /// The tensor of request `number`, out of the buffer that it lies in; the others of the buffer go to `left`.
    fn made<'py>(
        &self,
        py: Python<'py>,
        plan: &LoadPlan,
        (buffer, memory): (usize, Memory),
        number: Option<usize>,
        left: Option<&mut Left>,
    ) -> PyResult<(usize, Bound<'py, PyAny>)> {
        let mut wanted = None;
        let mut others = Left::new();
        let mut complete = vec![(buffer, memory)];
        let mut take = |request, tensor: Bound<'py, PyAny>| match wanted {
            None if number.is_none_or(|number| number == request) => {
                wanted = Some((request, tensor));
            }
            _ => others.push_back((request, tensor.unbind())),
        };
        self.assembly.tensors(py, plan, &mut complete, &mut take)?;
        if let Some(left) = left {
            left.append(&mut others);
        }
        Ok(wanted.expect("the buffer is that of the request, or of some"))
    }
}

/// Tensors with the numbers of their requests.
type Left = VecDeque<(usize, Py<PyAny>)>;

#[pymethods]
impl Loader {
    /// Returns the names of the tensors, in the order of the plan.
    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let transfer = self.transfer(py)?;
        let plan = transfer.plan();
        PyList::new(
            py,
            plan.requests()
                .iter()
                .map(|request| plan.tensor(request).name),
        )
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.transfer(py)?.plan().requests().len())
    }

    /// Returns the tensor with this name, which is read before all others, waiting for it.
    fn take<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let transfer = self.transfer(py)?;
        let plan = transfer.plan();
        let number = self.number(py, plan, name)?;
        let mut left = self.left(py);
        if let Some(tensor) = left.as_deref_mut().and_then(|left| remove(left, number)) {
            return Ok(tensor.into_bound(py));
        }
        let buffer = plan.requests()[number].place.buffer;
        if self.assembly.shares_buffers() {
            transfer.demand(buffer);
            self.pay(py, &transfer)?;
        }
        let taken = py.detach(|| transfer.take(buffer));
        match taken.map_err(|error| error::to_py(py, &error))? {
            Some(memory) => {
                let number = Some(number);
                let made = self.made(py, plan, (buffer, memory), number, left.as_deref_mut());
                Ok(made?.1)
            }
            None => {
                let message = format!(
                    "{name}: tensor already delivered (prefetch hands each tensor out once, via take or iteration)"
                );
                let error = Error::new(ErrorKind::InvalidArgument, message.clone());
                Err(error::with_message(py, &error.with_tensor(name), &message))
            }
        }
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// The next pair of a name and a tensor that is complete.
    fn __next__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(Bound<'py, PyString>, Bound<'py, PyAny>)>> {
        let transfer = self.transfer(py)?;
        let plan = transfer.plan();
        let mut left = self.left(py);
        let before = left.as_deref_mut().and_then(VecDeque::pop_front);
        let (number, tensor) = match before {
            Some((number, tensor)) => (number, tensor.into_bound(py)),
            None => {
                self.pay(py, &transfer)?;
                let next = py.detach(|| transfer.next());
                let Some(next) = next.map_err(|error| error::to_py(py, &error))? else {
                    return Ok(None);
                };
                self.made(py, plan, next, None, left.as_deref_mut())?
            }
        };
        let name = PyString::new(py, plan.tensor(&plan.requests()[number]).name);
        Ok(Some((name, tensor)))
    }

    /// Returns what was done so far, and how.
    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        Ok(Stats::of(self.transfer(py)?.stats(), &self.assembly))
    }

    /// Stops reading, and lets go of all tensors that were not given out.
    fn close(&self, py: Python<'_>) {
        self.end(py);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        self.close(py);
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // While the interpreter ends it cannot be let go of; the transfer then goes as it is.
        let _ = Python::try_attach(|py| self.end(py));
    }
}

fn remove(left: &mut Left, number: usize) -> Option<Py<PyAny>> {
    let at = left.iter().position(|(request, _)| *request == number)?;
    left.remove(at).map(|(_, tensor)| tensor)
}
