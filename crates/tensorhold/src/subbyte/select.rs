//! Parts of tensors of narrow integers: which bytes hold them, and the integers out of these.

use std::ops::Range;

use tensorhold_core::{Bounds, Dtype, Error, ErrorKind, Index, Result, Selection};

use super::{NarrowInt, NarrowTensor};

/// What the bits above an integer are, in the byte that it is given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Widths {
    /// Zeros, as in `ml_dtypes`.
    Codes,
    /// Copies of the sign, if the type has one, as in types of 8 bits.
    Values,
}

/// A part of a tensor of narrow integers.
///
/// ```
/// use tensorhold::{Bounds, Index, NarrowInt, NarrowTensor, Widths};
///
/// // x[1, ::-2] of 2 lines of 3 integers, each line in 2 bytes.
/// let tensor = NarrowTensor::new(NarrowInt::from_name("I4").unwrap(), &[2, 3])?;
/// let back = Index::Range { start: None, stop: None, step: Some(-2) };
/// let selection = tensor.select(&[Index::At(1), back], Bounds::Clamped)?;
/// assert_eq!((selection.shape(), selection.stored().shape()), (&[2][..], &[2][..]));
/// let mut values = [0; 2];
/// selection.unpack(&[0xf4, 0x05], Widths::Values, &mut values)?;
/// assert_eq!(values, [5, 4]);
/// # Ok::<(), tensorhold::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct NarrowSelection {
    dtype: NarrowInt,
    shape: Vec<u64>,
    stored: Selection,
    line: Line,
}

/// What is taken of each line.
#[derive(Debug, Clone)]
struct Line {
    /// From the lowest integer that is taken to behind the highest.
    span: Range<u64>,
    count: u64,
    step: i64,
    /// The bytes in which the span lies.
    n_bytes: u64,
}

impl NarrowSelection {
    /// The type of the integers.
    #[must_use]
    pub fn dtype(&self) -> NarrowInt {
        self.dtype
    }

    /// The shape of the result, counted in integers.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The bytes that are needed, as a part of the tensor of U8.
    #[must_use]
    pub fn stored(&self) -> &Selection {
        &self.stored
    }

    /// The number of integers.
    #[must_use]
    pub fn n_values(&self) -> u64 {
        self.n_lines() * self.line.count
    }

    fn n_lines(&self) -> u64 {
        match self.line.n_bytes {
            0 => 0,
            n_bytes => self.stored.size_bytes() / n_bytes,
        }
    }

