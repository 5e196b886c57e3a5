//! What is wanted of a checkpoint, in Python's words, and carried out.

use std::any::Any;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use tensorhold::{
    Bounds, Buffer, Checkpoint, Dtype, Error, ErrorKind, LoadPlan, NarrowSelection, Numbered,
    Promised, Request, Result, Tensor, TensorInfo, Transfer, TransferOptions,
};

use crate::assembly::{Assembly, Copied, Given, shape_of};
use crate::error;
use crate::index::{self, Asked};
use crate::loader::Loader;
use crate::making::Making;
use crate::narrow::{Narrow, NarrowParts, Part, Piece};
use crate::on_device::Targets;
use crate::parallel::Share;
use crate::placement::Placement;
use crate::spec::TensorSpec;
use crate::stats::Stats;
use crate::tensors::Maker;

/// Tensors, or parts of them, that are wanted of a checkpoint, in the order to give them.
pub(crate) struct Wanted<'a> {
    checkpoint: &'a Checkpoint,
    requests: Vec<Request>,
    narrow: NarrowParts,
    given: Given,
}

impl<'a> Wanted<'a> {
    /// All tensors of the checkpoint.
    pub(crate) fn all(checkpoint: &'a Checkpoint) -> Result<Wanted<'a>> {
        let pieces = checkpoint.tensors().map(|tensor| Piece::whole(&tensor));
        Ok(Wanted::of(checkpoint, pieces.collect::<Result<_>>()?))
    }

    /// These.
    pub(crate) fn of(checkpoint: &'a Checkpoint, pieces: Vec<Piece>) -> Wanted<'a> {
        let mut requests = Vec::with_capacity(pieces.len());
        let mut narrow = NarrowParts::new();
        for piece in pieces {
            narrow.extend(piece.narrow.map(|part| (requests.len(), part)));
            requests.push(piece.request);
        }
        Wanted {
            checkpoint,
            requests,
            narrow,
            given: Given::default(),
        }
    }

    /// What `names` asks for: each name whole, or, of a mapping from names to indices, that part of it; all where it is None.
    pub(crate) fn named(
        py: Python<'_>,
        checkpoint: &'a Checkpoint,
        names: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Wanted<'a>> {
        let Some(names) = names else {
            return Wanted::all(checkpoint).map_err(|error| error::to_py(py, &error));
        };
        let find = |name: &str| {
            let tensor = checkpoint.tensor(name);
            tensor.map_err(|error| error::to_py(py, &error))
        };
        let mut pieces = Vec::new();
        if let Ok(parts) = names.cast::<PyMapping>() {
            for item in parts.items()?.iter() {
                let (name, part) = item.extract::<(String, Bound<'_, PyAny>)>()?;
                let tensor = find(&name)?;
                pieces.push(piece_of(py, &tensor, &part)?);
            }
        } else {
            for name in names.try_iter()? {
                let piece = Piece::whole(&find(&name?.extract::<String>()?)?);
                pieces.push(piece.map_err(|error| error::to_py(py, &error))?);
            }
        }
        Ok(Wanted::of(checkpoint, pieces))
    }

    /// The same with elements cast to `dtype` where they are floats.
    pub(crate) fn cast(mut self, dtype: Option<Dtype>) -> Wanted<'a> {
        if dtype.is_none() {
            return self;
        }
        let plan = self.checkpoint.plan();
        for request in &mut self.requests {
            let from = plan.tensor(request).dtype;
            request.dtype = dtype.filter(|&dtype| tensorhold::can_cast(from, dtype));
        }
        self
    }

    /// The same into memory of the caller's, by name, as the front end describes it.
    pub(crate) fn into_given(
        mut self,
        py: Python<'_>,
        given: &Bound<'_, PyDict>,
        targets: &Targets,
    ) -> PyResult<Wanted<'a>> {
        if given.is_empty() {
            return Ok(self);
        }
        let plan = self.checkpoint.plan();
        let mut ranges = Vec::new();
        for (number, request) in self.requests.iter_mut().enumerate() {
            let tensor = plan.tensor(request);
            let Some(item) = given.get_item(tensor.name)? else {
                continue;
            };
            let seat = Seat {
                number,
                request,
                narrow: self.narrow.get(&number),
            };
            let range = self
                .given
                .take(py, seat, &tensor, item.extract()?, targets)?;
            ranges.extend(range);
        }
        refuse_overlap(ranges).map_err(|error| error::to_py(py, &error))?;
        Ok(self)
    }

    /// Requests, each into memory of the caller's.
    pub(crate) fn filling(
        py: Python<'_>,
        checkpoint: &'a Checkpoint,
        items: Vec<(Request, Filled<'_>)>,
        targets: &Targets,
    ) -> PyResult<Wanted<'a>> {
        let plan = checkpoint.plan();
        let mut wanted = Wanted::of(checkpoint, Vec::with_capacity(items.len()));
        let mut ranges = Vec::new();
        for (number, (mut request, item)) in items.into_iter().enumerate() {
            let tensor = plan.tensor(&request);
            let seat = Seat {
                number,
                request: &mut request,
                narrow: None,
            };
            ranges.extend(wanted.given.take(py, seat, &tensor, item, targets)?);
            wanted.requests.push(request);
        }
        refuse_overlap(ranges).map_err(|error| error::to_py(py, &error))?;
        Ok(wanted)
    }

    /// The types of the tensors as they will be made.
    pub(crate) fn dtypes(&self) -> BTreeSet<Dtype> {
        let plan = self.checkpoint.plan();
        let dtype = |request: &Request| request.dtype.unwrap_or(plan.tensor(request).dtype);
        self.requests.iter().map(dtype).collect()
    }

    /// The plan, in which buffer `n` is that of request `n`.
    pub(crate) fn into_plan(self) -> Result<LoadPlan> {
        let mut plan = self.checkpoint.plan();
        plan.add_all_new(self.requests)?;
        Ok(plan)
    }

    /// Carries it out, and gives the tensors by name.
    pub(crate) fn load<'py>(
        self,
        py: Python<'py>,
        placement: &Placement,
        targets: &Targets,
        options: TransferOptions,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyDict>, Stats)> {
        let files = self.checkpoint.files();
        let (plan, assembly, mut given) = self.prepare(py, placement, targets)?;
        given.extend(assembly.allocate(py, &plan, &assembly.remote_buffers())?);
        let options = TransferOptions {
            memory_limit: assembly.is_urgent().then_some(COPIED_BYTES),
            ..options
        };
        let mut making = Making::new(&plan, &assembly, progress);
        let loaded = py.detach(|| {
            Transfer::run_each(
                Arc::clone(&plan),
                files,
                given,
                options,
                &mut |complete, done| making.take(complete, done),
            )
        });
        let (complete, stats) = match making.raised() {
            Some(raised) => return Err(raised),
            None => loaded.map_err(|error| error::to_py(py, &error))?,
        };
        let tensors = making.finish(py, complete)?;
        Ok((tensors, Stats::of(stats, &assembly)))
    }

