//! Tensors out of the buffers of one plan.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pyo3::prelude::*;
use tensorhold::{
    Buffer, DeviceBuffer, LoadPlan, Memory as Filled, Numbered, Packer, Request, Result, TensorInfo,
};

use crate::error;
use crate::memory::Memory;
use crate::narrow::NarrowParts;
use crate::on_device::{PACKING, Target, Targets};
use crate::placement::Placement;
use crate::tensors::{Maker, alignment, to_native_order};

/// Knows what becomes of each buffer.
pub(crate) struct Assembly {
    makers: Vec<Maker>,
    /// By request, the number of its maker.
    maker_of: Vec<usize>,
    /// By request, what tensors are copied by that are not kept.
    copies: HashMap<usize, Py<PyAny>>,
    /// By request, those whose bytes hold integers narrower than a byte. They are made on the host.
    narrow: NarrowParts,
    /// Where the engine brings tensors that are not made of the host's memory.
    targets: Vec<Arc<Target>>,
    /// By buffer, the number of the target that is to give its memory.
    target_of: Vec<Option<usize>>,
    /// The requests of each buffer; the one of the buffer's own number, where there is no list.
    requests_of: Option<Vec<Vec<usize>>>,
    device_bytes: DeviceBytes,
}

/// How many bytes of tensors the engine brings to each device.
pub(crate) type DeviceBytes = BTreeMap<String, u64>;

/// What a tensor is for that is copied as soon as it is complete.
pub(crate) struct Copied {
    pub(crate) maker: Maker,
    /// Is called with it.
    pub(crate) copy: Py<PyAny>,
}

/// Tensors that a caller gave to be filled.
#[derive(Default)]
pub(crate) struct Given {
    /// Their memory, by request.
    pub(crate) memory: Numbered,
    /// Where that is which is on devices.
    targets: Vec<Arc<Target>>,
    /// By request, those that cannot be filled in place.
    pub(crate) copied: HashMap<usize, Copied>,
}

impl Given {
    /// Adds where some of the memory is.
    pub(crate) fn add_target(&mut self, target: Arc<Target>) {
        number_of(&mut self.targets, target);
    }
}

impl Assembly {
    /// Adds `requests` to `plan`; gives what makes tensors of its buffers, and the memory that was `given`, by buffer.
    pub(crate) fn prepare(
        py: Python<'_>,
        plan: &mut LoadPlan,
        (requests, narrow): (Vec<Request>, NarrowParts),
        given: Given,
        placement: &Placement,
        targets: &Targets,
    ) -> PyResult<(Assembly, Numbered)> {
        let names = requests.iter().map(|request| plan.tensor(request).name);
        let (makers, maker_of) = placement.makers(py, names)?;
        let (mut memory, copied) = (given.memory, given.copied);
        let mut assembly = Assembly::of(makers, maker_of, copied, given.targets);
        assembly.narrow = narrow;
        let in_place: HashSet<usize> = memory.iter().map(|(request, _)| *request).collect();
        let n_given = assembly.targets.len();
        let target_of = assembly.find_targets(py, targets, &in_place)?;
        if assembly.targets.is_empty() {
            let added = plan.add_all_new(requests);
            added.map_err(|error| error::to_py(py, &error))?;
            return Ok((assembly, memory));
        }
        let added = assembly.add_packed(plan, requests, &target_of);
        added.map_err(|error| error::to_py(py, &error))?;
        for (number, _) in &mut memory {
            *number = plan.requests()[*number].place.buffer;
        }
        assembly.count_all(plan, &memory);
        for target in &assembly.targets[..n_given] {
            target.begin(py)?;
        }
        Ok((assembly, memory))
    }

    fn of(
        mut makers: Vec<Maker>,
        mut maker_of: Vec<usize>,
        copied: HashMap<usize, Copied>,
        targets: Vec<Arc<Target>>,
    ) -> Assembly {
        let mut copies = HashMap::with_capacity(copied.len());
        for (request, Copied { maker, copy }) in copied {
            maker_of[request] = makers.len();
            makers.push(maker);
            copies.insert(request, copy);
        }
        Assembly {
            makers,
            maker_of,
            copies,
            narrow: NarrowParts::new(),
            targets,
            target_of: Vec::new(),
            requests_of: None,
            device_bytes: DeviceBytes::new(),
        }
    }

    /// Counts the bytes of each device, those of `given` memory among them.
    fn count_all(&mut self, plan: &LoadPlan, given: &Numbered) {
        for (_, memory) in given {
            if let Filled::Device(buffer) = memory {
                self.count(self.number_of(buffer), buffer.len() as u64);
            }
        }
        for request in plan.requests() {
            if let Some(target) = self.target_of[request.place.buffer] {
                self.count(target, plan.size_of(request));
            }
        }
    }

    fn count(&mut self, target: usize, size_bytes: u64) {
        let name = self.targets[target].name().to_owned();
        *self.device_bytes.entry(name).or_default() += size_bytes;
    }

