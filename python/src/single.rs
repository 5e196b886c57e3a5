//! Single tensors of an open checkpoint.

use pyo3::prelude::*;
use tensorhold::{Checkpoint, Result, Tensor, TransferOptions};

use crate::error;
use crate::framework::Ownership;
use crate::load::Wanted;
use crate::narrow::{Part, Piece};
use crate::on_device::Targets;
use crate::tensors::Maker;

/// Gives tensors of `checkpoint` one by one.
pub(crate) struct Single<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) maker: &'a Maker,
    pub(crate) targets: &'a Targets,
}

impl Single<'_> {
    /// The whole tensor.
    pub(crate) fn whole<'py>(
        &self,
        py: Python<'py>,
        tensor: &Tensor<'_>,
        ownership: Ownership,
    ) -> PyResult<Bound<'py, PyAny>> {
        let size_bytes = tensor.info().size_bytes();
        match self.sent(py, size_bytes, || Piece::whole(tensor))? {
            Some(sent) => Ok(sent),
            None => self.maker.whole(py, tensor, ownership),
        }
    }

    /// A part of the tensor, in memory of its own.
    pub(crate) fn part<'py>(
        &self,
        py: Python<'py>,
        tensor: &Tensor<'_>,
        part: Part,
    ) -> PyResult<Bound<'py, PyAny>> {
        let piece = || Ok(Piece::part(tensor, part.clone()));
        match self.sent(py, part.stored().size_bytes(), piece)? {
            Some(sent) => Ok(sent),
            None => self.maker.part(py, tensor, part),
        }
    }

    /// Whether the engine itself brings larger tensors to where they are to be.
    pub(crate) fn sends(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.targets.find(py, self.maker)?.is_some())
    }

    /// The tensor on a device, if it is the engine that is to bring it there.
    fn sent<'py>(
        &self,
        py: Python<'py>,
        size_bytes: u64,
        piece: impl FnOnce() -> Result<Piece>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let target = self.targets.find_for(py, self.maker, size_bytes)?;
        if target.is_none() {
            return Ok(None);
        }
        let piece = piece().map_err(|error| error::to_py(py, &error))?;
        let wanted = Wanted::of(self.checkpoint, vec![piece]);
        let placement = self.maker.clone().into();
        let options = TransferOptions::default();
        let (tensors, _) = wanted.load(py, &placement, self.targets, options, None)?;
        tensors.values().get_item(0).map(Some)
    }
}
