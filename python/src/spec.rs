//! Descriptions of tensors to save, and the drop-in's `serialize` and `serialize_file`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use tensorhold::{
    CopyQueue, DeviceView, Dtype, Durability, Error, ErrorKind, NarrowInt, RawStream, Result,
    Runtime, SaveOptions, TensorData, TensorSpec as CoreSpec, TensorView, save_views,
};

use crate::error;
use crate::narrow::{self, Narrow};

/// Describes one tensor to save: dtype, shape and where its bytes lie.
///
/// The caller keeps the bytes alive and unchanged while a save runs.
#[pyclass(frozen, module = "tensorhold._native")]
#[derive(Debug, Clone)]
pub(crate) struct TensorSpec {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
    pub(crate) data_ptr: u64,
    pub(crate) data_len: usize,
    /// Of which device `data_ptr` is an address; the host's where it is `None`.
    pub(crate) device: Option<OnDevice>,
    /// What the bytes are of integers narrower than a byte.
    pub(crate) narrow: Option<Narrow>,
}

/// A device, and the stream that what is on it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnDevice {
    pub(crate) ordinal: usize,
    pub(crate) stream: RawStream,
}

/// The same description, of bytes on a device of CUDA, or of HIP; `stream` is what writes them.
#[pyfunction]
pub(crate) fn on_device(
    spec: &Bound<'_, TensorSpec>,
    ordinal: usize,
    stream: RawStream,
) -> TensorSpec {
    TensorSpec {
        device: Some(OnDevice { ordinal, stream }),
        ..spec.get().clone()
    }
}

#[pymethods]
impl TensorSpec {
    #[new]
    #[pyo3(signature = (*, dtype, shape, data_ptr, data_len))]
    fn new(
        py: Python<'_>,
        dtype: &str,
        mut shape: Vec<u64>,
        data_ptr: u64,
        data_len: usize,
    ) -> PyResult<Self> {
        let narrow = NarrowInt::from_framework_name(dtype);
        let known = match narrow {
            Some(_) => Some(Dtype::U8),
            None => parse_dtype(dtype),
        };
        let Some(known) = known else {
            let names: Vec<&str> = Dtype::ALL
                .into_iter()
                .filter_map(Dtype::framework_name)
                .collect();
            let message = format!(
                "Unknown dtype {dtype:?}. Supported dtypes: {}",
                names.join(", ")
            );
            return Err(error::new(py, ErrorKind::InvalidArgument, message));
        };
        if let (true, Some(last)) = (dtype == PACKED_PAIRS, shape.last_mut()) {
            *last = last.checked_mul(2).ok_or_else(|| {
                let message = format!("F4 last-dim {last} doubled to logical shape overflows");
                error::new(py, ErrorKind::Overflow, message)
            })?;
        }
        Ok(TensorSpec {
            dtype: known,
            shape,
            data_ptr,
            data_len,
            device: None,
            narrow: narrow.map(Narrow::Values),
        })
    }

    /// The dtype's name in the file, such as "F32".
    #[getter]
    fn dtype(&self) -> &'static str {
        self.dtype.name()
    }

    /// The shape in elements, as in the file's header.
    #[getter]
    fn shape(&self) -> Vec<u64> {
        self.shape.clone()
    }

    /// The address of the first byte.
    #[getter]
    fn data_ptr(&self) -> u64 {
        self.data_ptr
    }

    /// The number of bytes.
    #[getter]
    fn data_len(&self) -> usize {
        self.data_len
    }

    fn __repr__(&self) -> String {
        let TensorSpec {
            dtype,
            shape,
            data_ptr,
            data_len,
            ..
        } = self;
        format!(
            "TensorSpec(dtype='{dtype}', shape={shape:?}, data_ptr={data_ptr}, data_len={data_len})"
        )
    }
}

/// PyTorch's F4, two to an element: its last dimension counts pairs.
const PACKED_PAIRS: &str = "float4_e2m1fn_x2";

fn parse_dtype(name: &str) -> Option<Dtype> {
    match name {
        "float4_e2m1fn" => Some(Dtype::F4),
        "float6_e2m3fn" => Some(Dtype::F6_E2M3),
        "float6_e3m2fn" => Some(Dtype::F6_E3M2),
        name => Dtype::from_framework_name(name),
    }
}

