//! Quantized weights as tensors of numbers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyTuple};
use tensorhold::{
    Buffer, Dequantize, Dtype, Error, ErrorKind, Index, NarrowInt, NarrowTensor, Quantization,
    QuantizedWeight, Result, TransferOptions, can_cast,
};

use crate::checkpoint::{Checkpoint, Opened};
use crate::error;
use crate::index::{self, Asked};
use crate::load::{Filled, Wanted, buffer_over, dtype_named, refuse_overlap, selection};
use crate::making::Report;
use crate::memory::Memory;
use crate::narrow::{Piece, type_and_shape};
use crate::placement::Placement;
use crate::tensors::{Maker, alignment, insert, to_native_order};

/// Returns the names that tensors have without quantization, each with whether it is that of a quantized weight.
#[pyfunction]
pub(crate) fn logical_names(
    py: Python<'_>,
    checkpoint: &Bound<'_, Checkpoint>,
) -> PyResult<Vec<(String, bool)>> {
    let opened = checkpoint.get().opened(py)?;
    let names = py.detach(|| opened.checkpoint.logical_names());
    names.map_err(|error| error::to_py(py, &error))
}

/// Returns a weight to slice, quantized or not, which reads no more than is asked for.
#[pyfunction]
pub(crate) fn dequantize(
    py: Python<'_>,
    checkpoint: &Bound<'_, Checkpoint>,
    name: &str,
    dtype: Option<&str>,
) -> PyResult<DequantizedSlice> {
    let opened = checkpoint.get().opened(py)?;
    let asked = dtype.map(|name| dtype_named(py, name)).transpose()?;
    let to_py = |error: Error| error::to_py(py, &error);
    let found = py
        .detach(|| opened.checkpoint.quantization())
        .map_err(to_py)?;
    let (dtype, shape, quantization, narrow) = match found.find(name) {
        Some(weight) => {
            let wanted = wanted_of(weight, Vec::new(), asked);
            let shape = wanted.shape().map_err(to_py)?;
            (wanted.dtype(), shape, Some(Arc::clone(&found)), None)
        }
        None => {
            let tensor = opened.checkpoint.tensor(name).map_err(to_py)?;
            let (own, shape) = (tensor.info().dtype, type_and_shape(&tensor).1);
            let cast = asked.filter(|&dtype| can_cast(own, dtype));
            let narrow = tensor.narrow().map(NarrowTensor::dtype);
            (cast.unwrap_or(own), shape.to_vec(), None, narrow)
        }
    };
    Ok(DequantizedSlice {
        opened,
        quantization,
        name: name.to_owned(),
        dtype,
        narrow,
        shape,
    })
}

/// A weight that is read and made numbers of as it is sliced; ranges past the end are clamped as numpy does.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct DequantizedSlice {
    opened: Arc<Opened>,
    /// What knows the weight, if it is quantized.
    quantization: Option<Arc<Quantization>>,
    name: String,
    dtype: Dtype,
    /// The type of what is no weight, but integers narrower than a byte.
    narrow: Option<NarrowInt>,
    shape: Vec<u64>,
}

#[pymethods]
impl DequantizedSlice {
    #[getter]
    fn dtype(&self) -> String {
        match self.narrow {
            Some(narrow) => narrow.to_string(),
            None => self.dtype.name().to_owned(),
        }
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let quantization = self.quantization.as_ref();
        let Some(weight) = quantization.and_then(|all| all.find(&self.name)) else {
            return self.tensor(py, index);
        };
        let wanted = wanted_of(weight, basic(py, index)?, Some(self.dtype));
        let Opened {
            checkpoint, maker, ..
        } = &*self.opened;
        let made = py.detach(|| Ok((wanted.shape()?, checkpoint.dequantize(&wanted)?)));
        let (shape, buffer) = made.map_err(|error: Error| error::to_py(py, &error))?;
        tensor_of(py, maker, buffer, self.dtype, &shape)
    }
}

impl DequantizedSlice {
    /// A slice of a tensor that is not quantized.
    fn tensor<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Opened {
            checkpoint,
            maker,
            targets,
        } = &*self.opened;
        let tensor = checkpoint.tensor(&self.name);
        let tensor = tensor.map_err(|error| error::to_py(py, &error))?;
        let mut piece = Piece::part(&tensor, selection(py, &tensor, index)?);
        piece.request = piece.request.cast(self.dtype);
        let wanted = Wanted::of(checkpoint, vec![piece]);
        let placement = maker.clone().into();
        let options = TransferOptions::default();
        let (tensors, _) = wanted.load(py, &placement, targets, options, None)?;
        tensors.values().get_item(0)
    }
}

