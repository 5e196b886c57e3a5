//! Weights of which most elements are zero, as compressed-tensors wrote them until 0.11.

use core::ops::Range;

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, shape_size_bytes};

use super::parts::{Part, Parts};

/// The elements that are not zero, row by row, and a bit for each element that says whether it is one of them.
///
/// It is no [`Recipe`](super::Recipe), since bits say which values a slice needs: rows are read in two steps, first
/// [`SparseBitmask::offset_bytes`], where there are offsets, and then [`SparseBitmask::value_bytes`].
/// What comes of it is a weight of the type of the values; FP8 with `weight_scale` beside it is then [`Fp8`](super::Fp8).
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
        let width = width.ok_or_else(|| compressed.wrong("it must be whole bytes"))?;
        shape_size_bytes(compressed.dtype, &shape)?;
        shape_size_bytes(compressed.dtype, compressed.shape)?;
        let bitmask = parts.part("bitmask")?.of_dtype(&[Dtype::U8])?;
        bitmask.of_shape(&[&[rows, columns.div_ceil(8)]])?;
        let values = match parts.find("row_offsets") {
            Some(offsets) => {
                offsets.of_dtype(&[Dtype::I64])?.of_shape(&[&[rows]])?;
                shape_size_bytes(Dtype::I64, &[rows])?;
                let [n_values] = compressed.dims()?;
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
        let (start, end) = match self.values {
            _ if rows.is_empty() => (0, 0),
            Values::Each(n_values) => (rows.start * n_values, rows.end * n_values),
            Values::Offset(n_values) => {
                let offsets = offsets.as_chunks().0;
                let offset = |row: u64| {
                    let offset = offsets.get((row - rows.start) as usize);
                    offset.map_or(n_values, |bytes| u64::from_le_bytes(*bytes))
                };
                let (start, end) = (offset(rows.start), offset(rows.end));
                if start > end || end > n_values {
                    let message = format!(
                        "part `row_offsets`: rows {rows:?} begin at {start} and end at {end} of {n_values} values"
                    );
                    return Err(Error::new(ErrorKind::InvalidTensor, message));
                }
                (start, end)
            }
        };
        Ok(ByteRange::new(start * self.width, end * self.width))
    }

    /// Writes the elements of `rows` into `into`, row by row, of the bytes that [`SparseBitmask::mask_bytes`] and
    /// [`SparseBitmask::value_bytes`] name.
    ///
    /// # Errors
    /// `InvalidSlice` for rows that there are not; `InvalidArgument` when there are more or fewer bytes or there is other room;
    /// `InvalidTensor` when the bits are not as many as the values.
    pub fn scatter(
        &self,
        rows: Range<u64>,
        bitmask: &[u8],
        values: &[u8],
        into: &mut [u8],
    ) -> Result<()> {
        let mask = self.mask_bytes(rows.clone())?.len();
        if mask != bitmask.len() as u64 {
            return Err(wrong_length("bitmask", mask, bitmask.len()));
        }
        let [_, columns] = self.shape;
        let size = (rows.end - rows.start) * columns * self.width;
        if size != into.len() as u64 {
            return Err(wrong_length("the weight", size, into.len()));
        }
        into.fill(0);
        let (width, columns) = (self.width as usize, columns as usize);
        let mut rest = values.chunks_exact(width);
        let lines = bitmask.chunks(columns.div_ceil(8).max(1));
        for (bits, line) in lines.zip(into.chunks_mut((columns * width).max(1))) {
            for (column, element) in line.chunks_exact_mut(width).enumerate() {
                if bits[column / 8] >> (column % 8) & 1 == 1 {
                    element.copy_from_slice(rest.next().ok_or_else(|| wrong_values(values))?);
                }
            }
        }
        match rest.len() == 0 && values.len().is_multiple_of(width) {
            true => Ok(()),
            false => Err(wrong_values(values)),
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

fn wrong_values(values: &[u8]) -> Error {
    let message = format!(
        "part `bitmask` has other than as many bits as there are values in {} bytes",
        values.len()
    );
    Error::new(ErrorKind::InvalidTensor, message)
}
