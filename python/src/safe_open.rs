//! The drop-in's handle on a file, and its slices.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tensorhold::{
    Backend, Bounds, Checkpoint, Error, ErrorKind, Index, OpenOptions, Rules, Tensor,
    TransferOptions,
};

use crate::collector::Paused;
use crate::error;
use crate::framework::{Framework, Ownership};
use crate::index::{self, Asked};
use crate::load::Wanted;
use crate::loader::Loader;
use crate::narrow::{Part, type_and_shape};
use crate::on_device::Targets;
use crate::placement::Placement;
use crate::prefetch;
use crate::single::Single;
use crate::tensors::{Maker, insert};

/// One open file and what its tensors are made for.
struct Opened {
    checkpoint: Checkpoint,
    maker: Maker,
    targets: Targets,
}

/// An open file, or a closed one.
struct Handle(RwLock<Option<Arc<Opened>>>);

impl Handle {
    fn open(
        py: Python<'_>,
        filename: PathBuf,
        framework: &str,
        device: Option<&Bound<'_, PyAny>>,
        backend: &str,
    ) -> PyResult<Handle> {
        let backend = parse_backend(py, backend)?;
        let maker = Maker::new(py, framework, device)?;
        let options = OpenOptions {
            rules: Rules::Compatible,
            backend,
        };
        let checkpoint = py.detach(|| Checkpoint::open_files(&[filename], &options));
        let checkpoint = checkpoint.map_err(|error| {
            error::to_py_reading(py, &error, "Error while deserializing header")
        })?;
        let module = maker.framework.module();
        py.import(if module == "paddle" || module == "torch" {
            module
        } else {
            "numpy"
        })?;
        Ok(Handle(RwLock::new(Some(Arc::new(Opened {
            checkpoint,
            maker,
            targets: Targets::default(),
        })))))
    }

    fn opened(&self, py: Python<'_>) -> PyResult<Arc<Opened>> {
        let opened = self.0.read().unwrap_or_else(PoisonError::into_inner);
        opened
            .clone()
            .ok_or_else(|| error::new(py, ErrorKind::Closed, "File is closed"))
    }

    fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The tensor with this name, or the reference's words for a file without it.
pub(crate) fn find<'a>(
    py: Python<'_>,
    checkpoint: &'a Checkpoint,
    name: &str,
) -> PyResult<Tensor<'a>> {
    checkpoint.find(name).ok_or_else(|| {
        let message = format!("File does not contain tensor {name}");
        let file = checkpoint.files()[0].path().to_string_lossy();
        let error = Error::new(ErrorKind::TensorNotFound, message.clone());
        error::with_message(py, &error.with_file(file).with_tensor(name), &message)
    })
}

fn parse_backend(py: Python<'_>, name: &str) -> PyResult<Backend> {
    match name {
        "mmap" => Ok(Backend::Mmap),
        "pread" => Ok(Backend::Pread),
        "gds" => Ok(Backend::Gds),
        _ => {
            let message = format!(
                "backend {name:?} is invalid (expected one of: \"mmap\", \"pread\", \"gds\")"
            );
            Err(error::new(py, ErrorKind::InvalidArgument, message))
        }
    }
}

impl Opened {
    fn tensor(&self, py: Python<'_>, name: &str) -> PyResult<Tensor<'_>> {
        find(py, &self.checkpoint, name)
    }

    fn single(&self) -> Single<'_> {
        Single {
            checkpoint: &self.checkpoint,
            maker: &self.maker,
            targets: &self.targets,
        }
    }

