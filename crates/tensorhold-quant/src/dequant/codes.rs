//! The codes of one part, row by row.

use tensorhold_core::{Error, ErrorKind, Result};

use super::lent::{Lender, Lent, PartBytes};
use super::turn::Turned;
use super::{place, tiles_of};
use crate::scheme::{Axis, RowRuns, Stored, Window};

/// Rows and columns of a tile where codes lie in rows: as many columns as there are, since what reads ahead follows a line.
const WIDE: [u64; 2] = [32, 16384];
/// The same where they are turned: what is turned stays in the second cache.
const TURNED: [u64; 2] = [256, 2048];
/// The same where the groups of columns are listed: any columns of a row need the tables of all.
const LISTED: [u64; 2] = [128, 8192];
/// The same where they are taken out one by one.
const TALL: [u64; 2] = [128, 1024];

/// Fills `into` with the codes of `window`, each in the low bits of a byte, row by row and expert by expert.
///
/// `part` is the bytes of the elements that [`Stored::need`] names for the window.
///
/// # Errors
/// `InvalidSlice` for a window outside of the part; `InvalidArgument` when there are more or fewer bytes, or `into` has not one for each
/// code.
pub fn unpack(
    stored: &Stored,
    window: &Window,
    part: PartBytes<'_>,
    into: &mut [u8],
) -> Result<()> {
    let need = stored.need(window)?;
    let n_codes = window.size().into_iter().fold(1, u64::saturating_mul);
    if n_codes != into.len() as u64 {
        let message = format!("{n_codes} codes do not fit in {} bytes", into.len());
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let mut codes = Codes::new(Lender::new(vec![need], &[part])?.lend(stored)?);
    for tile in tiles_of(window, codes.tile_size(false)) {
        let [_, n_rows, n_columns] = tile.size().map(|size| size as usize);
        for row in 0..n_rows {
            let at = place(window, &tile, row);
            into[at..][..n_columns].copy_from_slice(codes.row(&tile, row, false)?);
        }
    }
    Ok(())
}

/// The codes of a part with its bytes.
pub(super) struct Codes<'a> {
    lent: Lent<'a>,
    runs: Option<RowRuns>,
    turned: Turned,
    /// Room for the codes of a row, or of a tile.
    unpacked: Vec<u8>,
}

impl<'a> Codes<'a> {
    pub(super) fn new(lent: Lent<'a>) -> Codes<'a> {
        Codes {
            runs: lent.stored().row_runs(),
            lent,
            turned: Turned::default(),
            unpacked: Vec::new(),
        }
    }

    /// The most rows and columns that a tile has.
    pub(super) fn tile_size(&self, is_listed: bool) -> [u64; 2] {
        match (self.lent.stored().lines, self.runs) {
            (Axis::Columns, _) => WIDE,
            (Axis::Rows, None) => TALL,
            (Axis::Rows, Some(_)) if is_listed => LISTED,
            (Axis::Rows, Some(_)) => TURNED,
        }
    }

    /// The codes of a row of `tile`, the rows of which are asked for one after the other: one in each byte, or as their run has them
    /// where `as_run`; there must be one then.
    pub(super) fn row<'r>(
        &'r mut self,
        tile: &Window,
        row: usize,
        as_run: bool,
    ) -> Result<&'r [u8]> {
        let Some(runs) = self.runs else {
            return self.one_by_one(tile, row);
        };
        let order = runs.order()?;
        let bytes = order.bytes_of(tile.columns.clone())?;
        let bytes = bytes.start..bytes.end;
        let run = match runs {
            RowRuns::Lie(_) => {
                let line = tile.rows.start + row as u64;
                self.lent.line(tile.experts.start, line, bytes)
            }
            RowRuns::Across(_) | RowRuns::Spread(_) => {
                if row == 0 {
                    self.turned.fill(&self.lent, runs, tile)?;
                }
                self.turned.run(row, bytes)
            }
        };
        if as_run || order.is_bytes() {
            return Ok(run);
        }
        let n_columns = tile.columns.end - tile.columns.start;
        self.unpacked.resize(n_columns as usize, 0);
        order.unpack(run, tile.columns.start, &mut self.unpacked)?;
        Ok(&self.unpacked)
    }

    /// The codes of a row of `tile`, those of all rows of which are taken out together where they go along the lines.
    fn one_by_one(&mut self, tile: &Window, row: usize) -> Result<&[u8]> {
        let [_, n_rows, n_columns] = tile.size().map(|size| size as usize);
        let together = match self.lent.stored().lines {
            Axis::Columns => 1,
            Axis::Rows => n_rows,
        };
        self.unpacked.resize(together * n_columns, 0);
        let place = row % together;
        if place == 0 {
            let first = tile.rows.start + row as u64;
            let rows = Window {
                rows: first..first + together as u64,
                ..tile.clone()
            };
            self.lent.codes(&rows, &mut self.unpacked)?;
        }
        Ok(&self.unpacked[place * n_columns..][..n_columns])
    }
}
