//! PyTorch tensors over memory, and memory under PyTorch tensors.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3::{ffi, intern};
use tensorhold::{Dtype, ErrorKind, RawStream, Runtime, shape_size_bytes};

use crate::collector::Paused;
use crate::dlpack::{self, DataType, Dims, Exchange};
use crate::error;
use crate::memory::Memory;
use crate::on_device::is_runtime_named;
use crate::spec::{OnDevice, TensorSpec};

/// What this process's PyTorch offers.
struct Torch {
    taker: Taker,
    tensor_type: Py<PyAny>,
    parameter_type: Py<PyAny>,
    strided: Py<PyAny>,
    types: [Option<Type>; Dtype::ALL.len()],
}

struct Type {
    dtype: Py<PyAny>,
    /// Whether DLPack carries the type itself; if not, bytes are taken and viewed as it.
    direct: bool,
}

/// What makes tensors over memory.
enum Taker {
    Exchange(Exchange),
    /// A function that takes a capsule.
    FromCapsule(Py<PyAny>),
}

static TORCH: PyOnceLock<Torch> = PyOnceLock::new();

fn torch(py: Python<'_>) -> PyResult<&Torch> {
    TORCH.get_or_try_init(py, || Torch::probe(py))
}

impl Torch {
    fn probe(py: Python<'_>) -> PyResult<Torch> {
        let module = py.import("torch")?;
        let tensor_type = module.getattr("Tensor")?;
        let taker = Taker::probe(&module, &tensor_type)?;
        let types = Dtype::ALL.map(|dtype| {
            let object = module.getattr(dtype.framework_name()?).ok()?;
            let direct = taker.carries(dtype, &object);
            Some(Type {
                dtype: object.unbind(),
                direct,
            })
        });
        Ok(Torch {
            taker,
            tensor_type: tensor_type.unbind(),
            parameter_type: module.getattr("nn")?.getattr("Parameter")?.unbind(),
            strided: module.getattr("strided")?.unbind(),
            types,
        })
    }
}

impl Taker {
    fn probe(module: &Bound<'_, PyAny>, tensor_type: &Bound<'_, PyAny>) -> PyResult<Taker> {
        if let Some(exchange) = Exchange::of(tensor_type) {
            let taker = Taker::Exchange(exchange);
            if taker.carries(Dtype::U8, &module.getattr("uint8")?) {
                return Ok(taker);
            }
        }
        let internals = module.getattr("_C");
        let from_dlpack = internals.and_then(|internals| internals.getattr("_from_dlpack"));
        let from_dlpack = from_dlpack.or_else(|_| {
            let public = module.getattr("utils")?.getattr("dlpack")?;
            public.getattr("from_dlpack")
        })?;
        Ok(Taker::FromCapsule(from_dlpack.unbind()))
    }

    fn tensor<'py>(
        &self,
        py: Python<'py>,
        memory: Memory,
        dtype: DataType,
        dims: Dims,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Taker::Exchange(exchange) => exchange.tensor(py, memory, dtype, dims),
            Taker::FromCapsule(function) => {
                let capsule = dlpack::capsule(py, memory, dtype, dims)?;
                function.bind(py).call1((capsule,))
            }
        }
    }

    /// Whether it makes a tensor of the right type out of `dtype`.
    fn carries(&self, dtype: Dtype, object: &Bound<'_, PyAny>) -> bool {
        let py = object.py();
        let made = || -> PyResult<bool> {
            let Some(data_type) = DataType::of(dtype) else {
                return Ok(false);
            };
            let memory = Memory::filled(8, |_| Ok(())).map_err(|error| error::to_py(py, &error))?;
            let tensor = self.tensor(py, memory, data_type, Dims::one(1))?;
            tensor.getattr("dtype")?.eq(object)
        };
        made().unwrap_or(false)
    }
}

/// Whether this PyTorch has a type for `dtype`.
pub(crate) fn has(py: Python<'_>, dtype: Dtype) -> PyResult<bool> {
    Ok(torch(py)?.types[carrier(dtype) as usize].is_some())
}

/// A tensor over `memory`, which it keeps alive, with a storage of its own.
pub(crate) fn tensor<'py>(
    py: Python<'py>,
    memory: Memory,
    dtype: Dtype,
    shape: &[u64],
) -> PyResult<Bound<'py, PyAny>> {
    let torch = torch(py)?;
    let Type {
        dtype: object,
        direct,
    } = type_of(py, dtype)?;
    let shape = storage_shape(py, dtype, shape)?;
    if memory.len() == 0 && shape.len() > 1 {
        // Other dimensions of an empty tensor can pass what strides can count.
        let empty = tensor(py, memory, dtype, &[0]);
        return empty?.call_method1(intern!(py, "reshape"), (PyTuple::new(py, shape.iter())?,));
    }
    if *direct {
        let data_type =
            DataType::of(carrier(dtype)).expect("a type that was carried has DLPack's words");
        return torch.taker.tensor(py, memory, data_type, shape);
    }
    let n_bytes = Dims::one(i64::try_from(memory.len())?);
    let bytes = torch.taker.tensor(py, memory, DataType::U8, n_bytes)?;
    bytes
        .call_method1(intern!(py, "view"), (object,))?
        .call_method1(intern!(py, "view"), (PyTuple::new(py, shape.iter())?,))
}

