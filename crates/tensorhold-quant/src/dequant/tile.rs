//! One tile after another of a weight.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::lent::{Lender, Lent, LentNumbers, PartBytes};
use super::lookup::{Lookup, Magnitudes, Pairs};
use super::turn::Turned;
use super::value::{Columns, Groups, Row, Tables};
use super::zeros::LentZeros;
use crate::scheme::{Axis, Effect, Recipe, RowRuns, Window};

/// Rows and columns of a tile where codes lie in rows: as many columns as there are, since what reads ahead follows a line.
const WIDE: [u64; 2] = [32, 16384];
/// The same where they are turned: what is turned stays in the second cache.
const TURNED: [u64; 2] = [256, 2048];
/// The same where the groups of columns are listed: any columns of a row need the tables of all.
const LISTED: [u64; 2] = [128, 8192];
/// The same where they are taken out one by one.
const TALL: [u64; 2] = [128, 1024];

/// What the tiles of one window are made of.
pub(super) struct Tiles<'a> {
    recipe: &'a Recipe,
    codes: Lent<'a>,
    scales: LentNumbers<'a>,
    global: Option<LentNumbers<'a>>,
    zeros: LentZeros<'a>,
    /// The group of every column of the window, where they do not follow one another.
    group_index: Option<Vec<u32>>,
    first_column: u64,
    runs: Option<RowRuns>,
    lookup: Option<Lookup>,
    codes_room: CodesRoom,
    buffers: Buffers,
}

/// Room for the codes of a row, or of a tile.
#[derive(Default)]
struct CodesRoom {
    turned: Turned,
    unpacked: Vec<u8>,
}

/// Room for the groups of a tile, and for the numbers and tables of one row.
#[derive(Default)]
struct Buffers {
    scales: Vec<f32>,
    zeros: Vec<f32>,
    numbers: Vec<f32>,
    magnitudes: Magnitudes,
    pairs: Pairs,
}

impl<'a> Tiles<'a> {
    /// Of what `window` of the weight needs, which is `inner` of the matrix of its codes, to become elements of type `to`.
    pub(super) fn new(
        recipe: &'a Recipe,
        window: &Window,
        inner: &Window,
        parts: &[PartBytes<'a>],
        to: Dtype,
    ) -> Result<Tiles<'a>> {
        let mut lender = Lender::new(recipe.needs(window)?, parts)?;
        let (codes, scales) = (
            lender.lend(&recipe.codes)?,
            lender.lend_numbers(&recipe.scales)?,
        );
        let global = recipe.global.as_ref();
        let global = global.map(|global| lender.lend_numbers(&global.numbers));
        let global = global.transpose()?;
        let zeros = LentZeros::new(&recipe.zeros, &mut lender)?;
        let index = recipe.group_index.as_ref();
        let index = index.map(|index| group_index(index.part, lender.lend(index)?.bytes(), recipe));
        let first = inner.columns.start;
        let index = index.transpose()?;
        let index = index.filter(|index| !follow(index, first, recipe.groups.columns));
        Ok(Tiles {
            recipe,
            codes,
            scales,
            global,
            zeros,
            lookup: Lookup::of(recipe, index.is_some(), to),
            group_index: index,
            first_column: first,
            runs: recipe.codes.row_runs(),
            codes_room: CodesRoom::default(),
            buffers: Buffers::default(),
        })
    }

    /// The most rows and columns that a tile has.
    pub(super) fn size(&self) -> [u64; 2] {
        match (self.recipe.codes.lines, self.runs) {
            (Axis::Columns, _) => WIDE,
            (Axis::Rows, None) => TALL,
            (Axis::Rows, Some(_)) if self.group_index.is_some() => LISTED,
            (Axis::Rows, Some(_)) => TURNED,
        }
    }

