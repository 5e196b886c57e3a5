//! The new API's save: one file or shards, from a list or as tensors come.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyList;
use tensorhold::{
    Durability, Error, ErrorKind, Result, SaveOptions, StreamOptions, StreamWriter,
    save_view_shards, save_views,
};

use crate::error;
use crate::narrow;
use crate::spec::{Named, Queues, TensorSpec, borrow, metadata_of};

/// Writes one file, or shards with an index, and returns the paths written. A list is laid out before it is written; an iterator is
/// drained one item at a time.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "they are the arguments of the Python function"
)]
pub(crate) fn save(
    py: Python<'_>,
    tensors: &Bound<'_, PyAny>,
    target: PathBuf,
    metadata: Option<&Bound<'_, PyAny>>,
    max_shard_size: Option<u64>,
    align: u32,
    durability: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<PathBuf>> {
    let options = SaveOptions {
        align: Some(align),
        durability: parse_durability(py, durability)?,
    };
    let request = Request {
        target,
        metadata: metadata_of(metadata)?,
        max_shard_size,
        options,
        progress,
    };
    match tensors.cast::<PyList>() {
        Ok(items) => request.save_list(py, items),
        Err(_) => request.save_stream(py, tensors),
    }
}

pub(crate) fn parse_durability(py: Python<'_>, name: &str) -> PyResult<Durability> {
    match name {
        "none" => Ok(Durability::None),
        "data" => Ok(Durability::Data),
        "full" => Ok(Durability::Full),
        _ => {
            let message = format!("durability `{name}` is none of `none`, `data`, `full`");
            Err(error::new(py, ErrorKind::InvalidArgument, message))
        }
    }
}

struct Request {
    target: PathBuf,
    metadata: Option<Vec<(String, String)>>,
    max_shard_size: Option<u64>,
    options: SaveOptions,
    progress: Option<Py<PyAny>>,
}

impl Request {
    fn save_list(&self, py: Python<'_>, items: &Bound<'_, PyList>) -> PyResult<Vec<PathBuf>> {
        let named = Named::of_items(items)?;
        let metadata = narrow::described(&named, self.metadata.clone());
        let total = named.size_bytes();
        let mut raised = None;
        let written = py.detach(|| self.write_list(&named, &metadata, total, &mut raised));
        match raised {
            Some(raised) => Err(raised),
            None => written.map_err(|error| error::to_py(py, &error)),
        }
    }

    fn write_list(
        &self,
        named: &Named,
        metadata: &Option<Vec<(String, String)>>,
        total: u64,
        raised: &mut Option<PyErr>,
    ) -> Result<Vec<PathBuf>> {
        let queues = named.queues()?;
        // SAFETY: every item carries the object that keeps its bytes alive, and the list outlives this call.
        let views = unsafe { named.views(&queues)? };
        let metadata = borrow(metadata);
        let metadata = metadata.as_deref();
        let mut progress = |done: u64| {
            self.report(done, Some(total))
                .map_err(|error| stopped(raised, error))
        };
        progress(0)?;
        let written = match self.max_shard_size {
            Some(max) => save_view_shards(
                &self.target,
                &views,
                metadata,
                max,
                &self.options,
                &mut progress,
            )?,
            None => {
                save_views(&self.target, &views, metadata, &self.options, &mut progress)?;
                vec![self.target.clone()]
            }
        };
        progress(total)?;
        Ok(written)
    }

    fn save_stream(&self, py: Python<'_>, items: &Bound<'_, PyAny>) -> PyResult<Vec<PathBuf>> {
        let options = StreamOptions {
            save: self.options,
            max_shard_bytes: self.max_shard_size,
        };
        let to_py = |error: Error| error::to_py(py, &error);
        let metadata = borrow(&self.metadata);
        let created =
            py.detach(|| StreamWriter::create(&self.target, metadata.as_deref(), options));
        let mut writer = created.map_err(to_py)?;
        let mut done = 0;
        let mut queues = Queues::default();
        for item in items.try_iter()? {
            let (name, spec, _hold) =
                item?.extract::<(String, Bound<'_, TensorSpec>, Bound<'_, PyAny>)>()?;
            let spec = spec.get();
            narrow::describe(&mut writer, self.metadata.as_deref(), &name, spec);
            let pushed = py.detach(|| {
                if let Some(device) = spec.device {
                    queues.add(device)?;
                }
                // SAFETY: `_hold` keeps the bytes alive until the next item is asked for.
                let view = unsafe { spec.view(&name, &queues)? };
                writer.push_view(&view)
            });
            pushed.map_err(to_py)?;
            done += spec.data_len as u64;
            self.report(done, None)?;
        }
        py.detach(|| writer.finish()).map_err(to_py)
    }

    fn report(&self, done: u64, total: Option<u64>) -> PyResult<()> {
        match &self.progress {
            Some(progress) => Python::attach(|py| progress.call1(py, (done, total)).map(|_| ())),
            None => Ok(()),
        }
    }
}

/// Keeps what the callback raised, and stops the save.
pub(crate) fn stopped(raised: &mut Option<PyErr>, error: PyErr) -> Error {
    *raised = Some(error);
    Error::new(ErrorKind::InvalidArgument, "the progress callback raised")
}
