//! Tensors to be written, and tensors seen in place.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::info::size_bytes;
use super::{Dtype, SafeTensorError};
use crate::slice::{InvalidSlice, SliceIterator, TensorIndexer};

/// What [`serialize`](super::serialize) needs to know of a tensor.
///
/// ```
/// use safetensors::{Dtype, View, serialize};
/// use std::borrow::Cow;
///
/// struct Vector(Vec<f32>, [usize; 1]);
///
/// impl View for Vector {
///     fn dtype(&self) -> Dtype {
///         Dtype::F32
///     }
///     fn shape(&self) -> &[usize] {
///         &self.1
///     }
///     fn data(&self) -> Cow<'_, [u8]> {
///         self.0.iter().flat_map(|value| value.to_le_bytes()).collect()
///     }
///     fn data_len(&self) -> usize {
///         self.0.len() * 4
///     }
/// }
///
/// let file = serialize([("x", Vector(vec![1.0, 2.0], [2]))], None)?;
/// assert!(file.ends_with(&[0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]));
/// # Ok::<(), safetensors::SafeTensorError>(())
/// ```
pub trait View {
    /// The type of the elements.
    fn dtype(&self) -> Dtype;

    /// The size in each dimension.
    fn shape(&self) -> &[usize];

    /// The bytes of the elements, little-endian, the last dimension varying fastest. It is called once, when it is this
    /// tensor's turn to be written.
    fn data(&self) -> Cow<'_, [u8]>;

    /// The number of bytes that [`data`](View::data) will give, for tensors whose bytes are costly to fetch.
    fn data_len(&self) -> usize;
}

/// A tensor whose bytes lie in memory that is borrowed, such as a mapped file.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct TensorView<'data> {
    dtype: Dtype,
    shape: Vec<usize>,
    data: &'data [u8],
}

impl<'data> TensorView<'data> {
    /// The tensor of `dtype` and `shape` with the bytes `data`.
    ///
    /// # Errors
    /// `InvalidTensorView` if `data` has another size than the shape asks for, `MisalignedSlice` if the last element ends
    /// inside a byte, `ValidationOverflow` if the size of the shape cannot be counted.
    pub fn new(
        dtype: Dtype,
        shape: Vec<usize>,
        data: &'data [u8],
    ) -> Result<Self, SafeTensorError> {
        if size_bytes(dtype, &shape)? != data.len() {
            return Err(SafeTensorError::InvalidTensorView(dtype, shape, data.len()));
        }
        Ok(TensorView { dtype, shape, data })
    }

    /// A tensor out of a header that was checked.
    pub(super) fn checked(dtype: Dtype, shape: Vec<usize>, data: &'data [u8]) -> Self {
        TensorView { dtype, shape, data }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The size in each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes of all elements.
    pub fn data(&self) -> &'data [u8] {
        self.data
    }

    /// The pieces of the data that make up what `slices` select, in order. Dimensions that `slices` does not name are
    /// taken whole.
    ///
    /// # Errors
    /// Those of [`slice_byte_ranges`](crate::slice::slice_byte_ranges).
    pub fn sliced_data(
        &'data self,
        slices: &[TensorIndexer],
    ) -> Result<SliceIterator<'data>, InvalidSlice> {
        SliceIterator::new(self, slices)
    }
}

impl View for TensorView<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.data.into()
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

impl View for &TensorView<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.data.into()
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}