    /// Begins to carry it out in the background.
    pub(crate) fn start(
        self,
        py: Python<'_>,
        placement: &Placement,
        targets: &Targets,
        options: TransferOptions,
    ) -> PyResult<Loader> {
        let files = self.checkpoint.files();
        let (plan, assembly, mut given) = self.prepare(py, placement, targets)?;
        // Within a limit, memory of devices is given as it is needed.
        let is_owed =
            |number: &usize| options.memory_limit.is_some() && plan.buffers()[*number] > 0;
        let remote = assembly.remote_buffers();
        let (owed, at_once): (Vec<usize>, Vec<usize>) = remote.into_iter().partition(is_owed);
        given.extend(assembly.allocate(py, &plan, &at_once)?);
        let promised = Promised {
            buffers: &owed,
            is_unified: assembly.is_unified(),
        };
        let started = py.detach(|| {
            Transfer::start_promised(Arc::clone(&plan), files, given, promised, options)
        });
        let transfer = started.map_err(|error| error::to_py(py, &error))?;
        Loader::new(py, assembly, transfer)
    }

    /// The plan, what makes tensors of its buffers, and memory for those that are not to be made.
    fn prepare(
        self,
        py: Python<'_>,
        placement: &Placement,
        targets: &Targets,
    ) -> PyResult<(Arc<LoadPlan>, Assembly, Numbered)> {
        let mut plan = self.checkpoint.plan();
        let (requests, given) = ((self.requests, self.narrow), self.given);
        let (assembly, memory) =
            Assembly::prepare(py, &mut plan, requests, given, placement, targets)?;
        Ok((Arc::new(plan), assembly, memory))
    }
}

