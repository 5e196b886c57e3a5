//! Weights of which most elements are zero, as compressed-tensors wrote them until 0.11.

use core::ops::Range;

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, shape_size_bytes};

use super::parts::{Part, Parts};
use super::{Need, Recipe, Window};

/// A weight whose zeros are left out: where its elements belong, and what they are once they are there.
///
/// Its parts are `compressed`, `bitmask`, `row_offsets` where there are offsets, and those of the recipe but its codes.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    mask: SparseBitmask,
    recipe: Option<Recipe>,
}

impl Sparse {
    /// The weight whose elements `mask` puts in their places, where they are weights, or codes of `recipe`.
    ///
    /// # Errors
    /// `InvalidArgument` for codes that are not one element each, in the order of the weight.
    pub fn new(mask: SparseBitmask, recipe: Option<Recipe>) -> Result<Sparse> {
        if let Some(recipe) = &recipe {
            let all = recipe.needs(&recipe.whole())?[0].size_bytes()?;
            let is_one_each = all == shape_size_bytes(mask.dtype, &mask.shape)?;
            if recipe.shape != mask.shape || recipe.is_flat() || !is_one_each {
                let message = format!(
                    "codes of a weight of {:?} are not the elements of one of {:?}",
                    recipe.shape, mask.shape
                );
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        Ok(Sparse { mask, recipe })
    }

    /// Where the elements belong.
    #[must_use]
    pub const fn mask(&self) -> &SparseBitmask {
        &self.mask
    }

    /// What the elements are codes of; `None` where they are the weights.
    #[must_use]
    pub const fn recipe(&self) -> Option<&Recipe> {
        self.recipe.as_ref()
    }

    /// The shape of the weight.
    #[must_use]
    pub const fn shape(&self) -> &[u64] {
        &self.mask.shape
    }

    /// All of the weight.
    #[must_use]
    pub fn whole(&self) -> Window {
        let [n_rows, n_columns] = self.mask.shape;
        Window {
            experts: 0..1,
            rows: 0..n_rows,
            columns: 0..n_columns,
        }
    }

    /// What of each part `window` needs: `compressed`, `bitmask` and `row_offsets` whole rows, the other parts as [`Recipe::needs`]
    /// has them. Where there are offsets, `compressed` is all that there is: [`Sparse::values`] says what of it is needed.
    ///
    /// # Errors
    /// Those of [`Recipe::needs`].
    pub fn needs(&self, window: &Window) -> Result<Vec<Need>> {
        let [n_rows, n_columns] = self.mask.shape;
        window.check([1, n_rows, n_columns])?;
        let (mask, all, rows) = (&self.mask, 0..n_rows, window.rows.clone());
        let all_values = mask.all_values();
        let values = match mask.values {
            Values::Each(_) => mask.value_bytes(rows.clone(), &[])?,
            Values::Offset(_) => all_values,
        };
        let bits = (
            mask.mask_bytes(all.clone())?,
            mask.mask_bytes(rows.clone())?,
        );
        let mut needs = vec![
            need("compressed", all_values, values),
            need("bitmask", bits.0, bits.1),
        ];
        if mask.has_offsets() {
            let offsets = (mask.offset_bytes(all)?, mask.offset_bytes(rows)?);
            needs.push(need("row_offsets", offsets.0, offsets.1));
        }
        if let Some(recipe) = &self.recipe {
            needs.extend(recipe.needs(window)?.into_iter().skip(1));
        }
        Ok(needs)
    }

    /// What of `compressed` the rows of `window` need, by their `offsets`; those are none where there are no offsets.
    ///
    /// # Errors
    /// Those of [`SparseBitmask::value_bytes`].
    pub fn values(&self, window: &Window, offsets: &[u8]) -> Result<Need> {
        let values = self.mask.value_bytes(window.rows.clone(), offsets)?;
        Ok(need("compressed", self.mask.all_values(), values))
    }
}

/// Bytes of a part of which there are `all`.
fn need(part: &'static str, all: ByteRange, wanted: ByteRange) -> Need {
    Need {
        part,
        dtype: Dtype::U8,
        view: [1, 1, all.end],
        ranges: [0..1, 0..1, wanted.start..wanted.end],
    }
}

/// The elements that are not zero, row by row, and a bit for each element that says whether it is one of them.
///
/// It is no [`Recipe`], since bits say which values a slice needs: rows are read in two steps, first
/// [`SparseBitmask::offset_bytes`], where there are offsets, and then [`SparseBitmask::value_bytes`].
/// What comes of it is a weight of the type of the values; [`Sparse`] says what else, such as FP8 with `weight_scale` beside it.
///
/// # Shapes
/// `compressed`, any type of whole bytes: `[n]` with `row_offsets` I64 `[N]`, or `[N, K / 2]` without; `bitmask` U8 `[N, ceil(K / 8)]`,
/// lowest bit first; `shape` I64, whose numbers are N and K. The weight is `[N, K]`.
///
/// # Source
/// compressed-tensors 0.11.0, `sparse-bitmask` and `sparse-24-bitmask`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseBitmask {
    shape: [u64; 2],
    dtype: Dtype,
    width: u64,
    values: Values,
}

/// Where the values of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// From its offset to the next, of so many in all.
    Offset(u64),
    /// So many in each row.
    Each(u64),
}

