//! The new API's checkpoint: many files, one table.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tensorhold::{
    Backend, Dtype, Error, ErrorKind, File, Header, LoadPlan, OpenOptions, PlacedTensor, Rules,
    Tensor, TransferOptions,
};

use crate::error;
use crate::framework::Ownership;
use crate::load::{Wanted, dtype_named, selection};
use crate::loader::Loader;
use crate::narrow::type_and_shape;
use crate::on_device::Targets;
use crate::parallel::{self, Asked};
use crate::placement::Placement;
use crate::quantization::{Logical, Quantization};
use crate::single::Single;
use crate::stats::Stats;
use crate::tensors::Maker;

pub(crate) struct Opened {
    pub(crate) checkpoint: tensorhold::Checkpoint,
    pub(crate) maker: Maker,
    pub(crate) targets: Targets,
}

impl Opened {
    fn tensor(&self, py: Python<'_>, name: &str) -> PyResult<Tensor<'_>> {
        self.checkpoint
            .tensor(name)
            .map_err(|error| error::to_py(py, &error))
    }

    fn single(&self) -> Single<'_> {
        Single {
            checkpoint: &self.checkpoint,
            maker: &self.maker,
            targets: &self.targets,
        }
    }
}

/// The tensors of a file, a folder, an index or a list of files.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct Checkpoint(RwLock<Option<Arc<Opened>>>);

/// Name, dtype, shape and position of a tensor.
type PlacedRow = (String, String, Vec<u64>, u64);

fn open_placed(path: &Path, rows: &[PlacedRow], backend: Backend) -> tensorhold::Result<File> {
    let mut tensors = Vec::with_capacity(rows.len());
    for (name, dtype, shape, start) in rows {
        let dtype = Dtype::from_name(dtype.as_bytes()).ok_or_else(|| {
            let message = format!("dtype `{dtype}` is none that a file can hold");
            Error::new(ErrorKind::InvalidArgument, message)
        })?;
        tensors.push(PlacedTensor {
            name,
            dtype,
            shape,
            start: *start,
        });
    }
    File::open_as(path, backend, |source| {
        Header::of_placed(&tensors, None, source.size_bytes())
    })
}

impl Checkpoint {
    pub(crate) fn of(checkpoint: tensorhold::Checkpoint, maker: Maker) -> Checkpoint {
        Checkpoint(RwLock::new(Some(Arc::new(Opened {
            checkpoint,
            maker,
            targets: Targets::default(),
        }))))
    }

    pub(crate) fn opened(&self, py: Python<'_>) -> PyResult<Arc<Opened>> {
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
        quantization_config: Option<String>,
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
        let mut checkpoint = opened.map_err(|error| error::to_py(py, &error))?;
        if let Some(text) = quantization_config {
            checkpoint = checkpoint.with_quantization_config(text);
        }
        Ok(Checkpoint::of(checkpoint, maker))
    }

    /// Returns files of any format, each a path and its table: for each tensor its name, dtype, shape and position.
    #[staticmethod]
    fn placed(
        py: Python<'_>,
        files: Vec<(PathBuf, Vec<PlacedRow>)>,
        framework: &str,
        device: Option<&Bound<'_, PyAny>>,
        backend: &str,
    ) -> PyResult<Checkpoint> {
        let backend = parse_backend(py, backend)?;
        let maker = Maker::new(py, framework, device)?;
        let opened = py.detach(|| {
            let files = files
                .iter()
                .map(|(path, rows)| open_placed(path, rows, backend));
            tensorhold::Checkpoint::of_files(files.collect::<tensorhold::Result<_>>()?)
        });
        let checkpoint = opened.map_err(|error| error::to_py(py, &error))?;
        Ok(Checkpoint::of(checkpoint, maker))
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
        Ok(TensorInfo::of(&opened.tensor(py, name)?))
    }

    /// Returns what of the checkpoint is quantized.
    fn quantization(&self, py: Python<'_>) -> PyResult<Quantization> {
        let opened = self.opened(py)?;
        let found = py.detach(|| opened.checkpoint.quantization());
        let found = found.map_err(|error| error::to_py(py, &error))?;
        Quantization::of(py, &opened.checkpoint, &found)
    }

