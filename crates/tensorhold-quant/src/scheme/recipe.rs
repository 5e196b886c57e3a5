//! What the bytes of a quantized weight mean.

use core::ops::Range;

use tensorhold_core::{Error, ErrorKind, Granularity, Result, n_elements};

use super::flat;
use super::numbers::Numbers;
use super::stored::{Axis, Stored};
use super::window::{Need, Window};
use crate::codec::{FloatCode, FourBitTable};

/// What a code stands for, before scales and zeros.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// The integer that its bits are.
    Unsigned,
    /// The integer that its bits are in two's complement.
    Signed,
    /// A float.
    Float(FloatCode),
    /// One of 16 numbers.
    Table(FourBitTable),
}

/// What a second scale does to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The scale is multiplied by it.
    Multiplies,
    /// The scale is divided by it.
    Divides,
}

/// A second scale, one of a matrix or one of all.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Where it is, one row and one column.
    pub numbers: Numbers,
    /// What it does.
    pub effect: Effect,
}

/// What is done to a value besides its scale.
#[derive(Debug, Clone, PartialEq)]
pub enum Zeros {
    /// Nothing: a weight is `value * scale`.
    None,
    /// The product is multiplied once more, after it was rounded: `value * scale * factor`.
    Factor(f32),
    /// A number for all: `(value - zero) * scale`.
    Constant(f32),
    /// Codes, to each of which `plus` is added and a carry is dropped: `(value - zero) * scale`.
    Packed {
        /// Where they lie.
        stored: Stored,
        /// 1 where a file has the zero less one, and else 0.
        plus: u8,
    },
    /// Numbers: `(value - zero) * scale`.
    Numbers(Numbers),
    /// Numbers to add: `value * scale + bias`.
    Bias(Numbers),
}

/// The codes that share a scale: so many rows and columns, fewer at the edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Groups {
    /// Rows of a group.
    pub rows: u64,
    /// Columns of a group.
    pub columns: u64,
}

/// What the parts of a quantized weight mean, enough to compute it.
///
/// A weight is a matrix of rows (outputs) and columns (inputs), or one such matrix for each expert. Where groups go on from
/// one row into the next, codes are a matrix of another size with as many elements in the same order, such as one
/// row: rows and columns of groups are those of that matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The shape of the weight: rows and columns, with experts before them where there are such; or one dimension.
    pub shape: Vec<u64>,
    /// The codes, one for each element of the weight, in its own size or in another that has as many.
    pub codes: Stored,
    /// What a code stands for.
    pub value: Value,
    /// Which codes share a scale.
    pub groups: Groups,
    /// The scales; columns past those of the groups are what fills up the part.
    pub scales: Numbers,
    /// A second scale.
    pub global: Option<Global>,
    /// What codes are counted from.
    pub zeros: Zeros,
    /// The group of every column, I32, where they do not follow one another.
    pub group_index: Option<Stored>,
}

impl Recipe {
    /// Experts, rows and columns of the weight.
    #[must_use]
    pub fn size(&self) -> [u64; 3] {
        match *self.shape {
            [experts, rows, columns] => [experts, rows, columns],
            [rows, columns] => [1, rows, columns],
            [columns] => [1, 1, columns],
            _ => self.codes.size,
        }
    }

    /// Whether codes are a matrix of another size than the weight.
    pub(crate) fn is_flat(&self) -> bool {
        self.size() != self.codes.size
    }

    /// The window of the matrix of codes that has all of `window` of the weight.
    pub(crate) fn inner(&self, window: &Window) -> Window {
        match self.is_flat() {
            true => flat::cover(self.size(), window, self.codes.size),
            false => window.clone(),
        }
    }

    /// All of the weight.
    #[must_use]
    pub fn whole(&self) -> Window {
        let [experts, rows, columns] = self.size();
        Window {
            experts: 0..experts,
            rows: 0..rows,
            columns: 0..columns,
        }
    }

    /// What of each part `window` needs, in an order that depends on the recipe alone.
    ///
    /// Where the groups of columns stand in a part of their own, the scales of all groups are needed.
    ///
    /// # Errors
    /// `InvalidSlice` for a window that is no box inside of the weight; `InvalidTensor`, `InvalidArgument` or
    /// `Overflow` for a recipe whose parts are not those of one weight.
    pub fn needs(&self, window: &Window) -> Result<Vec<Need>> {
        self.check()?;
        window.check(self.size())?;
        let window = &self.inner(window);
        let grid = self.grid(window);
        let mut needs = vec![Need::of(&self.codes, window)?];
        self.scales.add_needs(&grid, &mut needs)?;
        if let Some(Global { numbers, .. }) = &self.global {
            numbers.add_needs(&window.global(&numbers.stored), &mut needs)?;
        }
        match &self.zeros {
            Zeros::None | Zeros::Factor(_) | Zeros::Constant(_) => {}
            Zeros::Packed { stored, .. } => needs.push(Need::of(stored, &grid)?),
            Zeros::Numbers(numbers) | Zeros::Bias(numbers) => {
                numbers.add_needs(&grid, &mut needs)?
            }
        }
        if let Some(index) = &self.group_index {
            let columns = Window {
                experts: 0..1,
                rows: 0..1,
                columns: window.columns.clone(),
            };
            needs.push(Need::of(index, &columns)?);
        }
        Ok(needs)
    }

