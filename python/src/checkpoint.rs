//! The new API's checkpoint: many files, one table.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tensorhold::{Backend, Bounds, ErrorKind, OpenOptions, Rules, Selection, Tensor};

use crate::error;
use crate::framework::Ownership;
use crate::index::{self, Asked};
use crate::tensors::{Maker, insert};

struct Opened {
    checkpoint: tensorhold::Checkpoint,
    maker: Maker,
}

impl Opened {
    fn tensor(&self, py: Python<'_>, name: &str) -> PyResult<Tensor<'_>> {
        self.checkpoint
            .tensor(name)
            .map_err(|error| error::to_py(py, &error))
    }
}

/// The tensors of a file, a folder, an index or a list of files.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct Checkpoint(RwLock<Option<Arc<Opened>>>);

impl Checkpoint {
    fn opened(&self, py: Python<'_>) -> PyResult<Arc<Opened>> {
        let opened = self.0.read().unwrap_or_else(PoisonError::into_inner);
        opened
            .clone()
            .ok_or_else(|| error::new(py, ErrorKind::Closed, "the checkpoint is closed"))
    }
}

#[pymethods]
impl Checkpoint {
    #[new]
    fn new(
        py: Python<'_>,
        source: &Bound<'_, PyAny>,
        framework: &str,
        device: Option<&Bound<'_, PyAny>>,
        strict: bool,
        backend: &str,
    ) -> PyResult<Checkpoint> {
        let rules = if strict {
            Rules::Strict
        } else {
            Rules::Compatible
        };
        let options = OpenOptions {
            rules,
            backend: parse_backend(py, backend)?,
        };
        let maker = Maker::new(py, framework, device)?;
        let opened = match path_of(source)? {
            Some(path) => py.detach(|| tensorhold::Checkpoint::open(path, &options)),
            None => {
                let paths: PyResult<Vec<PathBuf>> =
                    source.try_iter()?.map(|path| path?.extract()).collect();
                let paths = paths?;
                py.detach(|| tensorhold::Checkpoint::open_files(&paths, &options))
            }
        };
        let checkpoint = opened.map_err(|error| error::to_py(py, &error))?;
        Ok(Checkpoint(RwLock::new(Some(Arc::new(Opened {
            checkpoint,
            maker,
        })))))
    }

    /// Returns the names, file by file, in the order of their bytes.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let opened = self.opened(py)?;
        let names: Vec<&str> = opened
            .checkpoint
            .tensors()
            .map(|tensor| tensor.info().name)
            .collect();
        PyList::new(py, names)
    }

    /// Returns whether a tensor has this name.
    fn contains(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        Ok(self.opened(py)?.checkpoint.find(name).is_some())
    }