/// Returns the bytes that `dequantize_all` makes of these weights, and refuses what it refuses.
#[pyfunction]
pub(crate) fn dequantized_bytes(
    py: Python<'_>,
    checkpoint: &Bound<'_, Checkpoint>,
    names: &Bound<'_, PyAny>,
    dtype: Option<&str>,
) -> PyResult<u64> {
    let opened = checkpoint.get().opened(py)?;
    let dtype = dtype.map(|name| dtype_named(py, name)).transpose()?;
    let asked = asked_of(py, names)?;
    let counted = py.detach(|| {
        let quantization = opened.checkpoint.quantization()?;
        let wanted = all_wanted(&quantization, &asked, dtype)?;
        opened.checkpoint.dequantized_bytes(&wanted)
    });
    counted.map_err(|error| error::to_py(py, &error))
}

/// Returns quantized weights as tensors that own their memory, by name.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the Python function"
)]
pub(crate) fn dequantize_all<'py>(
    py: Python<'py>,
    checkpoint: &Bound<'py, Checkpoint>,
    names: &Bound<'py, PyAny>,
    device: Option<&Bound<'py, PyAny>>,
    dtype: Option<&str>,
    into: &Bound<'py, PyDict>,
    threads: Option<usize>,
    progress: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let opened = checkpoint.get().opened(py)?;
    let to_py = |error: Error| error::to_py(py, &error);
    let placement = Placement::of(py, &opened.maker, device)?;
    let dtype = dtype.map(|name| dtype_named(py, name)).transpose()?;
    let asked = asked_of(py, names)?;
    let found = py
        .detach(|| opened.checkpoint.quantization())
        .map_err(to_py)?;
    let mut wanted = all_wanted(&found, &asked, dtype).map_err(to_py)?;
    let (ends, given) = Ends::of(py, &mut wanted, into)?;
    let total = py.detach(|| opened.checkpoint.dequantized_bytes(&wanted));
    let mut telling = Telling {
        report: Report::new(total.map_err(to_py)?, progress),
        raised: None,
    };
    let made = py.detach(|| {
        let mut tell = |done| telling.tell(done);
        opened
            .checkpoint
            .dequantize_all(&wanted, given, threads, &mut tell)
    });
    if let Some(raised) = telling.raised {
        return Err(raised);
    }
    ends.tensors(py, &wanted, &placement, made.map_err(to_py)?)
}

/// Where weights go that are not to be new tensors.
#[derive(Default)]
struct Ends {
    /// Numbers of those that are made where they are to be.
    in_place: HashSet<usize>,
    /// By their numbers: what makes a tensor, and what copies it to where it is to be.
    copied: HashMap<usize, (Maker, Py<PyAny>)>,
}

