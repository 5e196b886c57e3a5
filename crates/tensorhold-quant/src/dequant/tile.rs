//! One tile after another of a weight.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::codes::Codes;
use super::lent::{Lender, LentNumbers, PartBytes};
use super::lookup::{Lookup, Magnitudes, N_WEIGHTS, Pairs};
use super::value::{Columns, Groups, Row, Tables};
use super::zeros::LentZeros;
use crate::scheme::{Effect, Recipe, Window};

/// What the tiles of one window are made of.
pub(super) struct Tiles<'a> {
    codes: Codes<'a>,
    shared: Shared<'a>,
}

/// What groups of codes share.
struct Shared<'a> {
    recipe: &'a Recipe,
    scales: LentNumbers<'a>,
    global: Option<LentNumbers<'a>>,
    zeros: LentZeros<'a>,
    /// The group of every column of the window, where they do not follow one another.
    group_index: Option<Vec<u32>>,
    first_column: u64,
    lookup: Option<Lookup>,
    buffers: Buffers,
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
        let shared = Shared {
            recipe,
            scales,
            global,
            zeros,
            lookup: Lookup::of(recipe, index.is_some(), to),
            group_index: index,
            first_column: first,
            buffers: Buffers::default(),
        };
        let codes = Codes::new(codes);
        Ok(Tiles { codes, shared })
    }

    /// The most rows and columns that a tile has.
    pub(super) fn size(&self) -> [u64; 2] {
        self.codes.tile_size(self.shared.group_index.is_some())
    }

    /// Gives `use_` every row of the one matrix of `tile`, with its number in it.
    pub(super) fn rows(
        &mut self,
        tile: &Window,
        mut use_: impl FnMut(usize, &mut Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let Tiles { codes, shared } = self;
        let [_, n_rows, n_columns] = tile.size().map(|size| size as usize);
        let grid = shared.grid(tile);
        shared.read_scales(tile, &grid)?;
        let mut buffers = core::mem::take(&mut shared.buffers);
        buffers.numbers.resize(n_columns, 0.0);
        let lookup = shared.lookup_of(tile, &grid);
        let as_run = matches!(lookup, Some(Lookup::Pairs(_)));
        for row in 0..n_rows {
            let codes = codes.row(tile, row, as_run)?;
            let mut row_of = shared.row(tile, &grid, (row, codes), lookup, &mut buffers);
            use_(row, &mut row_of)?;
        }
        shared.buffers = buffers;
        Ok(())
    }
}

impl Shared<'_> {
    /// The tables that serve `tile`, whose groups are those of `grid`.
    fn lookup_of(&self, tile: &Window, grid: &Window) -> Option<Lookup> {
        let Some(Lookup::Pairs(_)) = self.lookup else {
            return self.lookup;
        };
        let [_, _, n_columns] = tile.size();
        // Where groups are listed, few columns may have many.
        let n_weights = grid.size()[2].saturating_mul(N_WEIGHTS);
        let is_worth_it = self.group_index.is_none() || n_columns >= n_weights;
        let begins_with_byte = tile.columns.start.is_multiple_of(2);
        self.lookup.filter(|_| is_worth_it && begins_with_byte)
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
