//! Matrices of words in which every column is a run of codes.
//!
//! A row of codes lies in few rows of words, in the same bits of each word, so that whole rows are taken out at
//! once.
//!
//! # Source
//! The weights of GPTQ, which are packed along K, and the zero points of compressed-tensors, along N.

use core::ops::Range;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::cast::level::{Level, Work};

use super::order::{BitOrder, Kind, check_codes, too_many};
use super::{awq, lsb, padded, planar};

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
    /// The rows of words that the rows `range` of codes lie in, where every column of a matrix of words of 32 bits
    /// is a run.
    ///
    /// # Errors
    /// `InvalidArgument` when the order is not one of words; else as [`BitOrder::bytes_of`].
    pub fn rows_of(self, range: Range<u64>) -> Result<Range<u64>> {
        if matches!(
            self.0,
            Kind::Lsb(_) | Kind::Strided(_) | Kind::HighFirst | Kind::AwqFast
        ) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "the order {self} has no words, and cannot go down the columns of a matrix"
                ),
            ));
        }
        let bytes = self.bytes_of(range)?;
        Ok(bytes.start / 4..bytes.end.div_ceil(4))
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
        if !into.is_empty() {
            Level::detect().run(Unpack {
                order: self,
                words: packed.as_chunks().0,
                first_word: words.start,
                n_columns,
                first,
                into,
            });
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
        if !codes.is_empty() {
            Level::detect().run(Pack {
                order: self,
                codes,
                n_columns,
                words: into.as_chunks_mut().0,
            });
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
        let row_bytes = (n_columns as u64).checked_mul(4);
        let wanted = row_bytes.and_then(|row| row.checked_mul(words.end - words.start));
        if wanted != Some(size_bytes as u64) {
            return refuse(format!(
                "rows {first}..{end} in the order {self} lie in {} rows of {n_columns} words, but there are {size_bytes} bytes",
                words.end - words.start
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
            _ => lsb::pieces(self.width_bits(), code),
        }
    }
}

struct Unpack<'a> {
    order: BitOrder,
    words: &'a [[u8; 4]],
    first_word: u64,
    n_columns: usize,
    first: u64,
    into: &'a mut [u8],
}

impl Work for Unpack<'_> {
    #[inline(always)]
    fn run(self) {
        let rows = self.into.chunks_exact_mut(self.n_columns);
        for (codes, row) in rows.zip(self.first..) {
            for piece in self.order.pieces(row).into_iter().flatten() {
                let start = (piece.word - self.first_word) as usize * self.n_columns;
                let words = &self.words[start..][..self.n_columns];
                if piece.place == 0 {
                    for (code, word) in codes.iter_mut().zip(words) {
                        *code = (u32::from_le_bytes(*word) >> piece.shift & piece.mask()) as u8;
                    }
                } else {
                    for (code, word) in codes.iter_mut().zip(words) {
                        let bits = u32::from_le_bytes(*word) >> piece.shift & piece.mask();
                        *code |= (bits << piece.place) as u8;
                    }
                }
            }
        }
    }
}

struct Pack<'a> {
    order: BitOrder,
    codes: &'a [u8],
    n_columns: usize,
    words: &'a mut [[u8; 4]],
}

impl Work for Pack<'_> {
    #[inline(always)]
    fn run(self) {
        for (codes, row) in self.codes.chunks_exact(self.n_columns).zip(0..) {
            for piece in self.order.pieces(row).into_iter().flatten() {
                let start = piece.word as usize * self.n_columns;
                let words = &mut self.words[start..][..self.n_columns];
                for (code, word) in codes.iter().zip(words) {
                    let bits = (u32::from(*code) >> piece.place & piece.mask()) << piece.shift;
                    *word = (u32::from_le_bytes(*word) | bits).to_le_bytes();
                }
            }
        }
    }
}
