//! Tensors out of the buffers of one plan.

use std::collections::HashMap;

use pyo3::prelude::*;
use tensorhold::{
    Buffer, LoadPlan, Memory as Filled, Numbered, Packer, Request, Result, TensorInfo,
};

use crate::error;
use crate::memory::Memory;
use crate::on_device::{PACKING, Target};
use crate::tensors::{Maker, alignment, to_native_order};

/// Knows what becomes of each buffer.
pub(crate) struct Assembly {
    maker: Maker,
    /// Where the engine brings tensors that are not made of the host's memory.
    target: Option<Target>,
    /// By request, those that are not kept.
    copied: HashMap<usize, Copied>,
    /// The requests of each buffer; the one of the buffer's own number, where there is no list.
    requests_of: Option<Vec<Vec<usize>>>,
}

/// What a tensor is for that is copied as soon as it is complete.
pub(crate) struct Copied {
    pub(crate) maker: Maker,
    /// Is called with it.
    pub(crate) copy: Py<PyAny>,
}

impl Assembly {
    /// Adds `requests` to `plan`; gives what makes tensors of its buffers, and memory for them: what was `given` by request, and
    /// the devices'.
    pub(crate) fn prepare(
        py: Python<'_>,
        plan: &mut LoadPlan,
        requests: Vec<Request>,
        given: Numbered,
        copied: HashMap<usize, Copied>,
        maker: &Maker,
    ) -> PyResult<(Assembly, Numbered)> {
        let target = Target::of(py, maker)?;
        let is_host = |request: usize| {
            copied.contains_key(&request) || given.iter().any(|(number, _)| *number == request)
        };
        let added = match &target {
            None => plan.add_all_new(requests),
            Some(_) => add_packed(plan, requests, is_host),
        };
        added.map_err(|error| error::to_py(py, &error))?;
        let requests_of = target.as_ref().map(|_| by_buffer(plan));
        let mut memory = given;
        if let Some(target) = &target {
            let buffer_of = |request: usize| plan.requests()[request].place.buffer;
            for (number, _) in &mut memory {
                *number = buffer_of(*number);
            }
            let mut host: Vec<usize> = copied.keys().map(|&request| buffer_of(request)).collect();
            host.extend(memory.iter().map(|(buffer, _)| *buffer));
            memory.extend(target.allocate(py, plan, |buffer| host.contains(&buffer))?);
        }
        let assembly = Assembly {
            maker: maker.clone(),
            target,
            copied,
            requests_of,
        };
        Ok((assembly, memory))
    }

    /// Whether tensors are copied as soon as they are there, so that others can be read.
    pub(crate) fn is_urgent(&self) -> bool {
        !self.copied.is_empty()
    }

    /// Whether a buffer can be of several tensors.
    pub(crate) fn shares_buffers(&self) -> bool {
        self.requests_of.is_some()
    }

    /// Makes tensors of what is complete, and hands them to `take` with the numbers of their requests.
    pub(crate) fn tensors<'py>(
        &self,
        py: Python<'py>,
        plan: &LoadPlan,
        complete: &mut Numbered,
        take: &mut dyn FnMut(usize, Bound<'py, PyAny>),
    ) -> PyResult<()> {
        let are_any_remote = complete.iter().any(|(_, memory)| memory.is_device());
        if let (Some(target), true) = (&self.target, are_any_remote) {
            target.signal(py)?;
        }
        for (number, memory) in complete.drain(..) {
            let requests = match &self.requests_of {
                Some(requests_of) => &requests_of[number][..],
                None => &[number],
            };
            match (memory, &self.target) {
                (Filled::Device(buffer), Some(target)) => {
                    let tensors = target.tensors(py, plan, requests, buffer)?;
                    for (&request, tensor) in requests.iter().zip(tensors) {
                        take(request, tensor);
                    }
                }
                (Filled::Host(buffer), _) => {
                    let request = requests[0];
                    take(request, self.on_host(py, plan, request, buffer)?);
                }
                (Filled::Device(_), None) => unreachable!("the target has made the buffer"),
            }
        }
        Ok(())
    }

    fn on_host<'py>(
        &self,
        py: Python<'py>,
        plan: &LoadPlan,
        number: usize,
        mut buffer: Buffer,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = &plan.requests()[number];
        let tensor = plan.tensor(request);
        let dtype = request.dtype.unwrap_or(tensor.dtype);
        to_native_order(&mut buffer, alignment(dtype));
        let copied = self.copied.get(&number);
        let maker = copied.map_or(&self.maker, |copied| &copied.maker);
        let memory = Memory::of_owned(buffer);
        let made = maker.make(py, memory, dtype, shape_of(&tensor, request))?;
        match copied {
            Some(Copied { copy, .. }) => copy.call1(py, (made,)).map(|copy| copy.into_bound(py)),
            None => Ok(made),
        }
    }
}

fn add_packed(
    plan: &mut LoadPlan,
    requests: Vec<Request>,
    is_host: impl Fn(usize) -> bool,
) -> Result<()> {
    let mut packer = Packer::new(PACKING);
    for (number, request) in requests.into_iter().enumerate() {
        match is_host(number) {
            true => plan.add_new(request)?,
            false => packer.add(plan, request)?,
        };
    }
    Ok(())
}

fn by_buffer(plan: &LoadPlan) -> Vec<Vec<usize>> {
    let mut by_buffer = vec![Vec::new(); plan.buffers().len()];
    for (number, request) in plan.requests().iter().enumerate() {
        by_buffer[request.place.buffer].push(number);
    }
    by_buffer
}

/// The shape of what `request` wants of `tensor`.
pub(crate) fn shape_of<'a>(tensor: &TensorInfo<'a>, request: &'a Request) -> &'a [u64] {
    match &request.selection {
        Some(selection) => selection.shape(),
        None => tensor.shape,
    }
}
