//! Matrices of words or bytes in which every column is a run of codes.
//!
//! A row of codes lies in few rows of words, in the same bits of each word, so that whole rows are taken out at
//! once.
//!
//! # Source
//! The weights of GPTQ, which are packed along K, the zero points of compressed-tensors, along N, and in bytes the weights
//! of modelopt's W4A16_AWQ, HQQ, quanto and BitNet.

use core::ops::Range;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::cast::level::{Level, Work};

use super::order::{BitOrder, Kind, check_codes, too_many};
use super::{awq, high_first, lsb, padded, planar};

/// Some bits of a code, where they lie in the words of its column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// The number of the word.
    pub(super) word: u64,
    /// The lowest of the bits in the word.
    pub(super) shift: u32,
    /// How many bits there are.
    pub(super) width: u32,
    /// The lowest of the bits in the code.
    pub(super) place: u32,
}

impl Piece {
    #[inline(always)]
    fn mask(self) -> u32 {
        (1 << self.width) - 1
    }
}

/// The pieces of a code: one in each of as many words, or planes.
pub(super) type Pieces = [Option<Piece>; 3];

impl BitOrder {
    /// The bytes of an element of a matrix whose columns can be runs: 1 where codes fill bytes, 4 where they fill words;
    /// `None` where some would lie in two bytes, or a run is longer than a word.
    #[must_use]
    pub const fn element_bytes(self) -> Option<u64> {
        match self.0 {
            Kind::Lsb(bits) if 8 % bits != 0 => None,
            Kind::AwqFast => None,
            Kind::Lsb(_) | Kind::HighFirst => Some(1),
            Kind::Strided(strided) => Some(strided.container_bytes()),
            Kind::LsbWords(_) | Kind::Padded(_) | Kind::Planar(_) | Kind::Awq => Some(4),
        }
    }

    /// The rows of elements that the rows `range` of codes lie in, where every column of a matrix of elements of
    /// [`BitOrder::element_bytes`] is a run.
    ///
    /// # Errors
    /// `InvalidArgument` when the order is not one of words; else as [`BitOrder::bytes_of`].
    pub fn rows_of(self, range: Range<u64>) -> Result<Range<u64>> {
        let Some(width) = self.element_bytes() else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "the order {self} fills no elements, and cannot go down the columns of a matrix"
                ),
            ));
        };
        let bytes = self.bytes_of(range)?;
        Ok(bytes.start / width..bytes.end.div_ceil(width))
    }

    /// Fills `into` with the rows of codes from `first` on, where every column of a matrix of words is a run.
    ///
    /// # Shapes
    /// `into` is rows of `n_columns` codes. `packed` is rows of `n_columns` words, those that
    /// [`BitOrder::rows_of`] has for these rows of codes, and no others.
    ///
    /// # Errors
    /// `InvalidArgument` when the lengths are not so, and what `rows_of` refuses.
    pub fn unpack_rows(
        self,
        packed: &[u8],
        n_columns: usize,
        first: u64,
        into: &mut [u8],
    ) -> Result<()> {
        let words = self.check_rows(packed.len(), n_columns, first, into.len())?;
        if into.is_empty() {
            return Ok(());
        }
        let rows = Rows {
            order: self,
            first_word: words.start,
            n_columns,
            first,
        };
        match self.element_bytes() {
            Some(1) => rows.unpack::<1>(packed.as_chunks().0, into),
            _ => rows.unpack::<4>(packed.as_chunks().0, into),
        }
        Ok(())
    }

    /// Fills `into` with the rows `codes`, so that every column of a matrix of words is a run; bits of no code
    /// become 0.
    ///
    /// # Shapes
    /// `codes` is rows of `n_columns` codes, and `into` rows of as many words, as many rows as
    /// [`BitOrder::rows_of`] has for all rows of codes.
    ///
    /// # Errors
    /// `InvalidArgument` when the lengths are not so, or a code has more bits than the order; what `rows_of` refuses.
    pub fn pack_rows(self, codes: &[u8], n_columns: usize, into: &mut [u8]) -> Result<()> {
        self.check_rows(into.len(), n_columns, 0, codes.len())?;
        check_codes(self.width_bits(), codes)?;
        into.fill(0);
        if codes.is_empty() {
            return Ok(());
        }
        let rows = Rows {
            order: self,
            first_word: 0,
            n_columns,
            first: 0,
        };
        match self.element_bytes() {
            Some(1) => rows.pack::<1>(codes, into.as_chunks_mut().0),
            _ => rows.pack::<4>(codes, into.as_chunks_mut().0),
        }
        Ok(())
    }

    /// The rows of words that `n_codes` codes from the row `first` on lie in, if `size_bytes` is what these take.
    fn check_rows(
        self,
        size_bytes: usize,
        n_columns: usize,
        first: u64,
        n_codes: usize,
    ) -> Result<Range<u64>> {
        let refuse = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
        let n_rows = n_codes.checked_div(n_columns).unwrap_or(0);
        if n_rows * n_columns != n_codes {
            return refuse(format!(
                "{n_codes} codes are no rows of {n_columns} columns"
            ));
        }
        let end = first.checked_add(n_rows as u64);
        let end = end.ok_or_else(|| too_many(n_rows as u64))?;
        let words = self.rows_of(first..end)?;
        let row_bytes = (n_columns as u64).checked_mul(self.element_bytes().unwrap_or(1));
        let wanted = row_bytes.and_then(|row| row.checked_mul(words.end - words.start));
        if wanted != Some(size_bytes as u64) {
            return refuse(format!(
                "rows {first}..{end} in the order {self} lie in {} rows of {n_columns} {}, but there are {size_bytes} bytes",
                words.end - words.start,
                if self.element_bytes() == Some(1) {
                    "bytes"
                } else {
                    "words"
                }
            ));
        }
        Ok(words)
    }

    #[inline(always)]
    fn pieces(self, code: u64) -> Pieces {
        match self.0 {
            Kind::Padded(bits) => padded::pieces(bits, code),
            Kind::Planar(bits) => planar::pieces(bits, code),
            Kind::Awq => awq::pieces(code),
            Kind::Strided(strided) => strided.pieces(code),
            Kind::HighFirst => high_first::pieces(code),
            Kind::Lsb(bits) => lsb::pieces::<8>(bits, code),
            _ => lsb::pieces::<32>(self.width_bits(), code),
        }
    }
}

