//! What is asked of each dimension.

use core::fmt;
use core::num::NonZeroUsize;
use core::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use super::{InvalidSlice, SliceIterator};
use crate::tensor::TensorView;

/// What is taken of one dimension.
#[derive(Debug, Clone)]
pub enum TensorIndexer {
    /// One position; the dimension is dropped.
    Select(usize),
    /// The positions from the first bound to the second, a step apart.
    Narrow(Bound<usize>, Bound<usize>, NonZeroUsize),
}

/// As Python writes it, the bounds as they are given.
impl fmt::Display for TensorIndexer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second, step) = match self {
            TensorIndexer::Select(position) => return write!(f, "{position}"),
            TensorIndexer::Narrow(first, second, step) => (first, second, step.get()),
        };
        write_bound(f, first)?;
        f.write_str(":")?;
        write_bound(f, second)?;
        match step {
            1 => Ok(()),
            _ => write!(f, ":{step}"),
        }
    }
}

fn write_bound(f: &mut fmt::Formatter<'_>, bound: &Bound<usize>) -> fmt::Result {
    match bound {
        Bound::Unbounded => Ok(()),
        Bound::Included(position) | Bound::Excluded(position) => write!(f, "{position}"),
    }
}

impl From<usize> for TensorIndexer {
    fn from(position: usize) -> Self {
        TensorIndexer::Select(position)
    }
}

macro_rules! from_range {
    ($($range:ty),*) => {$(
        impl From<$range> for TensorIndexer {
            fn from(range: $range) -> Self {
                let (first, second) = (range.start_bound(), range.end_bound());
                TensorIndexer::Narrow(first.cloned(), second.cloned(), NonZeroUsize::MIN)
            }
        }
    )*};
}

from_range!(
    Range<usize>,
    RangeFrom<usize>,
    RangeFull,
    RangeInclusive<usize>,
    RangeTo<usize>,
    RangeToInclusive<usize>
);

/// Slices in the notation of ranges and tuples.
///
/// ```
/// use safetensors::slice::IndexOp;
/// use safetensors::tensor::{Dtype, TensorView};
///
/// let bytes = [0, 1, 2, 3, 4, 5];
/// let tensor = TensorView::new(Dtype::U8, vec![2, 3], &bytes)?;
/// let column = tensor.slice((.., 1..2))?;
/// assert_eq!(column.newshape(), [2, 1]);
/// assert_eq!(column.collect::<Vec<_>>().concat(), [1, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait IndexOp<'data, T> {
    /// The pieces of the tensor that make up what `index` selects, in order.
    ///
    /// # Errors
    /// Those of [`slice_byte_ranges`](super::slice_byte_ranges).
    fn slice(&'data self, index: T) -> Result<SliceIterator<'data>, InvalidSlice>;
}

impl<'data, A> IndexOp<'data, A> for TensorView<'data>
where
    A: Into<TensorIndexer>,
{
    fn slice(&'data self, index: A) -> Result<SliceIterator<'data>, InvalidSlice> {
        self.sliced_data(&[index.into()])
    }
}

macro_rules! index_by_tuple {
    ($($name:ident),*) => {
        impl<'data, $($name),*> IndexOp<'data, ($($name,)*)> for TensorView<'data>
        where
            $($name: Into<TensorIndexer>),*
        {
            fn slice(&'data self, index: ($($name,)*)) -> Result<SliceIterator<'data>, InvalidSlice> {
                #[allow(non_snake_case)]
                let ($($name,)*) = index;
                self.sliced_data(&[$($name.into()),*])
            }
        }
    };
}

index_by_tuple!(A);
index_by_tuple!(A, B);
index_by_tuple!(A, B, C);