    /// Returns how many tensors there are.
    fn n_tensors(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.opened(py)?.checkpoint.n_tensors())
    }

    /// Returns what the header says of a tensor.
    fn info(&self, py: Python<'_>, name: &str) -> PyResult<TensorInfo> {
        let opened = self.opened(py)?;
        let tensor = opened.tensor(py, name)?;
        let info = tensor.info();
        Ok(TensorInfo {
            name: info.name.to_owned(),
            dtype: info.dtype.name(),
            shape: info.shape.to_vec(),
            offsets: (info.offsets.start, info.offsets.end),
            file: tensor.file().path().to_string_lossy().into_owned(),
        })
    }

    /// Returns the `__metadata__` of all files; of a key in several, the first file's value.
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let opened = self.opened(py)?;
        let dict = PyDict::new(py);
        for (key, value) in opened.checkpoint.metadata() {
            dict.set_item(key, value)?;
        }
        Ok(dict)
    }

    /// Returns the paths of the files.
    fn files(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let opened = self.opened(py)?;
        Ok(opened
            .checkpoint
            .files()
            .iter()
            .map(|file| file.path().to_string_lossy().into_owned())
            .collect())
    }

    /// Returns a tensor: a view of the file's map where there is one.
    fn tensor<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let opened = self.opened(py)?;
        opened
            .maker
            .whole(py, &opened.tensor(py, name)?, Ownership::View)
    }

    /// Returns an object to slice, which reads no more than is asked for.
    fn slice(&self, py: Python<'_>, name: &str) -> PyResult<TensorSlice> {
        let opened = self.opened(py)?;
        opened.tensor(py, name)?;
        Ok(TensorSlice {
            opened,
            name: name.to_owned(),
        })
    }

    /// Returns tensors that own their memory, by name.
    fn load<'py>(
        &self,
        py: Python<'py>,
        names: Option<Vec<String>>,
        device: Option<&Bound<'py, PyAny>>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let opened = self.opened(py)?;
        let maker = match device {
            Some(_) => {
                let maker = Maker {
                    framework: opened.maker.framework,
                    device: crate::device::Device::parse(device)?,
                };
                maker.device.check(py, maker.framework)?;
                maker
            }
            None => opened.maker.clone(),
        };
        let tensors: Vec<Tensor<'_>> = match &names {
            Some(names) => names
                .iter()
                .map(|name| opened.tensor(py, name))
                .collect::<PyResult<_>>()?,
            None => opened.checkpoint.tensors().collect(),
        };
        let total: u64 = tensors
            .iter()
            .map(|tensor| tensor.info().size_bytes())
            .sum();
        let mut done = 0;
        let dict = PyDict::new(py);
        for tensor in tensors {
            insert(
                &dict,
                tensor.info().name,
                maker.whole(py, &tensor, Ownership::Own)?,
            )?;
            done += tensor.info().size_bytes();
            if let Some(progress) = progress {
                progress.call1((done, total))?;
            }
        }
        Ok(dict)
    }

    /// Closes the files; tensors that were given stay.
    fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The path that a `str`, bytes or path object names; `None` for anything else.
fn path_of(source: &Bound<'_, PyAny>) -> PyResult<Option<PathBuf>> {
    let is_path = source.is_instance_of::<PyString>()
        || source.is_instance_of::<PyBytes>()
        || source.hasattr("__fspath__")?;
    if !is_path {
        return Ok(None);
    }
    let decoded = source
        .py()
        .import("os")?
        .call_method1("fsdecode", (source,))?;
    decoded.extract().map(Some)
}

fn parse_backend(py: Python<'_>, name: &str) -> PyResult<Backend> {
    match name {
        "auto" => Ok(Backend::Auto),
        "mmap" => Ok(Backend::Mmap),
        "pread" => Ok(Backend::Pread),
        _ => {
            let message = format!("backend `{name}` is none of `auto`, `mmap`, `pread`");
            Err(error::new(py, ErrorKind::InvalidArgument, message))
        }
    }
}

/// What the header says of one tensor.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct TensorInfo {
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    dtype: &'static str,
    shape: Vec<u64>,
    #[pyo3(get)]
    offsets: (u64, u64),
    #[pyo3(get)]
    file: String,
}

#[pymethods]
impl TensorInfo {
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    #[getter]
    fn size_bytes(&self) -> u64 {
        self.offsets.1 - self.offsets.0
    }

    fn __repr__(&self) -> String {
        let TensorInfo {
            name,
            dtype,
            shape,
            file,
            ..
        } = self;
        format!("TensorInfo(name={name:?}, dtype={dtype:?}, shape={shape:?}, file={file:?})")
    }
}

/// A tensor that is read as it is sliced; ranges past the end are clamped as numpy does.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct TensorSlice {
    opened: Arc<Opened>,
    name: String,
}

#[pymethods]
impl TensorSlice {
    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.opened.tensor(py, &self.name)?.info().dtype.name())
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.opened.tensor(py, &self.name)?.info().shape)
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tensor = self.opened.tensor(py, &self.name)?;
        let info = tensor.info();
        let Asked::Basic(asked) = index::parse(index)? else {
            let message =
                "a slice takes integers, ranges, `...` and None; index the loaded tensor for more";
            return Err(error::new(py, ErrorKind::InvalidSlice, message));
        };
        let selection = Selection::resolve(info.dtype, info.shape, &asked, Bounds::Clamped)
            .map_err(|error| error::to_py(py, &error.with_tensor(info.name)))?;
        self.opened.maker.part(py, &tensor, &selection)
    }
}
