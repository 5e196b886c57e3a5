//! Files of other formats: opened, converted and looked into.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tensorhold::{
    ConvertOptions, ErrorKind, Finding, ForeignFile, Global, Limits, SaveOptions, Values,
};

use crate::checkpoint::{Checkpoint, parse_backend};
use crate::error;
use crate::load::dtype_named;
use crate::save::{parse_durability, stopped};
use crate::tensors::Maker;

/// Returns the tensors of a foreign file that lie in it as they are, with the tree of all values in the metadata, and a file in memory
/// with the others; `None` for a file of no format that is known.
#[pyfunction]
pub(crate) fn open_foreign<'py>(
    py: Python<'py>,
    path: PathBuf,
    framework: &str,
    device: Option<&Bound<'_, PyAny>>,
    backend: &str,
) -> PyResult<Option<(Checkpoint, Bound<'py, PyBytes>)>> {
    let backend = parse_backend(py, backend)?;
    let maker = Maker::new(py, framework, device)?;
    let placed = py.detach(|| match ForeignFile::open(&path, Limits::default()) {
        Ok(mut file) => file.placed(backend).map(Some),
        // It only looks like one.
        Err(error)
            if error.kind() == ErrorKind::ForeignFormat && !ForeignFile::is_certain(&path) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    });
    let placed = placed.map_err(|error| error::to_py(py, &error))?;
    Ok(placed.map(|placed| {
        let rest = PyBytes::new(py, &placed.rest);
        (Checkpoint::of(placed.checkpoint, maker), rest)
    }))
}

/// Converts a foreign checkpoint. Returns the paths that were written, how many values that are no tensors were left out, and what is odd
/// about the source.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the Python function"
)]
pub(crate) fn convert<'py>(
    py: Python<'py>,
    source: PathBuf,
    target: PathBuf,
    max_shard_size: Option<u64>,
    values: &str,
    dtype: Option<&str>,
    root: Option<String>,
    dequantize: bool,
    verify: bool,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Vec<PathBuf>, u64, Bound<'py, PyList>)> {
    let options = ConvertOptions {
        save: SaveOptions {
            align: Some(align),
            durability: parse_durability(py, durability)?,
        },
        max_shard_bytes: max_shard_size,
        values: parse_values(py, values)?,
        dtype: dtype.map(|name| dtype_named(py, name)).transpose()?,
        root,
        dequantize,
        verify,
        ..ConvertOptions::default()
    };
    let mut raised = None;
    let converted = py.detach(|| {
        tensorhold::convert(&source, &target, &options, &mut |total, done| {
            let Some(progress) = &progress else {
                return Ok(());
            };
            let told = Python::attach(|py| progress.call1(py, (done, total)).map(|_| ()));
            told.map_err(|error| stopped(&mut raised, error))
        })
    });
    let converted = match raised {
        Some(raised) => return Err(raised),
        None => converted.map_err(|error| error::to_py(py, &error))?,
    };
    let findings = converted.findings.iter();
    let findings = findings.map(|(path, finding)| {
        let described = describe_finding(py, finding)?;
        described.set_item("file", path.to_string_lossy())?;
        Ok(described)
    });
    let findings = PyList::new(py, findings.collect::<PyResult<Vec<_>>>()?)?;
    Ok((converted.paths, converted.n_dropped, findings))
}

/// Returns what a file of any format really is, and what is in it, as a dict.
#[pyfunction]
pub(crate) fn scan(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let scan = py.detach(|| tensorhold::scan(path, &Limits::default()));
    let scan = scan.map_err(|error| error::to_py(py, &error))?;
    let globals = scan
        .globals
        .iter()
        .map(|global| describe_global(py, global));
    let findings = scan
        .findings
        .iter()
        .map(|finding| describe_finding(py, finding));
    let described = PyDict::new(py);
    described.set_item("path", scan.path.to_string_lossy())?;
    described.set_item("format", scan.format)?;
    described.set_item("verdict", scan.class().name())?;
    described.set_item("globals", globals.collect::<PyResult<Vec<_>>>()?)?;
    described.set_item("findings", findings.collect::<PyResult<Vec<_>>>()?)?;
    Ok(described)
}

fn describe_global<'py>(py: Python<'py>, global: &Global) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("name", global.dotted())?;
    described.set_item("verdict", global.class.name())?;
    described.set_item("called", global.is_called)?;
    described.set_item("mentions", global.n_mentions)?;
    described.set_item("paths", &global.paths)?;
    described.set_item("pickle", global.pickle.as_deref())?;
    Ok(described)
}

fn describe_finding<'py>(py: Python<'py>, finding: &Finding) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("kind", format!("{:?}", finding.kind))?;
    described.set_item("verdict", finding.class.name())?;
    described.set_item("message", &finding.message)?;
    described.set_item("path", finding.path.as_deref())?;
    described.set_item("bytes", finding.bytes.map(|bytes| (bytes.start, bytes.end)))?;
    Ok(described)
}

fn parse_values(py: Python<'_>, name: &str) -> PyResult<Values> {
    match name {
        "tree" => Ok(Values::Tree),
        "beside" => Ok(Values::Beside),
        "drop" => Ok(Values::Dropped),
        _ => {
            let message = format!("values `{name}` is none of `tree`, `beside`, `drop`");
            Err(error::new(py, ErrorKind::InvalidArgument, message))
        }
    }
}