/// A tensor of PyTorch's own making, with no bytes of note.
pub(crate) fn empty<'py>(
    py: Python<'py>,
    dtype: Dtype,
    shape: &[u64],
    device: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "dtype"), type_of(py, dtype)?.dtype.bind(py))?;
    keywords.set_item(intern!(py, "device"), device)?;
    let shape = PyTuple::new(py, storage_shape(py, dtype, shape)?.iter())?;
    let module = py.import(intern!(py, "torch"))?;
    module.call_method(intern!(py, "empty"), (shape,), Some(&keywords))
}

/// PyTorch's type for `dtype`.
fn type_of(py: Python<'_>, dtype: Dtype) -> PyResult<&Type> {
    torch(py)?.types[carrier(dtype) as usize]
        .as_ref()
        .ok_or_else(|| {
            let message = format!("this PyTorch has no type for {dtype}");
            error::new(py, ErrorKind::InvalidArgument, message)
        })
}

/// The type that stands for `dtype` in PyTorch, which has none of 6 bits: their bytes are given as they are packed.
fn carrier(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::F6_E2M3 | Dtype::F6_E3M2 => Dtype::U8,
        other => other,
    }
}

/// The shape that PyTorch stores: F4 lies in pairs along the last dimension, F6 in groups of four, which are three bytes.
fn storage_shape(py: Python<'_>, dtype: Dtype, shape: &[u64]) -> PyResult<Dims> {
    let mut dims = Dims::of(shape, i64::try_from).map_err(|_| {
        let message = format!("PyTorch counts dimensions below 2^63: got {shape:?}");
        error::new(py, ErrorKind::Overflow, message)
    })?;
    if dtype == Dtype::F4 {
        match dims.last_mut() {
            Some(last) if *last % 2 == 0 => *last /= 2,
            _ => {
                let message = format!(
                    "f4_x2 dtype requires that the last dim be divisible by 2 in torch: got {shape:?}"
                );
                return Err(error::new(py, ErrorKind::Misaligned, message));
            }
        }
    }
    if let Dtype::F6_E2M3 | Dtype::F6_E3M2 = dtype {
        match dims.last_mut() {
            Some(last) if *last % 4 == 0 => *last = *last / 4 * 3,
            _ => {
                let message = format!(
                    "{dtype} is given as packed bytes in torch, so the last dim must be divisible by 4: got {shape:?}"
                );
                return Err(error::new(py, ErrorKind::Misaligned, message));
            }
        }
    }
    Ok(dims)
}

/// PyTorch's current stream of a device of CUDA, or of HIP, where the engine can copy from it; `None` where it cannot.
#[pyfunction]
pub(crate) fn torch_stream(py: Python<'_>, ordinal: usize) -> PyResult<Option<RawStream>> {
    let runtime = match Runtime::find() {
        // The double knows nothing of PyTorch's devices.
        Ok(runtime) if runtime.is_double() => return Ok(None),
        Ok(runtime) => runtime,
        Err(error) if is_runtime_named() => return Err(error::to_py(py, &error)),
        // PyTorch copies to the host then.
        Err(_) => return Ok(None),
    };
    if let Err(error) = runtime.device(ordinal) {
        return match is_runtime_named() {
            true => Err(error::to_py(py, &error)),
            false => Ok(None),
        };
    }
    let cuda = py.import("torch")?.getattr(intern!(py, "cuda"))?;
    let stream = cuda.call_method1(intern!(py, "current_stream"), (ordinal,))?;
    stream
        .getattr(intern!(py, "cuda_stream"))?
        .extract()
        .map(Some)
}

/// The streams of the devices that were met, each asked for once.
#[derive(Default)]
struct Streams(Vec<(usize, Option<RawStream>)>);

impl Streams {
    /// The device of a tensor, none of the host's; `None` where the engine cannot read it.
    fn device_of(&mut self, tensor: &Bound<'_, PyAny>) -> PyResult<Option<Option<OnDevice>>> {
        let py = tensor.py();
        if tensor.getattr(intern!(py, "is_cpu"))?.is_truthy()? {
            return Ok(Some(None));
        }
        match tensor.getattr(intern!(py, "is_cuda"))?.is_truthy()? {
            true => Ok(self.place(tensor)?.map(Some)),
            false => Ok(None),
        }
    }

    /// Where a tensor of CUDA, or of HIP, lies; `None` where the engine cannot copy from it.
    fn place(&mut self, tensor: &Bound<'_, PyAny>) -> PyResult<Option<OnDevice>> {
        let py = tensor.py();
        let ordinal: usize = tensor.call_method0(intern!(py, "get_device"))?.extract()?;
        let known = self.0.iter().find(|(known, _)| *known == ordinal);
        let stream = match known {
            Some(&(_, stream)) => stream,
            None => {
                let stream = torch_stream(py, ordinal)?;
                self.0.push((ordinal, stream));
                stream
            }
        };
        Ok(stream.map(|stream| OnDevice { ordinal, stream }))
    }
}

