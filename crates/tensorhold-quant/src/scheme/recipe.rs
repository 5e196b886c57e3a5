//! What the bytes of a quantized weight mean.

use core::ops::Range;

use tensorhold_core::{Dtype, Error, ErrorKind, Granularity, Result, n_elements};

use super::stored::{Axis, Entries, Stored};
use super::window::{Need, Window};
use crate::can_cast;
use crate::codec::{E8m0, FloatCode, FourBitTable};

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

/// What an element stands for where each is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Number {
    /// A float, of this type whatever the tensor's type says.
    Float(Dtype),
    /// A power of two.
    Power(E8m0),
    /// An integer of 8 bits, in two's complement.
    Signed,
    /// An integer of 8 bits.
    Unsigned,
}

/// Numbers, one for each group of codes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Numbers {
    /// Where they lie: one row and one column for each group.
    pub stored: Stored,
    /// What they are.
    pub number: Number,
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Global {
    /// Where it is, one row and one column.
    pub numbers: Numbers,
    /// What it does.
    pub effect: Effect,
}

/// What is taken away from a code or added to its product.
#[derive(Debug, Clone, PartialEq)]
pub enum Zeros {
    /// Nothing: a weight is `value * scale`.
    None,
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
/// A weight is a matrix of rows (outputs) and columns (inputs), or one such matrix for each expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The shape of the weight: rows and columns, with experts before them where there are such.
    pub shape: Vec<u64>,
    /// The codes, one for each element of the weight.
    pub codes: Stored,
    /// What a code stands for.
    pub value: Value,
    /// Which codes share a scale.
    pub groups: Groups,
    /// The scales.
    pub scales: Numbers,
    /// A second scale.
    pub global: Option<Global>,
    /// What codes are counted from.
    pub zeros: Zeros,
    /// The group of every column, I32, where they do not follow one another.
    pub group_index: Option<Stored>,
}

impl Recipe {
    /// Experts, rows and columns.
    #[must_use]
    pub fn size(&self) -> [u64; 3] {
        self.codes.size
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
        let grid = self.grid(window);
        let mut needs = vec![
            Need::of(&self.codes, window)?,
            Need::of(&self.scales.stored, &grid)?,
        ];
        if let Some(Global { numbers, .. }) = &self.global {
            needs.push(Need::of(&numbers.stored, &window.global(&numbers.stored))?);
        }
        match &self.zeros {
            Zeros::None | Zeros::Constant(_) => {}
            Zeros::Packed { stored, .. } => needs.push(Need::of(stored, &grid)?),
            Zeros::Numbers(numbers) | Zeros::Bias(numbers) => {
                needs.push(Need::of(&numbers.stored, &grid)?)
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
        let rows = self.unit(Axis::Rows, self.groups.rows);
        let columns = self.unit(Axis::Columns, self.groups.columns);
        let experts = (self.shape.len() > 2).then_some(1);
        Granularity {
            units: experts.into_iter().chain([rows, columns]).collect(),
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
            _ => 1,
        };
        let grid = least_common_multiple(zeros, self.scales.stored.unit(axis));
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
        let (size, grid) = (self.size(), self.check_size()?);
        let [experts, _, columns] = size;
        self.codes.check_codes(size)?;
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
            Zeros::None | Zeros::Constant(_) => {}
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
        let size = self.size();
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
        if high == 0
            || wide == 0
            || (self.shape != size && (experts != 1 || self.shape != size[1..]))
        {
            let message = format!(
                "{:?} codes in groups of {high} x {wide} are no weight of {:?}",
                size, self.shape
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok([experts, rows.div_ceil(high), columns.div_ceil(wide)])
    }
}

impl Numbers {
    /// Refuses another size, and numbers that elements cannot be.
    fn check(&self, size: [u64; 3]) -> Result<()> {
        let Numbers { stored, number } = self;
        let width = match *number {
            Number::Float(dtype) if can_cast(dtype, Dtype::F32) => dtype.width_bytes(),
            Number::Float(_) => None,
            Number::Power(_) | Number::Signed | Number::Unsigned => Some(1),
        };
        let is_packed = matches!(stored.entries, Entries::Packed(_));
        if is_packed || width.is_none() || width != stored.dtype.width_bytes() {
            return Err(stored.wrong(&format!("its elements are no {number:?}")));
        }
        stored.check_size(size)
    }
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor.max(1)).saturating_mul(b)
}
