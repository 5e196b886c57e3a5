//! Slices of tensors: what an index selects, and which bytes hold it.
//!
//! The index language is NumPy's basic indexing: integers, ranges with steps of either sign, `...`
//! and new axes. A [`Selection`] is the answer in numbers: the shape of the result, and a strided
//! walk over the tensor's bytes that visits them in the order of the result. It takes the same few
//! words however large the tensor is. What a rank holds of a tensor can be several ranges of a dimension
//! one behind the other ([`Selection::of_ranges`]), which may take several walks.

mod cut;
mod gather;
mod grid;
mod ranges;
mod resolve;
mod runs;
mod strides;

use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use crate::dtype::Dtype;
use crate::error::Result;
use crate::extent::ByteRange;

pub(crate) use cut::Closeness;
pub use grid::Grid;
pub use runs::{BitRuns, Runs};

/// One part of an index, such as the `2:` or the `-1` of `[2:, -1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Index {
    /// One position, from the end where negative; the dimension is dropped.
    At(i64),
    /// The positions `start:stop:step` as Python counts them; `None` is a part left out.
    Range {
        /// The first position.
        start: Option<i64>,
        /// The position before which to stop.
        stop: Option<i64>,
        /// How far to go each time; negative goes backwards.
        step: Option<i64>,
    },
    /// `...`: all of the dimensions that the other parts leave.
    Ellipsis,
    /// `None` in NumPy: a dimension of size 1 that the tensor does not have.
    NewAxis,
}

impl Index {
    /// `:`, all of a dimension.
    pub const ALL: Index = Index::Range {
        start: None,
        stop: None,
        step: None,
    };
}

/// What becomes of ranges that reach past the end of their dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bounds {
    /// They end with the dimension, as in NumPy and PyTorch.
    Clamped,
    /// They are refused, as in the reference's own slicer. A start or stop that equals the size is
    /// within bounds.
    Checked,
}

/// A part of a tensor, resolved against its shape.
///
/// ```
/// use tensorhold_core::{Bounds, ByteRange, Dtype, Index, Selection};
///
/// // x[:, 1:3] of a tensor of 4 x 5
/// let columns = Index::Range { start: Some(1), stop: Some(3), step: None };
/// let index = [Index::ALL, columns];
/// let selection = Selection::resolve(Dtype::F16, &[4, 5], &index, Bounds::Clamped)?;
/// assert_eq!(selection.shape(), [4, 2]);
/// assert_eq!(selection.runs().next(), Some(ByteRange::new(2, 6)));
/// assert_eq!(selection.runs().nth(1), Some(ByteRange::new(12, 16)));
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    dtype: Dtype,
    tensor_bytes: u64,
    shape: Vec<u64>,
    size_bytes: u64,
    first: Nest,
    /// What comes behind it in the result.
    rest: Vec<Nest>,
}

/// [`Strided`], with loops of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nest {
    start: u64,
    run: u64,
    loops: Vec<Loop>,
}

impl Nest {
    /// Selects nothing.
    const NOTHING: Nest = Nest {
        start: 0,
        run: 0,
        loops: Vec::new(),
    };

    fn n_elements(&self) -> u64 {
        let counts = self.loops.iter().map(|each| each.count);
        counts.fold(self.run, |product, count| product * count)
    }

    /// From the first element to the one behind the last.
    fn span(&self) -> (u64, u64) {
        let (mut first, mut end) = (self.start, self.start + self.run);
        for each in &self.loops {
            let way = each.stride.unsigned_abs() * (each.count - 1);
            match each.stride {
                0.. => end += way,
                _ => first -= way,
            }
        }
        (first, end)
    }

    /// The numbers of elements that say where runs begin and end.
    fn boundaries(&self) -> impl Iterator<Item = u64> {
        let strides = self.loops.iter().map(|each| each.stride.unsigned_abs());
        [self.start, self.run].into_iter().chain(strides)
    }
}