    /// The units in which the parts of this weight can be cut so that each piece is a weight of its own.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        let mut rows = self.unit(Axis::Rows, self.groups.rows);
        let mut columns = self.unit(Axis::Columns, self.groups.columns);
        if self.is_flat() {
            [rows, columns] = flat::units(self.size(), self.codes.size, columns);
        }
        let experts = if self.is_flat() { self.size()[0] } else { 1 };
        let units = [experts, rows, columns];
        Granularity {
            units: units[3 - self.shape.len().min(3)..].to_vec(),
        }
    }

    fn unit(&self, axis: Axis, group: u64) -> u64 {
        let codes = self.codes.unit(axis);
        let stays_whole = axis == Axis::Columns && self.group_index.is_some();
        if stays_whole || group >= self.codes_along(axis) {
            return codes;
        }
        let zeros = match &self.zeros {
            Zeros::Packed { stored, .. } => stored.unit(axis),
            Zeros::Numbers(numbers) | Zeros::Bias(numbers) => numbers.unit(axis),
            Zeros::None | Zeros::Factor(_) | Zeros::Constant(_) => 1,
        };
        let grid = least_common_multiple(zeros, self.scales.unit(axis));
        least_common_multiple(codes, group.saturating_mul(grid))
    }

    fn codes_along(&self, axis: Axis) -> u64 {
        match axis {
            Axis::Rows => self.codes.size[1],
            Axis::Columns => self.codes.size[2],
        }
    }

    /// The groups that have something of `window`.
    pub(crate) fn grid(&self, window: &Window) -> Window {
        let over = |range: &Range<u64>, size: u64| match range.is_empty() {
            true => 0..0,
            false => range.start / size..range.end.div_ceil(size),
        };
        let columns = match &self.group_index {
            Some(_) => 0..self.scales.stored.size[2],
            None => over(&window.columns, self.groups.columns),
        };
        Window {
            experts: window.experts.clone(),
            rows: over(&window.rows, self.groups.rows),
            columns,
        }
    }

    /// The recipe, if its parts are those of one weight.
    pub(crate) fn checked(self) -> Result<Recipe> {
        self.check()?;
        Ok(self)
    }

    /// Refuses a recipe whose parts are not those of one weight, so that all their places are there.
    fn check(&self) -> Result<()> {
        let mut grid = self.check_size()?;
        let [experts, _, columns] = self.codes.size;
        self.codes.check_codes(self.codes.size)?;
        grid[2] = grid[2].max(self.scales.stored.size[2]);
        self.scales.check(grid)?;
        if let Some(Global { numbers, .. }) = &self.global {
            let n_globals = if numbers.stored.size[0] == 1 {
                1
            } else {
                experts
            };
            numbers.check([n_globals, 1, 1])?;
        }
        match &self.zeros {
            Zeros::None | Zeros::Factor(_) | Zeros::Constant(_) => {}
            Zeros::Packed { stored, .. } => stored.check_codes(grid)?,
            Zeros::Numbers(numbers) | Zeros::Bias(numbers) => numbers.check(grid)?,
        }
        match &self.group_index {
            Some(index) => index.check_index(columns),
            None => Ok(()),
        }
    }

    /// The size of the grid of groups, if shape, size and groups are those of a weight.
    fn check_size(&self) -> Result<[u64; 3]> {
        let size = self.codes.size;
        let n_bits = n_elements(&size).and_then(|n_codes| n_codes.checked_mul(64));
        if n_bits.is_none() {
            let message = format!("a weight of {:?} passes 2^64 bits", self.shape);
            return Err(Error::new(ErrorKind::Overflow, message));
        }
        let [experts, rows, columns] = size;
        let Groups {
            rows: high,
            columns: wide,
        } = self.groups;
        let is_same = n_elements(&self.shape) == n_elements(&size);
        let is_one = !self.is_flat() || experts == 1;
        if high == 0 || wide == 0 || !is_same || !is_one || !matches!(self.shape.len(), 1..=3) {
            let message = format!(
                "{:?} codes in groups of {high} x {wide} are no weight of {:?}",
                size, self.shape
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok([experts, rows.div_ceil(high), columns.div_ceil(wide)])
    }
}

pub(super) fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor.max(1)).saturating_mul(b)
}
