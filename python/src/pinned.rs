//! The pinned memory that copies to devices start from.

use pyo3::prelude::*;
use tensorhold::RingUsage;

/// How much pinned memory this process has for copies to devices.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct PinnedMemory(RingUsage);

#[pymethods]
impl PinnedMemory {
    /// The bytes that are pinned.
    #[getter]
    fn pinned_bytes(&self) -> u64 {
        self.0.pinned_bytes
    }

    /// The bytes that could not be pinned: copies from them are slow.
    #[getter]
    fn unpinned_bytes(&self) -> u64 {
        self.0.unpinned_bytes
    }

    /// What both together may be.
    #[getter]
    fn limit_bytes(&self) -> u64 {
        self.0.limit_bytes
    }

    /// The bytes in the hands of a thread, or with copies under way.
    #[getter]
    fn in_use_bytes(&self) -> u64 {
        self.0.in_use_bytes
    }

    /// The most bytes that were in use at one time.
    #[getter]
    fn peak_in_use_bytes(&self) -> u64 {
        self.0.peak_in_use_bytes
    }

    fn __repr__(&self) -> String {
        let RingUsage {
            pinned_bytes,
            unpinned_bytes,
            limit_bytes,
            in_use_bytes,
            peak_in_use_bytes,
        } = self.0;
        format!(
            "PinnedMemory(pinned_bytes={pinned_bytes}, unpinned_bytes={unpinned_bytes}, limit_bytes={limit_bytes}, in_use_bytes={in_use_bytes}, peak_in_use_bytes={peak_in_use_bytes})"
        )
    }
}

/// Returns how much pinned memory there is for copies to devices, and how much of it is in use.
#[pyfunction]
pub(crate) fn pinned_memory(py: Python<'_>) -> PinnedMemory {
    PinnedMemory(py.detach(tensorhold::ring_usage))
}

/// Sets how much memory may be pinned, in the place of `TENSORHOLD_PINNED_MB` or of 256 MiB. What is over it and not in use is
/// given back.
#[pyfunction]
pub(crate) fn set_pinned_limit(py: Python<'_>, limit_bytes: u64) {
    py.detach(|| tensorhold::set_ring_limit(limit_bytes));
}
