//! The order in which cuBLAS wants the scales of a matrix.

use tensorhold_core::{Error, ErrorKind, Result};

const TILE_ROWS: u64 = 128;
const TILE_COLUMNS: u64 = 4;
const TILE: u64 = TILE_ROWS * TILE_COLUMNS;
/// Rows that lie one after another in a tile; the other three lots of them lie beside each.
const LOT_ROWS: u64 = 32;

/// A matrix of scales of one byte in tiles of 128 rows and 4 columns, whose edges are filled up.
///
/// Tiles lie row by row. In a tile, each of 32 rows of 16 bytes has the scales of the rows `r`, `r + 32`,
/// `r + 64` and `r + 96`, 4 columns of each.
///
/// # Source
/// The documentation of cuBLAS on scaling factors of blocks; `to_blocked` of torchao.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockedScales {
    n_rows: u64,
    n_columns: u64,
}

impl BlockedScales {
    /// The places of `n_rows` times `n_columns` scales.
    ///
    /// # Errors
    /// `Overflow` when they take more than 2^64 bytes with what fills up the tiles.
    pub fn new(n_rows: u64, n_columns: u64) -> Result<BlockedScales> {
        let rows = n_rows.div_ceil(TILE_ROWS).checked_mul(TILE);
        let size = rows.and_then(|rows| rows.checked_mul(n_columns.div_ceil(TILE_COLUMNS)));
        match size {
            Some(_) => Ok(BlockedScales { n_rows, n_columns }),
            None => Err(Error::new(
                ErrorKind::Overflow,
                format!("{n_rows} x {n_columns} scales in tiles take more than 2^64 bytes"),
            )),
        }
    }

    /// The number of bytes, with those that fill up the tiles.
    #[must_use]
    pub const fn size_bytes(self) -> u64 {
        self.n_rows.div_ceil(TILE_ROWS) * self.tiles_in_row() * TILE
    }

    /// The offset of the scale at `row` and `column`, or `None` outside of the matrix.
    #[must_use]
    pub const fn offset(self, row: u64, column: u64) -> Option<u64> {
        if row >= self.n_rows || column >= self.n_columns {
            return None;
        }
        let tile = row / TILE_ROWS * self.tiles_in_row() + column / TILE_COLUMNS;
        let lot = row % TILE_ROWS / LOT_ROWS;
        let in_tile = (row % LOT_ROWS * (TILE_ROWS / LOT_ROWS) + lot) * TILE_COLUMNS;
        Some(tile * TILE + in_tile + column % TILE_COLUMNS)
    }

    /// The row and the column of the scale at `offset`, or `None` where nothing but a tile's edge is filled up.
    #[must_use]
    pub const fn position(self, offset: u64) -> Option<(u64, u64)> {
        if offset >= self.size_bytes() {
            return None;
        }
        let (tile, in_tile) = (offset / TILE, offset % TILE);
        let quad = in_tile / TILE_COLUMNS;
        let (row, lot) = (quad / (TILE_ROWS / LOT_ROWS), quad % (TILE_ROWS / LOT_ROWS));
        let row = tile / self.tiles_in_row() * TILE_ROWS + lot * LOT_ROWS + row;
        let column = tile % self.tiles_in_row() * TILE_COLUMNS + in_tile % TILE_COLUMNS;
        if row < self.n_rows && column < self.n_columns {
            Some((row, column))
        } else {
            None
        }
    }

    const fn tiles_in_row(self) -> u64 {
        self.n_columns.div_ceil(TILE_COLUMNS)
    }
}
