//! What a load did, for Python.

use pyo3::prelude::*;
use tensorhold::{GdsStats, TransferStats};

use crate::assembly::{Assembly, DeviceBytes};

/// What a load did, and how.
#[pyclass(frozen, name = "TransferStats", module = "tensorhold._native")]
pub(crate) struct Stats(TransferStats, DeviceBytes);

impl Stats {
    /// What a transfer did, whose tensors `assembly` makes.
    pub(crate) fn of(stats: TransferStats, assembly: &Assembly) -> Stats {
        Stats(stats, assembly.device_bytes().clone())
    }
}

#[pymethods]
impl Stats {
    /// How many of the wanted bytes the engine itself brings to each device.
    #[getter]
    fn device_bytes(&self) -> DeviceBytes {
        self.1.clone()
    }

    /// The bytes that were asked for.
    #[getter]
    fn wanted_bytes(&self) -> u64 {
        self.0.wanted_bytes
    }

    /// The bytes that were read, with unwanted ones between.
    #[getter]
    fn read_bytes(&self) -> u64 {
        self.0.read_bytes
    }

    /// The number of reads.
    #[getter]
    fn n_reads(&self) -> u64 {
        self.0.n_reads
    }

    /// The number of threads besides the caller's.
    #[getter]
    fn n_threads(&self) -> usize {
        self.0.n_threads
    }

    /// From the start to the end of the last read.
    #[getter]
    fn seconds(&self) -> f64 {
        self.0.elapsed.as_secs_f64()
    }

    /// What all threads together spent reading.
    #[getter]
    fn reading_seconds(&self) -> f64 {
        self.0.reading.as_secs_f64()
    }

    /// What all threads together spent waiting for room under the limit of memory.
    #[getter]
    fn waiting_seconds(&self) -> f64 {
        self.0.waiting.as_secs_f64()
    }

    /// Wanted bytes a second, in units of 10^9.
    #[getter]
    fn gb_per_second(&self) -> f64 {
        self.0.gb_per_second()
    }

    /// How each file was read: `mapped`, `copied`, `buffered` or `direct`.
    #[getter]
    fn ways(&self) -> Vec<String> {
        self.0.ways.iter().map(ToString::to_string).collect()
    }

    /// What became of `backend="gds"`, or None where the file was opened with another one.
    #[getter]
    fn gds(&self) -> Option<Gds> {
        self.0.gds.clone().map(Gds)
    }

    fn __repr__(&self) -> String {
        format!(
            "TransferStats(wanted_bytes={}, read_bytes={}, n_reads={}, seconds={:.6}, gb_per_second={:.2}, n_threads={}, ways={:?})",
            self.wanted_bytes(),
            self.read_bytes(),
            self.n_reads(),
            self.seconds(),
            self.gb_per_second(),
            self.n_threads(),
            self.ways()
        )
    }
}

/// What went to devices past the host's memory.
#[pyclass(frozen, name = "GdsStats", module = "tensorhold._native")]
pub(crate) struct Gds(GdsStats);

#[pymethods]
impl Gds {
    /// The bytes that cuFile or hipFile has read into devices.
    #[getter]
    fn read_bytes(&self) -> u64 {
        self.0.read_bytes
    }

    /// Whether they passed by the host's memory; None where the library does not say.
    #[getter]
    fn is_direct(&self) -> Option<bool> {
        self.0.is_direct
    }

    /// Why not all that could have gone so did, or why it is not known whether it was direct.
    #[getter]
    fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let is_direct = self.0.is_direct.into_pyobject(py)?.repr()?;
        let reason = self.reason().into_pyobject(py)?.repr()?;
        Ok(format!(
            "GdsStats(read_bytes={}, is_direct={is_direct}, reason={reason})",
            self.read_bytes()
        ))
    }
}