/// A selection, or a part of one, as a nest of loops around one run, counted in elements of the tensor.
///
/// The result is what `for i in 0..loops[0].count { for j in 0..loops[1].count { … } }` yields, each
/// time the `run` elements from `start + i * loops[0].stride + j * loops[1].stride + …` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strided<'a> {
    /// The element that the walk begins with.
    pub start: u64,
    /// The number of elements that lie side by side.
    pub run: u64,
    /// The loops, outermost first. None has a count below 2, none could be joined with its
    /// neighbour or with the run.
    pub loops: &'a [Loop],
}

/// One loop of a [`Strided`] walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    /// How often it goes round.
    pub count: u64,
    /// How many elements it moves each time; negative goes backwards.
    pub stride: i64,
}

impl Selection {
    /// All of a tensor of `shape`.
    ///
    /// # Errors
    /// `Overflow` and `Misaligned` as of [`shape_size_bytes`](crate::shape_size_bytes).
    pub fn whole(dtype: Dtype, shape: &[u64]) -> Result<Selection> {
        Selection::resolve(dtype, shape, &[], Bounds::Clamped)
    }

    /// What `index` selects of a tensor of `shape`. An empty index selects all of it.
    ///
    /// # Errors
    /// `InvalidSlice` if the index does not fit the shape, `Misaligned` if elements narrower than a
    /// byte would fill no whole number of bytes, `Overflow` if the shape is impossible.
    pub fn resolve(
        dtype: Dtype,
        shape: &[u64],
        index: &[Index],
        bounds: Bounds,
    ) -> Result<Selection> {
        resolve::resolve(dtype, shape, index, bounds)
    }

    /// Of each dimension of a tensor of `shape` the positions in `ranges`, in the order of the ranges. A range may come before a
    /// lower one, and may overlap others.
    ///
    /// ```
    /// use tensorhold_core::{Dtype, Selection};
    ///
    /// // A rank's half of each of two fused matrices of 4 rows: rows 0, 1, 4 and 5 of 8.
    /// let selection = Selection::of_ranges(Dtype::F16, &[8, 3], &[vec![0..2, 4..6], vec![0..3]])?;
    /// assert_eq!((selection.shape(), selection.max_runs()), (&[4, 3][..], 2));
    /// # Ok::<(), tensorhold_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidSlice` if there is not a list for each dimension, if a range passes its end, or if the result takes more than 2^20
    /// walks; `Misaligned` and `Overflow` as of [`resolve`](Selection::resolve).
    pub fn of_ranges(dtype: Dtype, shape: &[u64], ranges: &[Vec<Range<u64>>]) -> Result<Selection> {
        ranges::of_ranges(dtype, shape, ranges)
    }

    /// Of a row of `n_elements` a view of `shape`, its first element at `start`, with `strides` from one element to the next of each
    /// dimension, counted in elements, as PyTorch has them. Strides may be 0, and elements may come more than once.
    ///
    /// ```
    /// use tensorhold_core::{ByteRange, Dtype, Selection};
    ///
    /// // The transpose of 2 rows of 3.
    /// let selection = Selection::of_strides(Dtype::U8, 6, 0, &[3, 2], &[1, 3])?;
    /// let mut transposed = [0; 6];
    /// selection.gather(&[0, 1, 2, 3, 4, 5], &mut transposed);
    /// assert_eq!(transposed, [0, 3, 1, 4, 2, 5]);
    /// # Ok::<(), tensorhold_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidSlice` if an element would lie past the end, or there is not a stride for each dimension; `Misaligned` and `Overflow`
    /// as of [`resolve`](Selection::resolve).
    pub fn of_strides(
        dtype: Dtype,
        n_elements: u64,
        start: u64,
        shape: &[u64],
        strides: &[u64],
    ) -> Result<Selection> {
        strides::of_strides(dtype, n_elements, start, shape, strides)
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape of the result.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The size of the result in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether the result's bytes are the tensor's bytes, all of them and in their order.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_one_run() && self.size_bytes == self.tensor_bytes
    }

