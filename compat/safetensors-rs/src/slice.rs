//! Slices of tensors: what they select, and which bytes hold it.

mod index;
mod ranges;

use core::fmt;

pub use index::{IndexOp, TensorIndexer};
pub use ranges::{SliceByteRanges, SliceIterator, SlicedShape, slice_byte_ranges};

pub(crate) const MISALIGNED: &str = "The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, this is invalid.";

/// Why a slice does not fit its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidSlice {
    /// There are more slices than the tensor has dimensions.
    TooManySlices,
    /// A slice reaches past the end of its dimension.
    SliceOutOfRange {
        /// The dimension.
        dim_index: usize,
        /// The position that is too far.
        asked: usize,
        /// The size of the dimension.
        dim_size: usize,
    },
    /// A piece of elements narrower than a byte begins or ends inside a byte.
    MisalignedSlice,
}

impl fmt::Display for InvalidSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidSlice::TooManySlices => {
                f.write_str("more slicing indexes than dimensions in tensor")
            }
            InvalidSlice::SliceOutOfRange {
                dim_index,
                asked,
                dim_size,
            } => write!(
                f,
                "index {asked} out of bounds for tensor dimension #{dim_index} of size {dim_size}"
            ),
            InvalidSlice::MisalignedSlice => f.write_str(MISALIGNED),
        }
    }
}

impl core::error::Error for InvalidSlice {}