    fn names<'py>(
        &self,
        py: Python<'py>,
        by: impl FnOnce(&mut Vec<&str>),
    ) -> PyResult<Bound<'py, PyList>> {
        let mut names: Vec<&str> = self
            .checkpoint
            .tensors()
            .map(|tensor| tensor.info().name)
            .collect();
        by(&mut names);
        PyList::new(py, names)
    }

    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(metadata) = self.checkpoint.files()[0].header().metadata() else {
            return Ok(None);
        };
        let dict = PyDict::new(py);
        for (key, value) in metadata.iter() {
            dict.set_item(key, value)?;
        }
        Ok(Some(dict))
    }

    fn prefetch(
        &self,
        py: Python<'_>,
        plan: Option<&Bound<'_, PyDict>>,
        device: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Loader> {
        let placement = Placement::of(py, &self.maker, device)?;
        let wanted = match plan {
            None => Wanted::all(&self.checkpoint).map_err(|error| error::to_py(py, &error))?,
            Some(plan) => prefetch::wanted(py, &self.checkpoint, plan)?,
        };
        for dtype in wanted.dtypes() {
            placement.usual().check(py, dtype)?;
        }
        let options = TransferOptions {
            n_threads: threads,
            ..TransferOptions::default()
        };
        wanted.start(py, &placement, &self.targets, options)
    }

    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ownership = self.maker.framework.drop_in_ownership();
        let is_read = ownership == Ownership::Own || self.checkpoint.files()[0].map().is_none();
        if is_read || self.single().sends(py)? {
            let wanted = Wanted::all(&self.checkpoint).map_err(|error| error::to_py(py, &error))?;
            let placement = self.maker.clone().into();
            let options = TransferOptions::default();
            let loaded = wanted.load(py, &placement, &self.targets, options, None)?;
            return Ok(loaded.0);
        }
        let _paused = Paused::new(py);
        let dict = PyDict::new(py);
        for tensor in self.checkpoint.tensors() {
            insert(
                &dict,
                tensor.info().name,
                self.maker.whole(py, &tensor, ownership)?,
            )?;
        }
        Ok(dict)
    }
}

/// What the header says of one tensor, in the reference's words.
#[pyclass(frozen, get_all, module = "tensorhold._native")]
pub(crate) struct TensorMeta {
    /// The dtype's name in the file, such as "F32".
    dtype: &'static str,
    shape: Vec<u64>,
    /// Where the bytes lie, counted from the first of the data.
    data_offsets: (u64, u64),
}

#[pymethods]
impl TensorMeta {
    fn __repr__(&self) -> String {
        let TensorMeta {
            dtype,
            shape,
            data_offsets,
        } = self;
        format!(
            "TensorMeta {{ dtype: {dtype:?}, shape: {shape:?}, data_offsets: {data_offsets:?} }}"
        )
    }
}

/// The two handles differ in how they are opened only.
macro_rules! handle_class {
    ($(#[$doc:meta])* $class:ident, $name:literal, $($open:tt)*) => {
        $(#[$doc])*
        #[pyclass(frozen, name = $name, module = "tensorhold._native")]
        pub(crate) struct $class(Handle);

        #[pymethods]
        impl $class {
            $($open)*

            /// Returns the file's `__metadata__`, or None.
            fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
                self.0.opened(py)?.metadata(py)
            }

            /// Returns the names of the tensors, sorted.
            fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
                self.0.opened(py)?.names(py, |names| names.sort_unstable())
            }

            /// Returns the names of the tensors in the order of their bytes.
            fn offset_keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
                self.0.opened(py)?.names(py, |_| ())
            }

            /// Returns the tensor with this name.
            fn get_tensor<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
                let opened = self.0.opened(py)?;
                let ownership = opened.maker.framework.drop_in_ownership();
                opened.single().whole(py, &opened.tensor(py, name)?, ownership)
            }

            /// Returns all tensors by name, in the order of their bytes.
            fn get_tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
                self.0.opened(py)?.tensors(py)
            }

            /// Returns what the header says of the tensor with this name.
            fn get_tensor_meta(&self, py: Python<'_>, name: &str) -> PyResult<TensorMeta> {
                let opened = self.0.opened(py)?;
                let tensor = opened.tensor(py, name)?;
                let info = tensor.info();
                Ok(TensorMeta {
                    dtype: info.dtype.name(),
                    shape: info.shape.to_vec(),
                    data_offsets: (info.offsets.start, info.offsets.end),
                })
            }

            /// Begins to read tensors in the background: those that `plan` names, whole where it says None, else the slice; all where
            /// there is no plan. `threads` is how many read, if not as many as the file deserves.
            #[pyo3(signature = (plan=None, *, device=None, threads=None))]
            fn prefetch(
                &self,
                py: Python<'_>,
                plan: Option<&Bound<'_, PyDict>>,
                device: Option<&Bound<'_, PyAny>>,
                threads: Option<usize>,
            ) -> PyResult<Loader> {
                self.0.opened(py)?.prefetch(py, plan, device, threads)
            }

            /// Returns an object to slice, which reads no more than is asked for.
            fn get_slice(&self, py: Python<'_>, name: &str) -> PyResult<PySafeSlice> {
                let opened = self.0.opened(py)?;
                opened.tensor(py, name)?;
                Ok(PySafeSlice { opened, name: name.to_owned() })
            }

            fn __enter__(slf: Py<Self>) -> Py<Self> {
                slf
            }

            fn __exit__(
                &self,
                _kind: &Bound<'_, PyAny>,
                _value: &Bound<'_, PyAny>,
                _traceback: &Bound<'_, PyAny>,
            ) {
                self.0.close();
            }
        }
    };
}