/// A tensor to fill, as the front end describes it: its memory, what keeps that alive, its framework, what copies a tensor to it,
/// whether that is what is to be done, and the device that it is on, if it is not the host.
pub(crate) type Filled<'py> = (
    Bound<'py, TensorSpec>,
    Py<PyAny>,
    String,
    Py<PyAny>,
    bool,
    Option<Bound<'py, PyAny>>,
);

/// What a tensor to fill is for.
struct Seat<'a> {
    number: usize,
    request: &'a mut Request,
    narrow: Option<&'a NarrowSelection>,
}

impl Given {
    /// Adds the tensor that request `number` is to fill; its bytes, where that is done in place.
    fn take(
        &mut self,
        py: Python<'_>,
        seat: Seat<'_>,
        tensor: &TensorInfo<'_>,
        item: Filled<'_>,
        targets: &Targets,
    ) -> PyResult<Option<(u64, u64)>> {
        let spec = item.0.get();
        let range = (spec.data_ptr, spec.data_len as u64);
        if item.2 == "torch" && is_packed(tensor, seat.request, spec) {
            seat.request.dtype = None;
            return Ok(self.add(py, seat.number, item, targets)?.then_some(range));
        }
        let checked = match seat.narrow {
            Some(part) => check_narrow(part, spec),
            None => check_given(tensor, seat.request, spec),
        };
        checked.map_err(|error| error::to_py(py, &error.with_tensor(tensor.name)))?;
        seat.request.dtype = Some(spec.dtype);
        Ok(self.add(py, seat.number, item, targets)?.then_some(range))
    }

    /// Adds the tensor of request `number`; whether it is to be filled in place.
    fn add(
        &mut self,
        py: Python<'_>,
        number: usize,
        (spec, hold, framework, copy, is_copied, device): Filled<'_>,
        targets: &Targets,
    ) -> PyResult<bool> {
        let spec = spec.get();
        let maker = Maker::new(py, &framework, device.as_ref())?;
        let target = targets.find(py, &maker)?;
        let is_copied = is_copied || spec.narrow.is_some();
        let memory = match (is_copied, device, target) {
            // SAFETY: the front end found the tensor dense and writable, `hold` keeps it alive, and no other buffer overlaps,
            // as `refuse_overlap` checks before any is used.
            (false, None, _) => unsafe { buffer_over(spec, hold) }.into(),
            (false, Some(_), Some(target)) => {
                // SAFETY: as above, on the device; whoever else uses the tensor does so on the current stream.
                let buffer = unsafe { target.buffer_over(spec, hold) };
                self.add_target(target);
                buffer.into()
            }
            (_, _, target) => {
                let maker = match target {
                    Some(_) => maker,
                    // The copy brings it to wherever it is to be.
                    None => Maker::new(py, &framework, None)?,
                };
                self.copied.insert(number, Copied { maker, copy });
                return Ok(false);
            }
        };
        self.memory.push((number, memory));
        Ok(true)
    }
}

/// So much is read ahead of the copies into tensors that cannot be filled in place: enough to keep all threads at work.
const COPIED_BYTES: u64 = 128 << 20;

/// The type that a caller's `name` stands for: `BF16` or `bfloat16`.
pub(crate) fn dtype_named(py: Python<'_>, name: &str) -> PyResult<Dtype> {
    Dtype::from_name(name.as_bytes())
        .or_else(|| Dtype::from_framework_name(name))
        .ok_or_else(|| {
            let message = format!("dtype `{name}` is none that a file can hold");
            error::new(py, ErrorKind::InvalidArgument, message)
        })
}

/// All of `tensor`, or the part of it that an index or a rank's share says. A share is of the tensor as it is stored.
fn piece_of(py: Python<'_>, tensor: &Tensor<'_>, part: &Bound<'_, PyAny>) -> PyResult<Piece> {
    if part.is_none() {
        return Piece::whole(tensor).map_err(|error| error::to_py(py, &error));
    }
    let Ok(share) = part.cast::<Share>() else {
        return Ok(Piece::part(tensor, selection(py, tensor, part)?));
    };
    let info = tensor.info();
    match share.get().selection(info.dtype, info.shape) {
        Ok(Some(selection)) => Ok(Piece::stored(tensor.request().part(selection))),
        Ok(None) => Ok(Piece::stored(tensor.request())),
        Err(error) => Err(error::to_py(py, &error.with_tensor(info.name))),
    }
}

