//! A tensor as a header describes it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Dtype, SafeTensorError};

/// Type, shape and place of one tensor. Elements are little-endian, the last dimension varies fastest.
#[derive(Debug, Deserialize, Serialize, Clone)]
pub struct TensorInfo {
    /// The type of the elements.
    pub dtype: Dtype,
    /// The size in each dimension; none for a scalar.
    pub shape: Vec<usize>,
    /// The first byte and the byte after the last, counted from the start of the data.
    pub data_offsets: (usize, usize),
}

impl TensorInfo {
    pub(super) fn from_core(info: tensorhold_core::TensorInfo<'_>) -> TensorInfo {
        TensorInfo {
            dtype: Dtype::from_core(info.dtype),
            shape: shape_from_core(info.shape),
            data_offsets: (info.offsets.start as usize, info.offsets.end as usize),
        }
    }
}

/// The sizes of a header that [`fits`].
pub(super) fn shape_from_core(shape: &[u64]) -> Vec<usize> {
    shape.iter().map(|&size| size as usize).collect()
}

pub(crate) fn shape_to_core(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|&size| size as u64).collect()
}

/// Whether every size can be counted here. Offsets always can: their bytes are in memory.
pub(super) fn fits(header: &tensorhold_core::Header) -> bool {
    let is_countable = |&size: &u64| usize::try_from(size).is_ok();
    usize::BITS >= u64::BITS
        || header
            .tensors()
            .all(|info| info.shape.iter().all(is_countable))
}

/// The bytes that a tensor takes.
pub(super) fn size_bytes(dtype: Dtype, shape: &[usize]) -> Result<usize, SafeTensorError> {
    let n_elements = shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    let n_bits = n_elements
        .and_then(|n_elements| n_elements.checked_mul(dtype.bitsize()))
        .ok_or(SafeTensorError::ValidationOverflow)?;
    match n_bits % 8 {
        0 => Ok(n_bits / 8),
        _ => Err(SafeTensorError::MisalignedSlice),
    }
}