    /// Gives `use_` every row of the one matrix of `tile`, with its number in it.
    pub(super) fn rows(
        &mut self,
        tile: &Window,
        mut use_: impl FnMut(usize, &mut Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let [_, n_rows, n_columns] = tile.size().map(|size| size as usize);
        let grid = self.grid(tile);
        self.read_scales(tile, &grid)?;
        let (mut buffers, mut codes_room) = (
            core::mem::take(&mut self.buffers),
            core::mem::take(&mut self.codes_room),
        );
        buffers.numbers.resize(n_columns, 0.0);
        let lookup = self.lookup_of(tile);
        for row in 0..n_rows {
            let codes = self.codes_of(tile, row, lookup, &mut codes_room)?;
            use_(
                row,
                &mut self.row(tile, &grid, (row, codes), lookup, &mut buffers),
            )?;
        }
        (self.buffers, self.codes_room) = (buffers, codes_room);
        Ok(())
    }

    /// The tables that serve `tile`.
    fn lookup_of(&self, tile: &Window) -> Option<Lookup> {
        let begins_in_byte = !tile.columns.start.is_multiple_of(2);
        self.lookup
            .filter(|lookup| !(begins_in_byte && matches!(lookup, Lookup::Pairs(_))))
    }

    /// The codes of a row of `tile` as `lookup` takes them: as they lie in their part, or out of `room`.
    fn codes_of<'r>(
        &mut self,
        tile: &Window,
        row: usize,
        lookup: Option<Lookup>,
        room: &'r mut CodesRoom,
    ) -> Result<&'r [u8]>
    where
        'a: 'r,
    {
        let Some(runs) = self.runs else {
            return self.codes_one_by_one(tile, row, &mut room.unpacked);
        };
        let order = runs.order()?;
        let bytes = order.bytes_of(tile.columns.clone())?;
        let bytes = bytes.start..bytes.end;
        let run = match runs {
            RowRuns::Lie(_) => {
                let line = tile.rows.start + row as u64;
                self.codes.line(tile.experts.start, line, bytes)
            }
            RowRuns::Across(_) | RowRuns::Spread(_) => {
                if row == 0 {
                    room.turned.fill(&self.codes, runs, tile)?;
                }
                room.turned.run(row, bytes)
            }
        };
        if order.is_bytes() || matches!(lookup, Some(Lookup::Pairs(_))) {
            return Ok(run);
        }
        let n_columns = tile.columns.end - tile.columns.start;
        room.unpacked.resize(n_columns as usize, 0);
        order.unpack(run, tile.columns.start, &mut room.unpacked)?;
        Ok(&room.unpacked)
    }