handle_class!(
    /// Opens a safetensors file lazily and gives tensors as they are asked for.
    SafeOpen,
    "safe_open",
    #[new]
    #[pyo3(signature = (filename, framework, device=None, *, backend="mmap"))]
    fn new(
        py: Python<'_>,
        filename: PathBuf,
        framework: &str,
        device: Option<&Bound<'_, PyAny>>,
        backend: &str,
    ) -> PyResult<SafeOpen> {
        Handle::open(py, filename, framework, device, backend).map(SafeOpen)
    }
);

handle_class!(
    /// `safe_open` for an object with `fileno` and `name`.
    SafeOpenHandle,
    "_safe_open_handle",
    #[new]
    #[pyo3(signature = (f, framework, device=None, *, backend="mmap"))]
    fn new(
        py: Python<'_>,
        f: &Bound<'_, PyAny>,
        framework: &str,
        device: Option<&Bound<'_, PyAny>>,
        backend: &str,
    ) -> PyResult<SafeOpenHandle> {
        f.getattr(intern!(py, "fileno"))?;
        let filename: PathBuf = f.getattr(intern!(py, "name"))?.extract()?;
        Handle::open(py, filename, framework, device, backend).map(SafeOpenHandle)
    }
);

/// A tensor that is read as it is sliced.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct PySafeSlice {
    opened: Arc<Opened>,
    name: String,
}

#[pymethods]
impl PySafeSlice {
    /// Returns the shape of the whole tensor.
    fn get_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, type_and_shape(&self.opened.tensor(py, &self.name)?).1)
    }

    /// Returns the name of the tensor's dtype in the file, such as "F32".
    fn get_dtype(&self, py: Python<'_>) -> PyResult<String> {
        Ok(type_and_shape(&self.opened.tensor(py, &self.name)?).0)
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tensor = self.opened.tensor(py, &self.name)?;
        match self.opened.maker.framework {
            Framework::Torch => self.torch_item(py, &tensor, index),
            _ => self.array_item(py, &tensor, index),
        }
    }
}

impl PySafeSlice {
    /// A slice as PyTorch takes it: a view of the map where there is one, by any index that PyTorch knows.
    fn torch_item<'py>(
        &self,
        py: Python<'py>,
        tensor: &Tensor<'_>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let info = tensor.info();
        let sub_byte = info.dtype.width_bytes().is_none() || tensor.narrow().is_some();
        let rises =
            |part: &Index| !matches!(part, Index::Range { step: Some(step), .. } if *step <= 0);
        let single = self.opened.single();
        if (sub_byte || tensor.file().map().is_none() || single.sends(py)?)
            && let Asked::Basic(asked) = index::parse(index)?
            && (sub_byte || asked.iter().all(rises))
        {
            let part = Part::resolve(tensor, &asked, Bounds::Clamped)
                .map_err(|error| error::to_py(py, &error.with_tensor(info.name)))?;
            return single.part(py, tensor, part);
        }
        single.whole(py, tensor, Ownership::View)?.get_item(index)
    }

    /// A slice as the reference's own slicer takes it, with its messages.
    fn array_item<'py>(
        &self,
        py: Python<'py>,
        tensor: &Tensor<'_>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let info = tensor.info();
        let refuse = |message: String| error::new(py, ErrorKind::InvalidSlice, message);
        let asked = if let Ok(list) = index.cast::<PyList>() {
            if !list.is_empty() {
                return Err(refuse("Non empty lists are not implemented".to_owned()));
            }
            vec![Index::Range {
                start: Some(0),
                stop: Some(0),
                step: None,
            }]
        } else {
            match index::parse(index)? {
                Asked::Basic(asked) => asked,
                Asked::Other(position) => {
                    return Err(refuse(format!(
                        "Unsupported slice index at position {position}: expected slice, int, or ellipsis"
                    )));
                }
            }
        };
        let part = Part::resolve(tensor, &asked, Bounds::Checked).map_err(|error| {
            let message = match error.message() {
                words if words.starts_with("index ") => format!(
                    "Error during slicing {} with shape {:?}: {words}",
                    index::display(&asked),
                    type_and_shape(tensor).1
                ),
                words => words.to_owned(),
            };
            error::with_message(py, &error.with_tensor(info.name), &message)
        })?;
        self.opened.maker.part(py, tensor, part)
    }
}