/// Descriptions of dense, contiguous tensors in host memory or where the engine can copy from, no two of one storage; `None` where anything is otherwise,
/// which the front end then looks into.
#[pyfunction]
pub(crate) fn torch_flatten<'py>(
    py: Python<'py>,
    tensors: &Bound<'py, PyAny>,
    hold: &Bound<'py, PyList>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Ok(tensors) = tensors.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    if cfg!(target_endian = "big") {
        return Ok(None);
    }
    let torch = torch(py)?;
    let _paused = Paused::new(py);
    let specs = PyDict::new(py);
    let mut storages = Vec::with_capacity(tensors.len());
    let mut streams = Streams::default();
    for (name, tensor) in tensors.iter() {
        // A tensor without sizes or an address raises; the front end then says which one it is.
        let Ok(Some(described)) = describe(torch, &mut streams, &tensor) else {
            return Ok(None);
        };
        if !name.is_instance_of::<PyString>() {
            return Ok(None);
        }
        if described.storage_ptr != 0 {
            storages.push(described.storage_ptr);
        }
        specs.set_item(&name, Bound::new(py, described.spec)?)?;
        hold.append(tensor)?;
    }
    storages.sort_unstable();
    let shared = storages.windows(2).any(|pair| pair[0] == pair[1]);
    Ok((!shared).then_some(specs))
}

struct Described {
    spec: TensorSpec,
    storage_ptr: u64,
}

fn describe(
    torch: &Torch,
    streams: &mut Streams,
    tensor: &Bound<'_, PyAny>,
) -> PyResult<Option<Described>> {
    let py = tensor.py();
    if !is_plain(torch, tensor)? {
        return Ok(None);
    }
    let Some(device) = streams.device_of(tensor)? else {
        return Ok(None);
    };
    let Some((dtype, shape)) = type_and_shape(torch, tensor)? else {
        return Ok(None);
    };
    let Ok(size_bytes) = shape_size_bytes(dtype, &shape) else {
        return Ok(None);
    };
    let data_ptr = address(&tensor.call_method0(intern!(py, "data_ptr"))?)?;
    let storage = tensor.call_method0(intern!(py, "untyped_storage"))?;
    let storage_ptr = address(&storage.call_method0(intern!(py, "data_ptr"))?)?;
    if size_bytes > 0 && data_ptr == 0 {
        return Ok(None);
    }
    let data_len = usize::try_from(size_bytes)?;
    Ok(Some(Described {
        spec: TensorSpec {
            dtype,
            shape,
            data_ptr,
            data_len,
            device,
            narrow: None,
        },
        storage_ptr,
    }))
}

/// Whether the bytes of its elements lie one after the other.
fn is_plain(torch: &Torch, tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = tensor.py();
    let kind = tensor.get_type();
    if !kind.is(&torch.tensor_type) && !kind.is(&torch.parameter_type) {
        return Ok(false);
    }
    let is = |name: &Bound<'_, PyString>| tensor.call_method0(name)?.is_truthy();
    Ok(tensor.getattr(intern!(py, "layout"))?.is(&torch.strided)
        && is(intern!(py, "is_contiguous"))?
        && !is(intern!(py, "is_neg"))?
        && !is(intern!(py, "is_conj"))?)
}

/// Dtype and shape as the file has them; `None` where it cannot have them.
fn type_and_shape(torch: &Torch, tensor: &Bound<'_, PyAny>) -> PyResult<Option<(Dtype, Vec<u64>)>> {
    let py = tensor.py();
    let Some(dtype) = dtype_of(torch, &tensor.getattr(intern!(py, "dtype"))?) else {
        return Ok(None);
    };
    let mut shape: Vec<u64> = tensor.getattr(intern!(py, "shape"))?.extract()?;
    if dtype == Dtype::F4 {
        match shape.last_mut() {
            Some(last) => *last *= 2,
            None => return Ok(None),
        }
    }
    Ok(Some((dtype, shape)))
}

fn dtype_of(torch: &Torch, object: &Bound<'_, PyAny>) -> Option<Dtype> {
    let is = |known: &Option<Type>| known.as_ref().is_some_and(|known| object.is(&known.dtype));
    Dtype::ALL
        .into_iter()
        .zip(&torch.types)
        .find(|(_, known)| is(known))
        .map(|(dtype, _)| dtype)
}

/// An address that Python holds as an int.
fn address(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    // SAFETY: `value` is a live object; what is no int raises, which is looked for.
    let address = unsafe { ffi::PyLong_AsUnsignedLongLong(value.as_ptr()) };
    match PyErr::take(value.py()) {
        Some(error) if address == u64::MAX => Err(error),
        _ => Ok(address),
    }
}
