//! Checkpoints that are written with their weights quantized, in another layout, or as numbers.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tensorhold::{
    Checkpoint, DEFAULT_SHARD_BYTES, DequantizeOptions, ExistingConfig, Kept, OpenOptions,
    QuantizeOptions, QuantizeScheme, QuantizedTensor, RepackLayout, RepackOptions, Result,
    RewriteOptions, RewriteProgress, SaveOptions,
};

use crate::error;
use crate::load::dtype_named;
use crate::save::{parse_durability, stopped};

type Paths = Vec<PathBuf>;

/// Quantizes a checkpoint. Returns the paths that were written, those of the files that were copied, and a dict for each tensor of the source.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the Python function"
)]
pub(crate) fn quantize<'py>(
    py: Python<'py>,
    source: PathBuf,
    target: PathBuf,
    scheme: &str,
    group_size: Option<u64>,
    block: Option<[u64; 2]>,
    scale_dtype: Option<&str>,
    include: Vec<String>,
    ignore: Vec<String>,
    max_shard_size: Option<u64>,
    threads: Option<usize>,
    verify: bool,
    dry_run: bool,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Paths, Paths, Bound<'py, PyList>)> {
    let scheme = QuantizeScheme::named(scheme, group_size, block);
    let options = QuantizeOptions {
        scale_dtype: scale_dtype.map(|name| dtype_named(py, name)).transpose()?,
        include,
        ignore,
        rewrite: RewriteOptions {
            save: save_options(py, align, durability)?,
            max_shard_bytes: max_shard_size,
            n_threads: threads,
            verify,
        },
        dry_run,
        ..QuantizeOptions::new(scheme.map_err(|error| error::to_py(py, &error))?)
    };
    let done = detached(py, progress, |progress| {
        tensorhold::quantize(&source, &target, &options, progress)
    })?;
    let tensors = done.tensors.iter().map(|tensor| describe(py, tensor));
    let tensors = PyList::new(py, tensors.collect::<PyResult<Vec<_>>>()?)?;
    Ok((done.paths, done.copied, tensors))
}

fn describe<'py>(py: Python<'py>, tensor: &QuantizedTensor) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("name", &tensor.name)?;
    described.set_item("dtype", tensor.dtype.name())?;
    described.set_item("shape", &tensor.shape)?;
    described.set_item("kept", tensor.kept.map(Kept::reason))?;
    described.set_item("size_before", tensor.size_before)?;
    described.set_item("size_after", tensor.size_after)?;
    described.set_item("max_error", tensor.error.map(|error| error.greatest))?;
    described.set_item("relative_error", tensor.error.map(|error| error.relative))?;
    Ok(described)
}

/// Repacks a quantized checkpoint. Returns the paths that were written, those of the files that were copied, how many weights there are, and those that were rounded.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the Python function"
)]
pub(crate) fn repack(
    py: Python<'_>,
    source: PathBuf,
    target: PathBuf,
    layout: &str,
    allow_rounding: bool,
    quantization_config: Option<String>,
    max_shard_size: Option<u64>,
    threads: Option<usize>,
    verify: bool,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Paths, Paths, usize, Vec<String>)> {
    let layout = RepackLayout::named(layout).map_err(|error| error::to_py(py, &error))?;
    let options = RepackOptions {
        rewrite: RewriteOptions {
            save: save_options(py, align, durability)?,
            max_shard_bytes: max_shard_size,
            n_threads: threads,
            verify,
        },
        allow_rounding,
        quantization_config,
        ..RepackOptions::new(layout)
    };
    let done = detached(py, progress, |progress| {
        tensorhold::repack(&source, &target, &options, progress)
    })?;
    Ok((done.paths, done.copied, done.n_weights, done.rounded))
}

/// Writes a checkpoint with numbers in place of its quantized weights. Returns the paths that were written, those of the files that
/// were copied, how many weights there are, and how many tensors were copied.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the Python function"
)]
pub(crate) fn dequantize_files(
    py: Python<'_>,
    source: PathBuf,
    target: PathBuf,
    dtype: Option<&str>,
    quantization_config: Option<String>,
    max_shard_size: Option<u64>,
    threads: Option<usize>,
    verify: bool,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Paths, Paths, usize, usize)> {
    let options = DequantizeOptions {
        rewrite: RewriteOptions {
            save: save_options(py, align, durability)?,
            max_shard_bytes: Some(max_shard_size.unwrap_or(DEFAULT_SHARD_BYTES)),
            n_threads: threads,
            verify,
        },
        dtype: dtype.map(|name| dtype_named(py, name)).transpose()?,
        existing_config: ExistingConfig::Replaced,
    };
    let done = detached(py, progress, |progress| {
        let mut source = Checkpoint::open(&source, &OpenOptions::default())?;
        if let Some(config) = quantization_config {
            source = source.with_quantization_config(config);
        }
        let weights = &source.quantization()?.weights;
        tensorhold::dequantize_checkpoint(&source, weights, &target, &options, progress)
    })?;
    let n_copied = done.n_tensors - done.n_weights;
    Ok((done.paths, done.copied, done.n_weights, n_copied))
}

fn save_options(py: Python<'_>, align: u32, durability: &str) -> PyResult<SaveOptions> {
    Ok(SaveOptions {
        align: Some(align),
        durability: parse_durability(py, durability)?,
    })
}

/// Does `work` without the interpreter's lock; what `progress` raises ends it.
fn detached<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut RewriteProgress<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let done = py.detach(|| {
        work(&mut |total, done| {
            tell(progress.as_ref(), total, done).map_err(|error| stopped(&mut raised, error))
        })
    });
    match raised {
        Some(raised) => Err(raised),
        None => done.map_err(|error| error::to_py(py, &error)),
    }
}

/// Tells `progress`, if there is one, of the bytes done and the bytes in all.
fn tell(progress: Option<&Py<PyAny>>, total: u64, done: u64) -> PyResult<()> {
    let Some(progress) = progress else {
        return Ok(());
    };
    Python::attach(|py| progress.call1(py, (done, total)).map(|_| ()))
}