impl TensorSpec {
    /// The tensor's bytes, under `name`.
    ///
    /// # Safety
    /// They must lie at `data_ptr`, and stay there unchanged while what is given is in use.
    pub(crate) unsafe fn view<'a>(
        &'a self,
        name: &'a str,
        queues: &'a Queues,
    ) -> Result<TensorView<'a>> {
        let spec = CoreSpec {
            name,
            dtype: self.dtype,
            shape: &self.shape,
        };
        if let Some(Narrow::Values(dtype)) = self.narrow {
            return Err(not_packed(dtype).with_tensor(name));
        }
        // SAFETY: the caller's promise.
        let data = unsafe { self.data(queues) };
        let data = data.map_err(|error| error.with_tensor(name))?;
        Ok(TensorView { spec, data })
    }

    /// # Safety
    /// As for `view`.
    pub(crate) unsafe fn data<'a>(&'a self, queues: &'a Queues) -> Result<TensorData<'a>> {
        if self.data_len == 0 {
            return Ok(TensorData::Host(&[]));
        }
        if self.data_ptr == 0 {
            return Err(Error::new(
                ErrorKind::InvalidTensor,
                "the address of the bytes is null",
            ));
        }
        let Some(device) = self.device else {
            let start = self.data_ptr as *const u8;
            // SAFETY: the caller says that `data_len` bytes lie at `data_ptr`.
            let bytes = unsafe { std::slice::from_raw_parts(start, self.data_len) };
            return Ok(TensorData::Host(bytes));
        };
        let address = usize::try_from(self.data_ptr).expect("an address");
        let queue = queues.of(device.ordinal)?;
        // SAFETY: the caller says that `data_len` bytes lie at `data_ptr`, and keeps them for as long as saves take, which wait
        // for all that they copy.
        Ok(unsafe { DeviceView::from_raw(queue, address, self.data_len) }.into())
    }
}

fn not_packed(dtype: NarrowInt) -> Error {
    let message = format!("integers of {dtype} are stored packed, and these are not");
    Error::new(ErrorKind::InvalidTensor, message).with_hint("describe what `pack` gives")
}

/// The ways from the devices that tensors lie on.
#[derive(Debug, Default)]
pub(crate) struct Queues(Vec<(usize, Arc<CopyQueue>)>);

impl Queues {
    /// Those for `specs`, whose copies come after what the tensors' streams were given until now.
    pub(crate) fn for_all(specs: &[TensorSpec]) -> Result<Queues> {
        let mut queues = Queues::default();
        let mut seen = Vec::new();
        for device in specs.iter().filter_map(|spec| spec.device) {
            if !seen.contains(&device) {
                seen.push(device);
                queues.add(device)?;
            }
        }
        Ok(queues)
    }

    /// Lets copies from a device come after what the stream was given until now.
    pub(crate) fn add(&mut self, device: OnDevice) -> Result<()> {
        let OnDevice { ordinal, stream } = device;
        if self.of(ordinal).is_err() {
            let queue = CopyQueue::new(Runtime::find()?.device(ordinal)?)?;
            self.0.push((ordinal, queue));
        }
        self.of(ordinal)?.begin_after(stream)
    }

    fn of(&self, ordinal: usize) -> Result<&CopyQueue> {
        let found = self.0.iter().find(|(known, _)| *known == ordinal);
        found.map(|(_, queue)| &**queue).ok_or_else(|| {
            let message = format!("device {ordinal} was not asked for");
            Error::new(ErrorKind::Device, message)
        })
    }
}

/// The descriptions in a dict, with their names.
pub(crate) struct Named {
    pub(crate) names: Vec<String>,
    pub(crate) specs: Vec<TensorSpec>,
}

impl Named {
    fn of(dict: &Bound<'_, PyDict>) -> PyResult<Named> {
        let mut named = Named {
            names: Vec::with_capacity(dict.len()),
            specs: Vec::with_capacity(dict.len()),
        };
        for (name, spec) in dict.iter() {
            named.specs.push(spec.cast::<TensorSpec>()?.get().clone());
            named.names.push(text(&name, "a tensor's name")?);
        }
        Ok(named)
    }