const OFFSET_BYTES: u64 = 8;

impl SparseBitmask {
    /// What the names of the parts end in.
    pub const PARTS: &'static [&'static str] = &["compressed", "bitmask", "row_offsets", "shape"];

    /// The weight of `shape` that these parts are.
    ///
    /// # Errors
    /// `TensorNotFound` for a part that is missing; `InvalidTensor` for one whose type or shape does not suit the others;
    /// `Overflow` past 2^64 bits.
    pub fn new(parts: &Parts<'_>, shape: [u64; 2]) -> Result<SparseBitmask> {
        let [rows, columns] = shape;
        let compressed = parts.part("compressed")?;
        let width = compressed.dtype.width_bytes();
        let width = width.filter(|width| matches!(width, 1 | 2 | 4 | 8));
        let width = width.ok_or_else(|| compressed.wrong("it must be 1, 2, 4 or 8 bytes each"))?;
        shape_size_bytes(compressed.dtype, &shape)?;
        shape_size_bytes(compressed.dtype, compressed.shape)?;
        let bitmask = parts.part("bitmask")?.of_dtype(&[Dtype::U8])?;
        bitmask.of_shape(&[&[rows, columns.div_ceil(8)]])?;
        let values = match parts.find("row_offsets") {
            Some(offsets) => {
                offsets.of_dtype(&[Dtype::I64])?.of_shape(&[&[rows]])?;
                shape_size_bytes(Dtype::I64, &[rows])?;
                let [n_values] = compressed.dims()?;
                if n_values > rows * columns {
                    let must = format!("a weight of {rows} x {columns} has no more elements");
                    return Err(compressed.wrong(&must));
                }
                Values::Offset(n_values)
            }
            None => Values::Each(half(compressed, rows, columns)?),
        };
        Ok(SparseBitmask {
            shape,
            dtype: compressed.dtype,
            width: width.into(),
            values,
        })
    }

    /// The type of the weight.
    #[must_use]
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape of the weight.
    #[must_use]
    pub const fn shape(&self) -> [u64; 2] {
        self.shape
    }

    /// The bytes of `bitmask` that `rows` need.
    ///
    /// # Errors
    /// `InvalidSlice` for rows that there are not.
    pub fn mask_bytes(&self, rows: Range<u64>) -> Result<ByteRange> {
        self.check(&rows)?;
        let line = self.shape[1].div_ceil(8);
        Ok(ByteRange::new(rows.start * line, rows.end * line))
    }

    /// The bytes of `row_offsets` that `rows` need, none where there are no offsets.
    ///
    /// # Errors
    /// `InvalidSlice` for rows that there are not.
    pub fn offset_bytes(&self, rows: Range<u64>) -> Result<ByteRange> {
        self.check(&rows)?;
        Ok(match self.values {
            Values::Offset(_) if !rows.is_empty() => {
                let end = (rows.end + 1).min(self.shape[0]);
                ByteRange::new(rows.start * OFFSET_BYTES, end * OFFSET_BYTES)
            }
            _ => ByteRange::new(0, 0),
        })
    }

    /// The bytes of `compressed` that `rows` need, by those that [`SparseBitmask::offset_bytes`] names.
    ///
    /// # Errors
    /// `InvalidSlice` for rows that there are not; `InvalidArgument` when there are more or fewer `offsets`; `InvalidTensor` when
    /// the offsets are none of these values.
    pub fn value_bytes(&self, rows: Range<u64>, offsets: &[u8]) -> Result<ByteRange> {
        let wanted = self.offset_bytes(rows.clone())?;
        if wanted.len() != offsets.len() as u64 {
            return Err(wrong_length("row_offsets", wanted.len(), offsets.len()));
        }
        let (start, end) = match rows.is_empty() {
            true => (0, 0),
            false => {
                let first = self.row_values(rows.start, rows.start, offsets)?;
                let last = self.row_values(rows.end - 1, rows.start, offsets)?;
                (first.start, last.end)
            }
        };
        if start > end {
            let message =
                format!("part `row_offsets`: rows {rows:?} begin at {start} and end at {end}");
            return Err(Error::new(ErrorKind::InvalidTensor, message));
        }
        Ok(ByteRange::new(start * self.width, end * self.width))
    }

    /// Writes the elements of `rows` into `into`, row by row, of the bytes that [`SparseBitmask::mask_bytes`],
    /// [`SparseBitmask::offset_bytes`] and [`SparseBitmask::value_bytes`] name.
    ///
    /// # Errors
    /// `InvalidArgument` when there is other room; those of [`SparseBitmask::check_rows`]; `InvalidTensor` when there are more or fewer
    /// values than bits.
    pub fn scatter(
        &self,
        rows: Range<u64>,
        bitmask: &[u8],
        offsets: &[u8],
        values: &[u8],
        into: &mut [u8],
    ) -> Result<()> {
        self.check(&rows)?;
        let [_, columns] = self.shape;
        let size = (rows.end - rows.start) * columns * self.width;
        if size != into.len() as u64 {
            return Err(wrong_length("the weight", size, into.len()));
        }
        let line_bytes = (columns * self.width) as usize;
        let lines = self.lines(rows, bitmask, offsets, values)?;
        lines
            .zip(into.chunks_mut(line_bytes.max(1)))
            .for_each(|(line, into)| line.put(into));
        Ok(())
    }

    /// Refuses `rows` whose bits and offsets do not suit each other, by the bytes that [`SparseBitmask::mask_bytes`] and
    /// [`SparseBitmask::offset_bytes`] name.
    ///
    /// # Errors
    /// `InvalidSlice` for rows that there are not; `InvalidArgument` when there are more or fewer bytes; `InvalidTensor` when a row
    /// has bits past its columns, or more or fewer than values, and when offsets go back or past the values.
    pub fn check_rows(&self, rows: Range<u64>, bitmask: &[u8], offsets: &[u8]) -> Result<()> {
        let mask = self.mask_bytes(rows.clone())?.len();
        if mask != bitmask.len() as u64 {
            return Err(wrong_length("bitmask", mask, bitmask.len()));
        }
        self.value_bytes(rows.clone(), offsets)?;
        let columns = self.shape[1];
        let padding = (0xff << (columns % 8)) * u8::from(!columns.is_multiple_of(8));
        for (bits, row) in self.bits(bitmask).zip(rows.clone()) {
            if bits.last().is_some_and(|last| last & padding != 0) {
                let message =
                    format!("part `bitmask`: row {row} has bits past its {columns} columns");
                return Err(Error::new(ErrorKind::InvalidTensor, message));
            }
            let (n_bits, values) = (n_bits(bits), self.row_values(row, rows.start, offsets)?);
            if n_bits != values.end - values.start {
                let message = format!(
                    "part `bitmask`: row {row} has {n_bits} bits for {} values",
                    values.end - values.start
                );
                return Err(Error::new(ErrorKind::InvalidTensor, message));
            }
        }
        Ok(())
    }

    /// Each of `rows` with its values; refuses what [`SparseBitmask::scatter`] does.
    pub(crate) fn lines<'a>(
        &self,
        rows: Range<u64>,
        bitmask: &'a [u8],
        offsets: &[u8],
        values: &'a [u8],
    ) -> Result<impl Iterator<Item = Line<'a>>> {
        self.check_rows(rows.clone(), bitmask, offsets)?;
        let wanted = self.value_bytes(rows, offsets)?.len();
        if wanted != values.len() as u64 {
            return Err(wrong_values(wanted, values));
        }
        let (width, mut rest) = (self.width as usize, values);
        Ok(self.bits(bitmask).map(move |bits| {
            let (values, after) = rest.split_at(n_bits(bits) as usize * width);
            rest = after;
            Line {
                bits,
                values,
                width,
            }
        }))
    }

    /// Whether there is a part `row_offsets`.
    pub(crate) const fn has_offsets(&self) -> bool {
        matches!(self.values, Values::Offset(_))
    }

    /// All bytes of `compressed`.
    fn all_values(&self) -> ByteRange {
        let n_values = match self.values {
            Values::Offset(n_values) => n_values,
            Values::Each(n_values) => self.shape[0] * n_values,
        };
        ByteRange::new(0, n_values * self.width)
    }

    /// The bits of each row; none where rows are of no columns.
    fn bits<'a>(&self, bitmask: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        bitmask.chunks(self.shape[1].div_ceil(8).max(1) as usize)
    }

    /// Which values are those of `row`, by the offsets of it and those after it, which begin at row `first`.
    fn row_values(&self, row: u64, first: u64, offsets: &[u8]) -> Result<Range<u64>> {
        let n_values = match self.values {
            Values::Each(n_values) => return Ok(row * n_values..(row + 1) * n_values),
            Values::Offset(n_values) => n_values,
        };
        let offset = |row: u64| {
            let offset = offsets.as_chunks().0.get((row - first) as usize);
            offset.map_or(n_values, |bytes| u64::from_le_bytes(*bytes))
        };
        let (start, end) = (offset(row), offset(row + 1));
        match start <= end && end <= n_values && (row > 0 || start == 0) {
            true => Ok(start..end),
            false => {
                let message = format!(
                    "part `row_offsets`: row {row} begins at {} and ends at {} of {n_values} values",
                    start as i64, end as i64
                );
                Err(Error::new(ErrorKind::InvalidTensor, message))
            }
        }
    }

    fn check(&self, rows: &Range<u64>) -> Result<()> {
        let n_rows = self.shape[0];
        match rows.start <= rows.end && rows.end <= n_rows {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::InvalidSlice,
                format!("there are no rows {rows:?} in a weight of {n_rows}"),
            )),
        }
    }
}