    /// The size of the tensor in bytes.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensor_bytes
    }

    /// Whether the result's bytes lie side by side in the tensor.
    #[must_use]
    pub fn is_run(&self) -> bool {
        self.is_one_run() && self.is_byte_aligned()
    }

    fn is_one_run(&self) -> bool {
        self.first.loops.is_empty() && self.rest.is_empty()
    }

    /// Whether every run begins and ends on a byte, as it does for all types of whole bytes.
    #[must_use]
    pub fn is_byte_aligned(&self) -> bool {
        let width_bits = u64::from(self.dtype.width_bits());
        self.nests()
            .flat_map(Nest::boundaries)
            .all(|n_elements| (n_elements % 8 * width_bits).is_multiple_of(8))
    }

    fn nests(&self) -> impl Iterator<Item = &Nest> {
        iter::once(&self.first)
            .chain(&self.rest)
            .filter(|nest| nest.run > 0)
    }

    /// The selected bytes in the order of the result, as ranges from the tensor's first byte on.
    /// Ranges that touch are one; where nothing is selected there are none.
    ///
    /// # Panics
    /// If the selection is not byte-aligned; then [`bit_runs`](Selection::bit_runs) serves.
    #[must_use]
    pub fn runs(&self) -> Runs<'_> {
        assert!(
            self.is_byte_aligned(),
            "runs of bytes were asked of a selection that begins inside a byte"
        );
        Runs::new(self)
    }

    /// The selected bits in the order of the result.
    #[must_use]
    pub fn bit_runs(&self) -> BitRuns<'_> {
        BitRuns::new(self)
    }

    /// The selection as loops around one run, in the time of its rank: of one that an [index](Selection::resolve) made at most
    /// one such walk, of others several, one behind the other in the result. None where nothing is selected.
    pub fn walks(&self) -> impl Iterator<Item = Strided<'_>> {
        self.nests().map(|nest| Strided {
            start: nest.start,
            run: nest.run,
            loops: &nest.loops,
        })
    }

    /// The number of runs, or a little more: runs that touch where one loop ends and the next one
    /// begins are counted twice here, and are one in [`runs`](Selection::runs).
    #[must_use]
    pub fn max_runs(&self) -> u64 {
        self.nests().map(|nest| nest.n_elements() / nest.run).sum()
    }

    /// The bytes of the tensor from the first to the last that is needed; empty if none is.
    #[must_use]
    pub fn span(&self) -> ByteRange {
        let spans = self.nests().map(Nest::span);
        let joined = spans.reduce(|(first, end), (start, stop)| (first.min(start), end.max(stop)));
        let width_bits = u64::from(self.dtype.width_bits());
        joined.map_or(ByteRange::default(), |(first, end)| {
            ByteRange::new(first * width_bits / 8, (end * width_bits).div_ceil(8))
        })
    }

    /// Copies the selection out of a tensor's bytes.
    ///
    /// Elements narrower than a byte come out packed anew, least significant bits first.
    ///
    /// # Panics
    /// If `tensor` or `into` has not the size of the tensor or of the result.
    pub fn gather(&self, tensor: &[u8], into: &mut [u8]) {
        assert_eq!(
            tensor.len() as u64,
            self.tensor_bytes,
            "the tensor has another size"
        );
        gather::gather(self, tensor, 0, into, |_| {});
    }

    /// Copies the selection out of those bytes of the tensor that [`span`](Selection::span) names.
    ///
    /// # Panics
    /// If `span` or `into` has not the size of the span or of the result.
    pub fn gather_span(&self, span: &[u8], into: &mut [u8]) {
        self.gather_span_announced(span, into, |_| {});
    }

    /// As [`gather_span`](Selection::gather_span). `announce` is given bytes that are copied a little later, where they lie so far
    /// apart that a processor does not expect them: it can fetch them from the memory meanwhile.
    ///
    /// # Panics
    /// If `span` or `into` has not the size of the span or of the result.
    pub fn gather_span_announced(&self, span: &[u8], into: &mut [u8], announce: impl Fn(&[u8])) {
        let range = self.span();
        assert_eq!(span.len() as u64, range.len(), "the span has another size");
        gather::gather(self, span, range.start, into, announce);
    }
}
