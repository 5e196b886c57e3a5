//! Checkpoints that are written with their weights quantized, in another layout, or as numbers.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tensorhold::{
    Checkpoint, DEFAULT_SHARD_BYTES, DequantizeOptions, ExistingConfig, Kept, OpenOptions,
    QuantizeOptions, QuantizeScheme, QuantizedTensor, RepackLayout, RepackOptions, SaveOptions,
};

use crate::error;
use crate::load::dtype_named;
use crate::save::{parse_durability, stopped};

/// Quantizes a checkpoint. Returns the paths that were written, and a dict for each tensor of the source.
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
) -> PyResult<(Vec<PathBuf>, Bound<'py, PyList>)> {
    let scheme = QuantizeScheme::named(scheme, group_size, block);
    let options = QuantizeOptions {
        scale_dtype: scale_dtype.map(|name| dtype_named(py, name)).transpose()?,
        include,
        ignore,
        save: SaveOptions {
            align: Some(align),
            durability: parse_durability(py, durability)?,
        },
        max_shard_bytes: max_shard_size,
        n_threads: threads,
        verify,
        dry_run,
        ..QuantizeOptions::new(scheme.map_err(|error| error::to_py(py, &error))?)
    };
    let mut raised = None;
    let done = py.detach(|| {
        tensorhold::quantize(&source, &target, &options, &mut |total, done| {
            tell(progress.as_ref(), total, done).map_err(|error| stopped(&mut raised, error))
        })
    });
    let done = match raised {
        Some(raised) => return Err(raised),
        None => done.map_err(|error| error::to_py(py, &error))?,
    };
    let tensors = done.tensors.iter().map(|tensor| describe(py, tensor));
    let tensors = PyList::new(py, tensors.collect::<PyResult<Vec<_>>>()?)?;
    Ok((done.paths, tensors))
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

/// Repacks a quantized checkpoint. Returns the paths that were written, how many weights there are, and those that were rounded.
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
    max_shard_size: Option<u64>,
    threads: Option<usize>,
    verify: bool,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Vec<PathBuf>, usize, Vec<String>)> {
    let layout = RepackLayout::named(layout).map_err(|error| error::to_py(py, &error))?;
    let options = RepackOptions {
        save: SaveOptions {
            align: Some(align),
            durability: parse_durability(py, durability)?,
        },
        max_shard_bytes: max_shard_size,
        n_threads: threads,
        allow_rounding,
        verify,
        ..RepackOptions::new(layout)
    };
    let mut raised = None;
    let done = py.detach(|| {
        tensorhold::repack(&source, &target, &options, &mut |total, done| {
            tell(progress.as_ref(), total, done).map_err(|error| stopped(&mut raised, error))
        })
    });
    let done = match raised {
        Some(raised) => return Err(raised),
        None => done.map_err(|error| error::to_py(py, &error))?,
    };
    Ok((done.paths, done.n_weights, done.rounded))
}

/// Writes a checkpoint with numbers in place of its quantized weights. Returns the paths that were written, how many weights there
/// are, and how many tensors were copied.
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
    verify: bool,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Vec<PathBuf>, usize, usize)> {
    let options = DequantizeOptions {
        save: SaveOptions {
            align: Some(align),
            durability: parse_durability(py, durability)?,
        },
        dtype: dtype.map(|name| dtype_named(py, name)).transpose()?,
        max_shard_bytes: Some(max_shard_size.unwrap_or(DEFAULT_SHARD_BYTES)),
        verify,
        existing_config: ExistingConfig::Replaced,
    };
    let mut raised = None;
    let done = py.detach(|| {
        let mut source = Checkpoint::open(&source, &OpenOptions::default())?;
        if let Some(config) = quantization_config {
            source = source.with_quantization_config(config);
        }
        let weights = &source.quantization()?.weights;
        tensorhold::dequantize_checkpoint(
            &source,
            weights,
            &target,
            &options,
            &mut |total, done| {
                tell(progress.as_ref(), total, done).map_err(|error| stopped(&mut raised, error))
            },
        )
    });
    let done = match raised {
        Some(raised) => return Err(raised),
        None => done.map_err(|error| error::to_py(py, &error))?,
    };
    let n_copied = done.n_tensors - done.n_weights;
    Ok((done.paths, done.n_weights, n_copied))
}

/// Tells `progress`, if there is one, of the bytes done and the bytes in all.
fn tell(progress: Option<&Py<PyAny>>, total: u64, done: u64) -> PyResult<()> {
    let Some(progress) = progress else {
        return Ok(());
    };
    Python::attach(|py| progress.call1(py, (done, total)).map(|_| ()))
}