    /// Fills `into` with the integers that lie in `bytes`, those that [`stored`](NarrowSelection::stored) selects.
    ///
    /// # Errors
    /// `InvalidArgument` when there are more or fewer bytes, or there is room for more or fewer integers.
    pub fn unpack(&self, bytes: &[u8], widths: Widths, into: &mut [u8]) -> Result<()> {
        let (stored, values) = (self.stored.size_bytes(), self.n_values());
        if bytes.len() as u64 != stored || into.len() as u64 != values {
            let (given, room) = (bytes.len(), into.len());
            let message = format!(
                "{values} integers in {stored} bytes: {given} bytes were given, and room for {room} integers"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if into.is_empty() {
            return Ok(());
        }
        match self.line.step {
            1 => self.unpack_runs(bytes, into)?,
            _ => self.unpack_steps(bytes, into)?,
        }
        if widths == Widths::Values && self.dtype.is_signed() {
            into.iter_mut()
                .for_each(|code| *code = self.dtype.widened(*code));
        }
        Ok(())
    }

    fn unpack_runs(&self, bytes: &[u8], into: &mut [u8]) -> Result<()> {
        let Line {
            span,
            count,
            n_bytes,
            ..
        } = &self.line;
        let order = self.dtype.order();
        let is_whole =
            |codes: u64| (codes % 8 * u64::from(self.dtype.width_bits())).is_multiple_of(8);
        if is_whole(span.start) && is_whole(*count) {
            // Lines that fill their bytes are one.
            return order.unpack(bytes, 0, into);
        }
        let lines = bytes
            .chunks(in_memory(*n_bytes))
            .zip(into.chunks_mut(in_memory(*count)));
        for (bytes, into) in lines {
            order.unpack(bytes, span.start, into)?;
        }
        Ok(())
    }

    fn unpack_steps(&self, bytes: &[u8], into: &mut [u8]) -> Result<()> {
        let Line {
            span,
            count,
            step,
            n_bytes,
        } = &self.line;
        let mut codes = vec![0; in_memory(span.end - span.start)];
        let stride = in_memory(step.unsigned_abs());
        let lines = bytes
            .chunks(in_memory(*n_bytes))
            .zip(into.chunks_mut(in_memory(*count)));
        for (bytes, into) in lines {
            self.dtype.order().unpack(bytes, span.start, &mut codes)?;
            match *step > 0 {
                true => copy(codes.iter().step_by(stride), into),
                false => copy(codes.iter().rev().step_by(stride), into),
            }
        }
        Ok(())
    }
}

fn copy<'a>(codes: impl Iterator<Item = &'a u8>, into: &mut [u8]) {
    into.iter_mut()
        .zip(codes)
        .for_each(|(into, code)| *into = *code);
}

/// A number of what lies in memory.
fn in_memory(count: u64) -> usize {
    usize::try_from(count)
        .expect("there is no more of it than of the bytes in memory, or of the integers in them")
}

pub(super) fn select(
    tensor: &NarrowTensor,
    index: &[Index],
    bounds: Bounds,
) -> Result<NarrowSelection> {
    // As of a tensor with a byte for each integer.
    let logical = Selection::resolve(Dtype::U8, &tensor.shape, index, bounds)?;
    let part = last_part(index, tensor.shape.len());
    let line = Line::of(tensor, part.map(|at| index[at]))?;
    let mut bytes = Index::ALL;
    if let Some(&last) = tensor.shape.last() {
        let range = match line.count {
            0 => 0..0,
            _ => {
                let bytes = tensor.dtype.order().bytes_of(line.span.clone())?;
                bytes.start..bytes.end
            }
        };
        debug_assert!(line.span.end <= last);
        bytes = range_of(range)?;
    }
    let mut parts: Vec<Index> = index.to_vec();
    match (part, tensor.shape.is_empty()) {
        (Some(at), _) => parts[at] = bytes,
        (None, true) => parts = vec![Index::ALL],
        (None, false) => {}
    }
    let stored = Selection::resolve(Dtype::U8, &tensor.stored_shape, &parts, Bounds::Clamped)?;
    Ok(NarrowSelection {
        dtype: tensor.dtype,
        shape: logical.shape().to_vec(),
        stored,
        line,
    })
}

/// Which part of `index` is for the last of `rank` dimensions, if one is.
fn last_part(index: &[Index], rank: usize) -> Option<usize> {
    let is_named = |part: &Index| matches!(part, Index::At(_) | Index::Range { .. });
    let n_named = index.iter().filter(|part| is_named(part)).count();
    let last = index.iter().rposition(is_named)?;
    let ellipsis = index.iter().position(|part| *part == Index::Ellipsis);
    let is_last = n_named == rank || ellipsis.is_some_and(|ellipsis| ellipsis < last);
    is_last.then_some(last)
}

fn range_of(range: Range<u64>) -> Result<Index> {
    let bound = |bound: u64| {
        i64::try_from(bound).map_err(|_| {
            let message = format!("byte {bound} of a line is past 2^63");
            Error::new(ErrorKind::Overflow, message)
        })
    };
    Ok(Index::Range {
        start: Some(bound(range.start)?),
        stop: Some(bound(range.end)?),
        step: None,
    })
}

impl Line {
    fn of(tensor: &NarrowTensor, part: Option<Index>) -> Result<Line> {
        let size = tensor.shape.last().copied().unwrap_or(1);
        let index = part.unwrap_or(Index::ALL);
        let taken = Selection::resolve(Dtype::U8, &[size], &[index], Bounds::Clamped)?;
        let span = taken.span();
        let step = match (taken.walks().next(), index) {
            (Some(walk), _) => walk.loops.first().map_or(1, |each| each.stride),
            (None, _) => 1,
        };
        let span = span.start..span.end;
        Ok(Line {
            count: taken.size_bytes(),
            step,
            n_bytes: tensor.dtype.order().bytes_of(span.clone())?.len(),
            span,
        })
    }
}