/// The values of a row of a weight of which two of four are there.
fn half(compressed: Part<'_>, rows: u64, columns: u64) -> Result<u64> {
    if !columns.is_multiple_of(4) {
        let must = format!("of {columns} columns there are no two of each four");
        return Err(compressed.wrong(&must));
    }
    compressed.of_shape(&[&[rows, columns / 2]])?;
    Ok(columns / 2)
}

fn wrong_length(what: &str, wanted: u64, found: usize) -> Error {
    let message = format!("these rows take {wanted} bytes of {what}, but there are {found}");
    Error::new(ErrorKind::InvalidArgument, message)
}

fn wrong_values(wanted: u64, values: &[u8]) -> Error {
    let message = format!(
        "part `bitmask` has bits for {wanted} bytes of values, but there are {}",
        values.len()
    );
    Error::new(ErrorKind::InvalidTensor, message)
}

fn n_bits(bits: &[u8]) -> u64 {
    bits.iter().map(|bits| u64::from(bits.count_ones())).sum()
}

/// The bits and the values of one row, as many of one as of the other.
pub(crate) struct Line<'a> {
    bits: &'a [u8],
    values: &'a [u8],
    width: usize,
}

impl Line<'_> {
    /// Fills `into` with the elements of the row.
    pub fn put(&self, into: &mut [u8]) {
        match self.width {
            1 => self.put_wide::<1>(into),
            2 => self.put_wide::<2>(into),
            4 => self.put_wide::<4>(into),
            _ => self.put_wide::<8>(into),
        }
    }

    fn put_wide<const WIDTH: usize>(&self, into: &mut [u8]) {
        into.fill(0);
        let mut values = self.values.as_chunks::<WIDTH>().0.iter();
        let elements = into.as_chunks_mut::<WIDTH>().0;
        for (bits, elements) in self.bits.iter().zip(elements.chunks_mut(8)) {
            let mut bits = *bits;
            while bits != 0 {
                let place = bits.trailing_zeros() as usize;
                if let (Some(element), Some(value)) = (elements.get_mut(place), values.next()) {
                    *element = *value;
                }
                bits &= bits - 1;
            }
        }
    }
}