/// Rows of codes from `first` on, in rows of elements from `first_word` on.
#[derive(Clone, Copy)]
struct Rows {
    order: BitOrder,
    first_word: u64,
    n_columns: usize,
    first: u64,
}

impl Rows {
    fn unpack<const WIDTH: usize>(self, words: &[[u8; WIDTH]], into: &mut [u8]) {
        let rows = self;
        Level::detect().run(Unpack { rows, words, into });
    }

    fn pack<const WIDTH: usize>(self, codes: &[u8], words: &mut [[u8; WIDTH]]) {
        let rows = self;
        Level::detect().run(Pack { rows, codes, words });
    }
}

struct Unpack<'a, const WIDTH: usize> {
    rows: Rows,
    words: &'a [[u8; WIDTH]],
    into: &'a mut [u8],
}

impl<const WIDTH: usize> Work for Unpack<'_, WIDTH> {
    #[inline(always)]
    fn run(self) {
        let Rows {
            order,
            first_word,
            n_columns,
            first,
        } = self.rows;
        for (codes, row) in self.into.chunks_exact_mut(n_columns).zip(first..) {
            for piece in order.pieces(row).into_iter().flatten() {
                let start = (piece.word - first_word) as usize * n_columns;
                let words = &self.words[start..][..n_columns];
                if piece.place == 0 {
                    for (code, word) in codes.iter_mut().zip(words) {
                        *code = (number(word) >> piece.shift & piece.mask()) as u8;
                    }
                } else {
                    for (code, word) in codes.iter_mut().zip(words) {
                        let bits = number(word) >> piece.shift & piece.mask();
                        *code |= (bits << piece.place) as u8;
                    }
                }
            }
        }
    }
}

struct Pack<'a, const WIDTH: usize> {
    rows: Rows,
    codes: &'a [u8],
    words: &'a mut [[u8; WIDTH]],
}

impl<const WIDTH: usize> Work for Pack<'_, WIDTH> {
    #[inline(always)]
    fn run(self) {
        let Rows {
            order, n_columns, ..
        } = self.rows;
        for (codes, row) in self.codes.chunks_exact(n_columns).zip(0..) {
            for piece in order.pieces(row).into_iter().flatten() {
                let start = piece.word as usize * n_columns;
                let words = &mut self.words[start..][..n_columns];
                for (code, word) in codes.iter().zip(words) {
                    let bits = (u32::from(*code) >> piece.place & piece.mask()) << piece.shift;
                    let number = (number(word) | bits).to_le_bytes();
                    word.copy_from_slice(&number[..WIDTH]);
                }
            }
        }
    }
}

/// An element of 1 or 4 bytes as a number.
#[inline(always)]
fn number<const WIDTH: usize>(element: &[u8; WIDTH]) -> u32 {
    let mut bytes = [0; 4];
    bytes[..WIDTH].copy_from_slice(element);
    u32::from_le_bytes(bytes)
}