    /// The descriptions in a list of names, descriptions and what keeps the bytes alive.
    pub(crate) fn of_items(items: &Bound<'_, PyList>) -> PyResult<Named> {
        let mut named = Named {
            names: Vec::with_capacity(items.len()),
            specs: Vec::with_capacity(items.len()),
        };
        for item in items.iter() {
            let (name, spec, _) =
                item.extract::<(String, Bound<'_, TensorSpec>, Bound<'_, PyAny>)>()?;
            named.names.push(name);
            named.specs.push(spec.get().clone());
        }
        Ok(named)
    }

    /// The bytes of all of them.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.specs.iter().map(|spec| spec.data_len as u64).sum()
    }

    /// The ways from the devices that they lie on, in order with the streams they come from.
    pub(crate) fn queues(&self) -> Result<Queues> {
        Queues::for_all(&self.specs)
    }

    /// All of them, with their bytes.
    ///
    /// # Safety
    /// As for [`TensorSpec::view`], of all of them.
    pub(crate) unsafe fn views<'a>(&'a self, queues: &'a Queues) -> Result<Vec<TensorView<'a>>> {
        let each = self.names.iter().zip(&self.specs);
        // SAFETY: the caller's promise.
        each.map(|(name, spec)| unsafe { spec.view(name, queues) })
            .collect()
    }
}

/// The metadata of a save, key by key.
pub(crate) fn metadata_of(
    metadata: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Vec<(String, String)>>> {
    let Some(metadata) = metadata else {
        return Ok(None);
    };
    let items = metadata.call_method0("items")?;
    let pairs = items.try_iter()?.map(|item| {
        let (key, value) = item?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        Ok((
            text(&key, "a key of the metadata")?,
            text(&value, "a value of the metadata")?,
        ))
    });
    pairs.collect::<PyResult<_>>().map(Some)
}

/// The text of a `str`; a TypeError that says `what` it should have been where it is none.
fn text(value: &Bound<'_, PyAny>, what: &str) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_cow()?.into_owned()),
        Err(_) => {
            let found = value.get_type().name()?;
            let shown = value.repr()?;
            let message = format!("{what} must be a `str`, not the `{found}` {shown}");
            Err(PyTypeError::new_err(message))
        }
    }
}

/// The metadata as the engine takes it.
pub(crate) fn borrow(metadata: &Option<Vec<(String, String)>>) -> Option<Vec<(&str, &str)>> {
    let pairs = metadata.as_ref()?;
    Some(
        pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
    )
}

/// The bytes that the reference writes, without a wait for the disk.
const DROP_IN: SaveOptions = SaveOptions {
    align: None,
    durability: Durability::None,
};

/// Returns the bytes of a file with these tensors.
#[pyfunction]
#[pyo3(signature = (tensor_dict, metadata=None))]
pub(crate) fn serialize<'py>(
    py: Python<'py>,
    tensor_dict: &Bound<'py, PyDict>,
    metadata: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let named = Named::of(tensor_dict)?;
    let metadata = narrow::described(&named, metadata_of(metadata)?);
    let bytes = py.detach(|| {
        let metadata = borrow(&metadata);
        let queues = named.queues()?;
        // SAFETY: the documentation of `TensorSpec` asks the caller for it.
        let views = unsafe { named.views(&queues)? };
        tensorhold::serialize_views(&views, metadata.as_deref(), &DROP_IN)
    });
    let bytes = bytes.map_err(|error| refusal(py, &error))?;
    Ok(PyBytes::new(py, &bytes))
}

/// Writes a file with these tensors, whole or not at all.
#[pyfunction]
#[pyo3(signature = (tensor_dict, filename, metadata=None))]
pub(crate) fn serialize_file(
    py: Python<'_>,
    tensor_dict: &Bound<'_, PyDict>,
    filename: PathBuf,
    metadata: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let named = Named::of(tensor_dict)?;
    let metadata = narrow::described(&named, metadata_of(metadata)?);
    let written = py.detach(|| {
        let metadata = borrow(&metadata);
        let queues = named.queues()?;
        // SAFETY: the documentation of `TensorSpec` asks the caller for it.
        let views = unsafe { named.views(&queues)? };
        let mut progress = |_| Ok(());
        save_views(
            &filename,
            &views,
            metadata.as_deref(),
            &DROP_IN,
            &mut progress,
        )
    });
    written.map_err(|error| refusal(py, &error))
}

fn refusal(py: Python<'_>, error: &Error) -> PyErr {
    error::with_message(py, error, &format!("Error while serializing: {error}"))
}