    /// The codes of a row of `tile`, those of all rows of which are taken out together where they go along the lines.
    fn codes_one_by_one<'r>(
        &mut self,
        tile: &Window,
        row: usize,
        room: &'r mut Vec<u8>,
    ) -> Result<&'r [u8]> {
        let [_, n_rows, n_columns] = tile.size().map(|size| size as usize);
        let together = match self.recipe.codes.lines {
            Axis::Columns => 1,
            Axis::Rows => n_rows,
        };
        room.resize(together * n_columns, 0);
        let place = row % together;
        if place == 0 {
            let first = tile.rows.start + row as u64;
            let rows = Window {
                rows: first..first + together as u64,
                ..tile.clone()
            };
            self.codes.codes(&rows, room)?;
        }
        Ok(&room[place * n_columns..][..n_columns])
    }

    /// A row of `tile` with its codes.
    fn row<'r>(
        &'r self,
        tile: &Window,
        grid: &Window,
        (row, codes): (usize, &'r [u8]),
        lookup: Option<Lookup>,
        buffers: &'r mut Buffers,
    ) -> Row<'r> {
        let Recipe { value, groups, .. } = self.recipe;
        let group_row = (tile.rows.start + row as u64) / groups.rows - grid.rows.start;
        let [.., n_groups] = grid.size().map(|size| size as usize);
        let first = group_row as usize * n_groups;
        let tables = lookup.map(|lookup| match lookup {
            Lookup::Magnitudes => Tables::Magnitudes(&mut buffers.magnitudes),
            Lookup::Pairs(order) => Tables::Pairs(order, &mut buffers.pairs),
        });
        Row {
            value: *value,
            bits: self.recipe.codes.code_bits(),
            codes,
            groups: Groups {
                scales: &buffers.scales[first..][..n_groups],
                zeros: &buffers.zeros[first..][..n_groups],
                columns: self.columns(tile, grid),
                rule: self.zeros.rule(),
            },
            numbers: &mut buffers.numbers,
            tables,
        }
    }

    /// Which of the groups of `grid` each column of `tile` is in.
    fn columns(&self, tile: &Window, grid: &Window) -> Columns<'_> {
        let size = self.recipe.groups.columns;
        let to_usize = |size| usize::try_from(size).unwrap_or(usize::MAX);
        match &self.group_index {
            Some(_) => Columns::Listed {
                groups: self.index_of(tile),
                first: grid.columns.start as usize,
            },
            None => Columns::Follow {
                first: to_usize(size - tile.columns.start % size),
                size: to_usize(size),
            },
        }
    }

    /// The groups of the columns of `tile`, where they stand in a part.
    fn index_of(&self, tile: &Window) -> &[u32] {
        let index = self.group_index.as_deref().unwrap_or(&[]);
        let first = (tile.columns.start - self.first_column) as usize;
        &index[first..][..(tile.columns.end - tile.columns.start) as usize]
    }

    /// The groups of `tile`, from the first to the last where they do not follow one another.
    fn grid(&self, tile: &Window) -> Window {
        let size = self.recipe.groups.columns;
        let columns = match &self.group_index {
            Some(_) => {
                let index = self.index_of(tile);
                let first = index.iter().min().map_or(0, |group| u64::from(*group));
                first..index.iter().max().map_or(0, |group| u64::from(*group) + 1)
            }
            None => tile.columns.start / size..tile.columns.end.div_ceil(size),
        };
        Window {
            columns,
            ..self.recipe.grid(tile)
        }
    }

    /// Fills the buffers with the scales and zeros of the groups of `grid`.
    fn read_scales(&mut self, tile: &Window, grid: &Window) -> Result<()> {
        let [_, n_rows, n_columns] = grid.size().map(|size| size as usize);
        let Buffers { scales, zeros, .. } = &mut self.buffers;
        scales.resize(n_rows * n_columns, 0.0);
        self.scales.read(grid, scales)?;
        if let (Some(lent), Some(global)) = (&mut self.global, &self.recipe.global) {
            let mut factor = [0.0];
            lent.read(&tile.global(&global.numbers.stored), &mut factor)?;
            let [factor] = factor;
            match global.effect {
                Effect::Multiplies => scales.iter_mut().for_each(|scale| *scale *= factor),
                Effect::Divides => scales.iter_mut().for_each(|scale| *scale /= factor),
            }
        }
        zeros.resize(n_rows * n_columns, 0.0);
        self.zeros.read(grid, zeros)
    }
}

/// Whether these are the groups of the columns from `first` on where each has `size` that follow one another.
fn follow(groups: &[u32], first: u64, size: u64) -> bool {
    let mut each = groups.iter().zip(first..);
    each.all(|(group, column)| u64::from(*group) == column / size)
}

/// The groups in the bytes of a part, each of which is one of those that have scales.
fn group_index(part: &str, bytes: &[u8], recipe: &Recipe) -> Result<Vec<u32>> {
    let n_groups = recipe.scales.stored.size[2];
    let groups = bytes.as_chunks().0.iter();
    let groups: Vec<u32> = groups.map(|bytes| u32::from_le_bytes(*bytes)).collect();
    match groups.iter().find(|group| u64::from(**group) >= n_groups) {
        None => Ok(groups),
        Some(group) => Err(Error::new(
            ErrorKind::InvalidTensor,
            format!(
                "part `{part}` has group {}, but there are {n_groups}",
                *group as i32
            ),
        )),
    }
}