    /// Returns dtype and shape of a weight as it is without quantization.
    fn logical(&self, py: Python<'_>, name: &str) -> PyResult<Logical> {
        let opened = self.opened(py)?;
        let found = py.detach(|| opened.checkpoint.logical(name));
        found
            .map(Logical::of)
            .map_err(|error| error::to_py(py, &error))
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
        let tensor = opened.tensor(py, name)?;
        opened.single().whole(py, &tensor, Ownership::View)
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

    /// Returns tensors that own their memory, by name, and what was done to load them.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the Python function"
    )]
    #[pyo3(signature = (names, device, dtype, into, threads, cores, progress))]
    fn load<'py>(
        &self,
        py: Python<'py>,
        names: Option<&Bound<'py, PyAny>>,
        device: Option<&Bound<'py, PyAny>>,
        dtype: Option<&str>,
        into: Option<&Bound<'py, PyDict>>,
        threads: Option<usize>,
        cores: Option<usize>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyDict>, Stats)> {
        let opened = self.opened(py)?;
        let placement = Placement::of(py, &opened.maker, device)?;
        let dtype = dtype.map(|name| dtype_named(py, name)).transpose()?;
        let mut wanted = Wanted::named(py, &opened.checkpoint, names)?.cast(dtype);
        if let Some(into) = into {
            wanted = wanted.into_given(py, into, &opened.targets)?;
        }
        let options = TransferOptions {
            n_threads: threads,
            n_cores: cores,
            memory_limit: None,
        };
        wanted.load(py, &placement, &opened.targets, options, progress)
    }

    /// Begins to read tensors in the background.
    #[pyo3(signature = (names, device, dtype, memory_limit, threads))]
    fn prefetch(
        &self,
        py: Python<'_>,
        names: Option<&Bound<'_, PyAny>>,
        device: Option<&Bound<'_, PyAny>>,
        dtype: Option<&str>,
        memory_limit: Option<u64>,
        threads: Option<usize>,
    ) -> PyResult<Loader> {
        let opened = self.opened(py)?;
        let placement = Placement::of(py, &opened.maker, device)?;
        let options = TransferOptions {
            n_threads: threads,
            memory_limit,
            ..TransferOptions::default()
        };
        let dtype = dtype.map(|name| dtype_named(py, name)).transpose()?;
        let wanted = Wanted::named(py, &opened.checkpoint, names)?.cast(dtype);
        wanted.start(py, &placement, &opened.targets, options)
    }

    /// Returns what a load of `names` would read, for people to look at.
    #[pyo3(signature = (names, dtype))]
    fn plan(
        &self,
        py: Python<'_>,
        names: Option<&Bound<'_, PyAny>>,
        dtype: Option<&str>,
    ) -> PyResult<PlanView> {
        let opened = self.opened(py)?;
        let dtype = dtype.map(|name| dtype_named(py, name)).transpose()?;
        let wanted = Wanted::named(py, &opened.checkpoint, names)?.cast(dtype);
        let plan = wanted.into_plan();
        plan.map(PlanView).map_err(|error| error::to_py(py, &error))
    }

    /// Returns what a rank of a mesh holds, by name.
    fn shares<'py>(&self, py: Python<'py>, asked: Asked<'py>) -> PyResult<Bound<'py, PyDict>> {
        parallel::shares(py, &self.opened(py)?.checkpoint, asked)
    }

    /// Returns the size of the files, how much of it is in the page cache (`None` if unknown), and whether a file is on a network.
    fn residence(&self, py: Python<'_>) -> PyResult<(u64, Option<u64>, bool)> {
        let opened = self.opened(py)?;
        let found = py.detach(|| opened.checkpoint.residence());
        let found = found.map_err(|error| error::to_py(py, &error))?;
        Ok((found.size_bytes, found.cached_bytes, found.is_network))
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

pub(crate) fn parse_backend(py: Python<'_>, name: &str) -> PyResult<Backend> {
    match name {
        "auto" => Ok(Backend::Auto),
        "mmap" => Ok(Backend::Mmap),
        "pread" => Ok(Backend::Pread),
        "direct" => Ok(Backend::Direct),
        "shared" => Ok(Backend::Shared),
        "gds" => Ok(Backend::Gds),
        _ => {
            let message = format!(
                "backend `{name}` is none of `auto`, `mmap`, `pread`, `direct`, `shared`, `gds`"
            );
            Err(error::new(py, ErrorKind::InvalidArgument, message))
        }
    }
}

/// What a load would read, and where it would go.
#[pyclass(frozen, name = "LoadPlan", module = "tensorhold._native")]
pub(crate) struct PlanView(LoadPlan);

#[pymethods]
impl PlanView {
    /// The bytes that the tensors take.
    #[getter]
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn __len__(&self) -> usize {
        self.0.requests().len()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        let (n_tensors, size_bytes) = (self.__len__(), self.size_bytes());
        format!("LoadPlan({n_tensors} tensors, {size_bytes} bytes)")
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
    position: u64,
    #[pyo3(get)]
    file: String,
}

impl TensorInfo {
    pub(crate) fn of(tensor: &Tensor<'_>) -> TensorInfo {
        let info = tensor.info();
        TensorInfo {
            name: info.name.to_owned(),
            dtype: info.dtype.name(),
            shape: info.shape.to_vec(),
            offsets: (info.offsets.start, info.offsets.end),
            position: tensor.file().header().data_start() + info.offsets.start,
            file: tensor.file().path().to_string_lossy().into_owned(),
        }
    }
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
    fn dtype(&self, py: Python<'_>) -> PyResult<String> {
        Ok(type_and_shape(&self.opened.tensor(py, &self.name)?).0)
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, type_and_shape(&self.opened.tensor(py, &self.name)?).1)
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let tensor = self.opened.tensor(py, &self.name)?;
        let part = selection(py, &tensor, index)?;
        self.opened.single().part(py, &tensor, part)
    }
}
