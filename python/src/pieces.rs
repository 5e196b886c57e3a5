//! Files that hold pieces of the same tensors.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tensorhold::{Checkpoint, OpenOptions, Request, Selection, TransferOptions, WholeTensor};

use crate::error;
use crate::load::{Filled, Wanted};
use crate::on_device::Targets;
use crate::placement::Placement;
use crate::stats::Stats;
use crate::tensors::Maker;

/// Files that may hold pieces of the same tensors, each under the tensor's name.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct Pieces {
    checkpoint: Checkpoint,
    targets: Targets,
}

/// A box of a piece: the file's number, the name, and for each dimension the first position and the end.
type Region<'py> = (usize, Bound<'py, PyString>, Vec<(u64, u64)>);

/// A piece: the file's number, its first positions in the whole, its shape.
type Piece = (usize, Vec<u64>, Vec<u64>);

/// A tensor: its name, dtype and shape, and its pieces.
type Whole = (String, &'static str, Vec<u64>, Vec<Piece>);

#[pymethods]
impl Pieces {
    #[new]
    fn new(py: Python<'_>, paths: Vec<PathBuf>) -> PyResult<Pieces> {
        let options = OpenOptions::default();
        let opened = py.detach(|| Checkpoint::open_pieces(&paths, &options));
        Ok(Pieces {
            checkpoint: opened.map_err(|error| error::to_py(py, &error))?,
            targets: Targets::default(),
        })
    }

    /// Returns the whole tensors that the pieces make: name, dtype, shape, and the pieces.
    fn tensors(&self, py: Python<'_>) -> PyResult<Vec<Whole>> {
        let assembled = py.detach(|| tensorhold::assemble(&self.checkpoint));
        let tensors = assembled.map_err(|error| error::to_py(py, &error))?;
        Ok(tensors.into_iter().map(whole).collect())
    }

    /// Returns the `__metadata__` of each file.
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let of_file = |file: &tensorhold::File| {
            let dict = PyDict::new(py);
            for (key, value) in file.header().metadata().iter().flat_map(|all| all.iter()) {
                dict.set_item(key, value)?;
            }
            Ok(dict)
        };
        self.checkpoint.files().iter().map(of_file).collect()
    }

    /// Fills a tensor with each of `boxes`; returns what was done.
    fn fill<'py>(
        &self,
        py: Python<'py>,
        boxes: Vec<Region<'py>>,
        into: Vec<Filled<'py>>,
        threads: Option<usize>,
    ) -> PyResult<Stats> {
        let mut items = Vec::with_capacity(boxes.len());
        for (wanted, filled) in boxes.into_iter().zip(into) {
            items.push((self.request(py, &wanted)?, filled));
        }
        let wanted = Wanted::filling(py, &self.checkpoint, items, &self.targets)?;
        let options = TransferOptions {
            n_threads: threads,
            ..TransferOptions::default()
        };
        let placement = Placement::from(Maker::new(py, "pt", None)?);
        let (_, stats) = wanted.load(py, &placement, &self.targets, options, None)?;
        Ok(stats)
    }
}

impl Pieces {
    fn request(&self, py: Python<'_>, (file, name, ranges): &Region<'_>) -> PyResult<Request> {
        let found = self.checkpoint.tensor_in(*file, name.to_str()?);
        let tensor = found.map_err(|error| error::to_py(py, &error))?;
        let info = tensor.info();
        let ranges: Vec<_> = ranges
            .iter()
            .map(|&(start, end)| std::iter::once(start..end).collect())
            .collect();
        let selection = Selection::of_ranges(info.dtype, info.shape, &ranges);
        let selection =
            selection.map_err(|error| error::to_py(py, &error.with_tensor(info.name)))?;
        Ok(match selection.is_whole() {
            true => tensor.request(),
            false => tensor.request().part(selection),
        })
    }
}

fn whole(tensor: WholeTensor) -> Whole {
    let piece = |chunk: &tensorhold::Chunk| {
        let ranges = chunk.ranges.iter();
        let sizes = ranges.clone().map(|range| range.end - range.start);
        let offsets = ranges.map(|range| range.start);
        (chunk.file, offsets.collect(), sizes.collect())
    };
    let pieces = tensor.chunks.iter().map(piece).collect();
    (tensor.name, tensor.dtype.name(), tensor.shape, pieces)
}
