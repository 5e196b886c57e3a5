//! Tensors out of the buffers of a load, made while others are still being read.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tensorhold::{Error, ErrorKind, LoadPlan, Numbered, Result};

use crate::assembly::Assembly;
use crate::collector::Paused;
use crate::tensors::insert;

/// So many tensors are worth asking for the interpreter before all are there.
const MANY: usize = 8192;

/// The tensors of a load, as far as they are made.
pub(crate) struct Making<'a> {
    plan: &'a LoadPlan,
    assembly: &'a Assembly,
    report: Report,
    made: Vec<Option<Py<PyAny>>>,
    raised: Option<PyErr>,
}

impl<'a> Making<'a> {
    pub(crate) fn new(
        plan: &'a LoadPlan,
        assembly: &'a Assembly,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> Making<'a> {
        let mut made = Vec::new();
        made.resize_with(plan.requests().len(), || None);
        Making {
            report: Report::new(plan.size_bytes(), progress),
            plan,
            assembly,
            made,
            raised: None,
        }
    }

    /// Makes tensors of what is complete, where that is worth it now, and tells how far the load is. What Python raises ends it.
    pub(crate) fn take(&mut self, complete: &mut Numbered, done: u64) -> Result<()> {
        let is_due = self.report.is_due(done);
        // What waits to be copied keeps others from being read.
        let are_enough = complete.len() >= MANY || self.assembly.is_urgent();
        if !is_due && !are_enough {
            return Ok(());
        }
        let taken = Python::attach(|py| {
            if are_enough {
                self.make(py, complete)?;
            }
            match is_due {
                true => self.report.call(py, done),
                false => Ok(()),
            }
        });
        taken.map_err(|raised| {
            self.raised = Some(raised);
            Error::new(ErrorKind::InvalidArgument, "the interpreter raised")
        })
    }

    /// What Python raised in [`take`](Making::take).
    pub(crate) fn raised(&mut self) -> Option<PyErr> {
        self.raised.take()
    }

    /// All tensors by name, in the order of the plan.
    pub(crate) fn finish<'py>(
        mut self,
        py: Python<'py>,
        mut complete: Numbered,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.make(py, &mut complete)?;
        let _paused = Paused::new(py);
        let dict = PyDict::new(py);
        for (request, made) in self.plan.requests().iter().zip(self.made) {
            let made = made.expect("a transfer gives every buffer once before it ends");
            insert(&dict, self.plan.tensor(request).name, made.into_bound(py))?;
        }
        Ok(dict)
    }

    fn make(&mut self, py: Python<'_>, complete: &mut Numbered) -> PyResult<()> {
        let _paused = Paused::new(py);
        let made = &mut self.made;
        let mut take = |request, tensor: Bound<'_, PyAny>| made[request] = Some(tensor.unbind());
        self.assembly.tensors(py, self.plan, complete, &mut take)
    }
}

/// Tells a callback how far a load is, at most some thousand times.
pub(crate) struct Report {
    total: u64,
    next: u64,
    callback: Option<Py<PyAny>>,
}

impl Report {
    pub(crate) fn new(total: u64, callback: Option<&Bound<'_, PyAny>>) -> Report {
        Report {
            total,
            next: 0,
            callback: callback.map(|callback| callback.clone().unbind()),
        }
    }

    pub(crate) fn is_due(&self, done: u64) -> bool {
        self.callback.is_some() && (done >= self.next || done >= self.total)
    }

    pub(crate) fn call(&mut self, py: Python<'_>, done: u64) -> PyResult<()> {
        self.next = done + self.total / 1000;
        match &self.callback {
            Some(callback) => callback.call1(py, (done, self.total)).map(drop),
            None => Ok(()),
        }
    }
}
