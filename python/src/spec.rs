//! Descriptions of tensors to save, and the drop-in's `serialize` and `serialize_file`.

use std::borrow::Cow;
use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use tensorhold::{
    Dtype, Durability, Error, ErrorKind, Result, SaveOptions, TensorSpec as CoreSpec, TensorView,
    save_views,
};

use crate::error;

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
        let Some(known) = parse_dtype(dtype) else {
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
    /// The tensor's bytes.
    ///
    /// # Safety
    /// They must lie at `data_ptr` and stay unchanged while the slice is in use.
    pub(crate) unsafe fn bytes(&self) -> Result<&[u8]> {
        if self.data_len == 0 {
            return Ok(&[]);
        }
        if self.data_ptr == 0 {
            return Err(Error::new(
                ErrorKind::InvalidTensor,
                "the address of the bytes is null",
            ));
        }
        // SAFETY: the caller says that `data_len` bytes lie at `data_ptr`.
        Ok(unsafe { std::slice::from_raw_parts(self.data_ptr as *const u8, self.data_len) })
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

    /// The descriptions as the engine takes them.
    pub(crate) fn borrow(&self) -> Vec<CoreSpec<'_>> {
        let each = self.names.iter().zip(&self.specs);
        each.map(|(name, spec)| CoreSpec {
            name,
            dtype: spec.dtype,
            shape: &spec.shape,
        })
        .collect()
    }

    /// All of them, with their bytes.
    ///
    /// # Safety
    /// As for [`TensorSpec::bytes`], of all of them.
    pub(crate) unsafe fn views(&self) -> Result<Vec<TensorView<'_>>> {
        let each = self.borrow().into_iter().zip(&self.specs);
        each.map(|(core, spec)| {
            // SAFETY: the caller's promise.
            let bytes = unsafe { spec.bytes() };
            let bytes = bytes.map_err(|error| error.with_tensor(core.name))?;
            Ok(TensorView { spec: core, bytes })
        })
        .collect()
    }

    /// The bytes of the tensor at `index`.
    ///
    /// # Safety
    /// As for [`TensorSpec::bytes`], of all of them.
    pub(crate) unsafe fn bytes(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        // SAFETY: the caller's promise.
        unsafe { self.specs[index].bytes().map(Cow::Borrowed) }
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
    let metadata = metadata_of(metadata)?;
    let bytes = py.detach(|| {
        let metadata = borrow(&metadata);
        // SAFETY: the documentation of `TensorSpec` asks the caller for it.
        let bytes = |index| unsafe { named.bytes(index) };
        tensorhold::serialize(&named.borrow(), metadata.as_deref(), &DROP_IN, bytes)
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
    let metadata = metadata_of(metadata)?;
    let written = py.detach(|| {
        let metadata = borrow(&metadata);
        // SAFETY: the documentation of `TensorSpec` asks the caller for it.
        let views = unsafe { named.views()? };
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