/// What `index` selects of `tensor`.
pub(crate) fn selection(
    py: Python<'_>,
    tensor: &Tensor<'_>,
    index: &Bound<'_, PyAny>,
) -> PyResult<Part> {
    let Asked::Basic(asked) = index::parse(index)? else {
        let message =
            "a slice takes integers, ranges, `...` and None; index the loaded tensor for more";
        return Err(error::new(py, ErrorKind::InvalidSlice, message));
    };
    Part::resolve(tensor, &asked, Bounds::Clamped)
        .map_err(|error| error::to_py(py, &error.with_tensor(tensor.info().name)))
}

fn check_given(tensor: &TensorInfo<'_>, request: &Request, spec: &TensorSpec) -> Result<()> {
    let invalid = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
    let (dtype, shape) = (tensor.dtype, shape_of(tensor, request));
    if let Some(Narrow::Values(given)) = spec.narrow {
        return invalid(format!(
            "the tensor to fill has dtype {given}, to which {dtype} cannot be cast"
        ));
    }
    if spec.shape != shape {
        let given = &spec.shape;
        return invalid(format!(
            "the tensor to fill has shape {given:?}, not {shape:?}"
        ));
    }
    if spec.dtype != dtype && !tensorhold::can_cast(dtype, spec.dtype) {
        let given = spec.dtype;
        return invalid(format!(
            "the tensor to fill has dtype {given}, to which {dtype} cannot be cast"
        ));
    }
    Ok(())
}

/// Whether `spec` is of the bytes in which PyTorch is given six-bit floats.
fn is_packed(tensor: &TensorInfo<'_>, request: &Request, spec: &TensorSpec) -> bool {
    let shape = shape_of(tensor, request);
    let has_six_bits = matches!(tensor.dtype, Dtype::F6_E2M3 | Dtype::F6_E3M2);
    let (Some((last, outer)), Some((given, given_outer))) =
        (shape.split_last(), spec.shape.split_last())
    else {
        return false;
    };
    has_six_bits
        && spec.dtype == Dtype::U8
        && spec.narrow.is_none()
        && outer == given_outer
        && last.is_multiple_of(4)
        && *given == last / 4 * 3
}

fn check_narrow(part: &NarrowSelection, spec: &TensorSpec) -> Result<()> {
    let invalid = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
    if spec.shape != part.shape() {
        let (given, shape) = (&spec.shape, part.shape());
        return invalid(format!(
            "the tensor to fill has shape {given:?}, not {shape:?}"
        ));
    }
    let dtype = part.dtype();
    let given = match spec.narrow {
        Some(Narrow::Values(given)) if given == dtype => return Ok(()),
        Some(Narrow::Values(given)) => given.to_string(),
        _ => spec.dtype.to_string(),
    };
    invalid(format!(
        "the tensor to fill has dtype {given}, to which {dtype} cannot be cast"
    ))
}

/// # Safety
/// The bytes that `spec` names must be writable and initialized as long as `hold` lives, and nobody may touch them while the
/// buffer does.
pub(crate) unsafe fn buffer_over(spec: &TensorSpec, hold: Py<PyAny>) -> Buffer {
    let start = NonNull::new(std::ptr::with_exposed_provenance_mut(
        spec.data_ptr as usize,
    ));
    let hold: Box<dyn Any + Send> = Box::new(hold);
    // SAFETY: the caller's promise; without an address there are no bytes.
    unsafe { Buffer::from_raw(start.unwrap_or(NonNull::dangling()), spec.data_len, hold) }
}

pub(crate) fn refuse_overlap(mut ranges: Vec<(u64, u64)>) -> Result<()> {
    ranges.retain(|&(_, len)| len > 0);
    ranges.sort_unstable();
    let overlaps = |pair: &[(u64, u64)]| pair[0].0 + pair[0].1 > pair[1].0;
    match ranges.windows(2).any(overlaps) {
        true => Err(Error::new(
            ErrorKind::InvalidArgument,
            "two of the tensors to fill share memory",
        )),
        false => Ok(()),
    }
}