impl Ends {
    /// Those of `into`, with the memory of dense ones; weights become what the tensors there are.
    fn of(
        py: Python<'_>,
        wanted: &mut [Dequantize<'_>],
        into: &Bound<'_, PyDict>,
    ) -> PyResult<(Ends, Vec<(usize, Buffer)>)> {
        let (mut ends, mut given, mut ranges) = (Ends::default(), Vec::new(), Vec::new());
        for (number, wanted) in wanted.iter_mut().enumerate() {
            let Some(item) = into.get_item(&wanted.weight().name)? else {
                continue;
            };
            let (spec, hold, framework, copy, is_copied, device) = item.extract::<Filled<'_>>()?;
            let spec = spec.get();
            *wanted = wanted.clone().cast(spec.dtype);
            check_shape(wanted, &spec.shape).map_err(|error| error::to_py(py, &error))?;
            if is_copied || device.is_some() {
                ends.copied
                    .insert(number, (Maker::new(py, &framework, None)?, copy));
                continue;
            }
            ranges.push((spec.data_ptr, spec.data_len as u64));
            // SAFETY: the front end found the tensor dense and writable, `hold` keeps it alive, and no other buffer overlaps, as
            // `refuse_overlap` checks before any is used.
            given.push((number, unsafe { buffer_over(spec, hold) }));
            ends.in_place.insert(number);
        }
        refuse_overlap(ranges).map_err(|error| error::to_py(py, &error))?;
        Ok((ends, given))
    }

    /// Tensors of what was made, by name; of those that were made elsewhere None.
    fn tensors<'py>(
        &self,
        py: Python<'py>,
        wanted: &[Dequantize<'_>],
        placement: &Placement,
        made: Vec<Buffer>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let names: Vec<&str> = wanted.iter().map(|each| &*each.weight().name).collect();
        let (makers, maker_of) = placement.makers(py, names.iter().copied())?;
        let dict = PyDict::new(py);
        for (number, (wanted, mut buffer)) in wanted.iter().zip(made).enumerate() {
            let name = names[number];
            if self.in_place.contains(&number) {
                to_native_order(&mut buffer, alignment(wanted.dtype()));
                insert(&dict, name, py.None().into_bound(py))?;
                continue;
            }
            let shape = wanted.shape().map_err(|error| error::to_py(py, &error))?;
            let copied = self.copied.get(&number);
            let maker = copied.map_or(&makers[maker_of[number]], |(maker, _)| maker);
            let mut tensor = tensor_of(py, maker, buffer, wanted.dtype(), &shape)?;
            if let Some((_, copy)) = copied {
                tensor = copy.bind(py).call1((tensor,))?;
            }
            insert(&dict, name, tensor)?;
        }
        Ok(dict)
    }
}

/// Tells Python how far it is; what it raises ends the work.
struct Telling {
    report: Report,
    raised: Option<PyErr>,
}

impl Telling {
    fn tell(&mut self, done: u64) -> Result<()> {
        if !self.report.is_due(done) {
            return Ok(());
        }
        let told = Python::attach(|py| self.report.call(py, done));
        told.map_err(|raised| {
            self.raised = Some(raised);
            Error::new(ErrorKind::InvalidArgument, "the interpreter raised")
        })
    }
}

/// Names, and the part of each that is wanted; none is all of it.
type Named = Vec<(String, Vec<Index>)>;

/// What `names` asks for: each name whole, or, of a mapping from names to indices, that part of it.
fn asked_of(py: Python<'_>, names: &Bound<'_, PyAny>) -> PyResult<Named> {
    let mut asked = Vec::new();
    if let Ok(parts) = names.cast::<PyMapping>() {
        for item in parts.items()?.iter() {
            let (name, part) = item.extract::<(String, Bound<'_, PyAny>)>()?;
            let part = match part.is_none() {
                true => Vec::new(),
                false => basic(py, &part)?,
            };
            asked.push((name, part));
        }
    } else {
        for name in names.try_iter()? {
            asked.push((name?.extract::<String>()?, Vec::new()));
        }
    }
    Ok(asked)
}

fn all_wanted<'a>(
    quantization: &'a Quantization,
    asked: &Named,
    dtype: Option<Dtype>,
) -> Result<Vec<Dequantize<'a>>> {
    let each = asked.iter().map(|(name, part)| {
        let weight = quantization.find(name).ok_or_else(|| {
            let message = "there is no such quantized weight";
            Error::new(ErrorKind::TensorNotFound, message).with_tensor(&**name)
        })?;
        Ok(wanted_of(weight, part.clone(), dtype))
    });
    each.collect()
}

fn wanted_of(weight: &QuantizedWeight, index: Vec<Index>, dtype: Option<Dtype>) -> Dequantize<'_> {
    let wanted = Dequantize::whole(weight).part(&index);
    match dtype {
        Some(dtype) => wanted.cast(dtype),
        None => wanted,
    }
}

/// What stands between the brackets, where it is integers, ranges, `...` and None.
fn basic(py: Python<'_>, index: &Bound<'_, PyAny>) -> PyResult<Vec<Index>> {
    match index::parse(index)? {
        Asked::Basic(index) => Ok(index),
        Asked::Other(_) => {
            let message =
                "a slice takes integers, ranges, `...` and None; index the loaded tensor for more";
            Err(error::new(py, ErrorKind::InvalidSlice, message))
        }
    }
}

fn check_shape(wanted: &Dequantize<'_>, given: &[u64]) -> Result<()> {
    let shape = wanted.shape()?;
    if shape == given {
        return Ok(());
    }
    let message = format!("the tensor to fill has shape {given:?}, not {shape:?}");
    let error = Error::new(ErrorKind::InvalidArgument, message);
    Err(error.with_tensor(&*wanted.weight().name))
}

fn tensor_of<'py>(
    py: Python<'py>,
    maker: &Maker,
    mut buffer: Buffer,
    dtype: Dtype,
    shape: &[u64],
) -> PyResult<Bound<'py, PyAny>> {
    to_native_order(&mut buffer, alignment(dtype));
    maker.make(py, Memory::of_owned(buffer), dtype, shape)
}
