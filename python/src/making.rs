//! Tensors out of the buffers of a load, made while others are still being read.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tensorhold::{Buffer, Error, ErrorKind, LoadPlan, Numbered, Request, Result, TensorInfo};

use crate::collector::Paused;
use crate::memory::Memory;
use crate::tensors::{Maker, alignment, insert, to_native_order};

/// So many tensors are worth asking for the interpreter before all are there.
const MANY: usize = 8192;

/// The tensors of a load, as far as they are made.
pub(crate) struct Making<'a> {
    plan: &'a LoadPlan,
    maker: &'a Maker,
    report: Report,
    made: Vec<Option<Py<PyAny>>>,
    /// By number in the plan, those that are not kept.
    copied: HashMap<usize, Copied>,
    raised: Option<PyErr>,
}

/// What a tensor is for that is copied as soon as it is complete.
pub(crate) struct Copied {
    pub(crate) maker: Maker,
    /// Is called with it.
    pub(crate) copy: Py<PyAny>,
}

impl<'a> Making<'a> {
    pub(crate) fn new(
        plan: &'a LoadPlan,
        maker: &'a Maker,
        copied: HashMap<usize, Copied>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> Making<'a> {
        let mut made = Vec::new();
        made.resize_with(plan.requests().len(), || None);
        Making {
            report: Report::new(plan.size_bytes(), progress),
            plan,
            maker,
            made,
            copied,
            raised: None,
        }
    }

    /// Makes tensors of what is complete, where that is worth it now, and tells how far the load is. What Python raises ends it.
    pub(crate) fn take(&mut self, complete: &mut Numbered, done: u64) -> Result<()> {
        let is_due = self.report.is_due(done);
        // What waits to be copied keeps others from being read.
        let are_enough = complete.len() >= MANY || !self.copied.is_empty();
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
        for (number, buffer) in complete.drain(..) {
            let request = &self.plan.requests()[number];
            let tensor = self.plan.tensor(request);
            let copied = self.copied.get(&number);
            let maker = copied.map_or(self.maker, |copied| &copied.maker);
            let made = make(py, maker, &tensor, request, buffer)?;
            self.made[number] = Some(match copied {
                Some(Copied { copy, .. }) => copy.call1(py, (made,))?,
                None => made.unbind(),
            });
        }
        Ok(())
    }
}

/// The tensor that `request`, which is for something of `tensor`, makes out of its buffer.
pub(crate) fn make<'py>(
    py: Python<'py>,
    maker: &Maker,
    tensor: &TensorInfo<'_>,
    request: &Request,
    mut buffer: Buffer,
) -> PyResult<Bound<'py, PyAny>> {
    let dtype = request.dtype.unwrap_or(tensor.dtype);
    to_native_order(&mut buffer, alignment(dtype));
    let shape = shape_of(tensor, request);
    maker.make(py, Memory::of_owned(buffer), dtype, shape)
}

/// The shape of what `request` wants of `tensor`.
pub(crate) fn shape_of<'a>(tensor: &TensorInfo<'a>, request: &'a Request) -> &'a [u64] {
    match &request.selection {
        Some(selection) => selection.shape(),
        None => tensor.shape,
    }
}

/// Tells a callback how far a load is, at most some thousand times.
struct Report {
    total: u64,
    next: u64,
    callback: Option<Py<PyAny>>,
}

impl Report {
    fn new(total: u64, callback: Option<&Bound<'_, PyAny>>) -> Report {
        Report {
            total,
            next: 0,
            callback: callback.map(|callback| callback.clone().unbind()),
        }
    }

    fn is_due(&self, done: u64) -> bool {
        self.callback.is_some() && (done >= self.next || done >= self.total)
    }

    fn call(&mut self, py: Python<'_>, done: u64) -> PyResult<()> {
        self.next = done + self.total / 1000;
        match &self.callback {
            Some(callback) => callback.call1(py, (done, self.total)).map(drop),
            None => Ok(()),
        }
    }
}