    /// For each request the number of the target that it goes to; `None` for the host, and for what is filled `in_place`.
    fn find_targets(
        &mut self,
        py: Python<'_>,
        targets: &Targets,
        in_place: &HashSet<usize>,
    ) -> PyResult<Vec<Option<usize>>> {
        let mut of_maker: Vec<Option<Option<usize>>> = vec![None; self.makers.len()];
        let mut target_of = Vec::with_capacity(self.maker_of.len());
        for (request, &maker) in self.maker_of.iter().enumerate() {
            if in_place.contains(&request) || self.narrow.contains_key(&request) {
                target_of.push(None);
                continue;
            }
            let target = match of_maker[maker] {
                Some(target) => target,
                None => {
                    let found = targets.find(py, &self.makers[maker])?;
                    let number = found.map(|target| number_of(&mut self.targets, target));
                    *of_maker[maker].insert(number)
                }
            };
            target_of.push(target);
        }
        Ok(target_of)
    }

    /// Adds the requests, small ones of a device side by side.
    fn add_packed(
        &mut self,
        plan: &mut LoadPlan,
        requests: Vec<Request>,
        target_of: &[Option<usize>],
    ) -> Result<()> {
        let mut packers = vec![Packer::new(PACKING); self.targets.len()];
        for (request, &target) in requests.into_iter().zip(target_of) {
            let buffer = match target {
                None => plan.add_new(request)?,
                Some(target) => packers[target].add(plan, request)?,
            };
            self.target_of.resize(plan.buffers().len(), None);
            self.target_of[buffer] = target;
        }
        self.requests_of = Some(by_buffer(plan));
        Ok(())
    }

    /// The buffers that [`allocate`](Assembly::allocate) is for.
    pub(crate) fn remote_buffers(&self) -> Vec<usize> {
        let numbered = self.target_of.iter().enumerate();
        let remote = numbered.filter(|(_, target)| target.is_some());
        remote.map(|(number, _)| number).collect()
    }

    /// Memory of devices for these buffers, which copies may write to.
    pub(crate) fn allocate(
        &self,
        py: Python<'_>,
        plan: &LoadPlan,
        buffers: &[usize],
    ) -> PyResult<Numbered> {
        let mut memory = Numbered::with_capacity(buffers.len());
        let mut is_used = vec![false; self.targets.len()];
        for &number in buffers {
            let target = self.target_of[number].expect("the buffer is on a device");
            let requests = self.requests(&number);
            let made = self.targets[target].allocate(py, plan, requests, plan.buffers()[number])?;
            memory.push((number, made.into()));
            is_used[target] = true;
        }
        for (target, _) in self
            .targets
            .iter()
            .zip(is_used)
            .filter(|(_, is_used)| *is_used)
        {
            target.begin(py)?;
        }
        Ok(memory)
    }

    /// The requests whose tensors lie in buffer `number`.
    fn requests<'a>(&'a self, number: &'a usize) -> &'a [usize] {
        match &self.requests_of {
            Some(requests_of) => &requests_of[*number],
            None => std::slice::from_ref(number),
        }
    }

    /// How many bytes of tensors go to each device.
    pub(crate) fn device_bytes(&self) -> &DeviceBytes {
        &self.device_bytes
    }

    /// Whether a device that tensors go to has the host's memory.
    pub(crate) fn is_unified(&self) -> bool {
        self.targets.iter().any(|target| target.is_unified())
    }

    /// The number of the target that `buffer` is of.
    fn number_of(&self, buffer: &DeviceBuffer) -> usize {
        let number = self.targets.iter().position(|target| target.is_of(buffer));
        number.expect("every buffer on a device was made by a target")
    }

    /// Whether tensors are copied as soon as they are there, so that others can be read.
    pub(crate) fn is_urgent(&self) -> bool {
        !self.copies.is_empty()
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
        for target in &self.targets {
            let is_of =
                |memory: &Filled| matches!(memory, Filled::Device(buffer) if target.is_of(buffer));
            if complete.iter().any(|(_, memory)| is_of(memory)) {
                target.signal(py)?;
            }
        }
        for (number, memory) in complete.drain(..) {
            let requests = self.requests(&number);
            match memory {
                Filled::Device(buffer) => {
                    let target = &self.targets[self.number_of(&buffer)];
                    let tensors = target.tensors(py, plan, requests, buffer)?;
                    for (&request, tensor) in requests.iter().zip(tensors) {
                        take(request, self.copied(request, tensor)?);
                    }
                }
                Filled::Host(buffer) => {
                    let request = requests[0];
                    let tensor = self.on_host(py, plan, request, buffer)?;
                    take(request, self.copied(request, tensor)?);
                }
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
        let maker = &self.makers[self.maker_of[number]];
        if let Some(part) = self.narrow.get(&number) {
            return maker.make_narrow(py, &buffer, part);
        }
        let memory = Memory::of_owned(buffer);
        maker.make(py, memory, dtype, shape_of(&tensor, request))
    }

    /// The tensor, or what copying it gives where it is not kept.
    fn copied<'py>(
        &self,
        request: usize,
        tensor: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.copies.get(&request) {
            Some(copy) => copy.bind(tensor.py()).call1((tensor,)),
            None => Ok(tensor),
        }
    }
}

/// The number of `target` in `targets`, to which it is added if it is none of them.
fn number_of(targets: &mut Vec<Arc<Target>>, target: Arc<Target>) -> usize {
    let known = targets.iter().position(|known| Arc::ptr_eq(known, &target));
    known.unwrap_or_else(|| {
        targets.push(target);
        targets.len() - 1
    })
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
