//! The loops over weights.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::arithmetic::{Arithmetic, brain, half};
use super::scale::greatest;
use super::{Code, Coding, Extremes, Scale, invalid};
use crate::cast;
use crate::cast::level::{Level, Work};
use crate::codec::FloatCode;
use crate::scheme::Groups;

/// Weights that are divided before they become codes: 4 KiB of them.
const BLOCK: usize = 1024;

/// Rows of weights in groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    n_columns: usize,
    rows: usize,
    columns: usize,
    /// Groups in a row of groups.
    n_groups: usize,
}

impl Grid {
    /// If there are rows of so many columns, with as many groups as there are.
    pub(super) fn of(
        n_weights: usize,
        n_columns: usize,
        groups: Groups,
        n_groups: usize,
    ) -> Result<Grid> {
        let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX).max(1);
        let (rows, columns) = (size(groups.rows), size(groups.columns));
        let grid = Grid {
            n_columns,
            rows,
            columns,
            n_groups: n_columns.div_ceil(columns),
        };
        let n_rows = n_weights.checked_div(n_columns).unwrap_or(0);
        let wanted = n_rows.div_ceil(rows).checked_mul(grid.n_groups);
        if n_rows.checked_mul(n_columns) == Some(n_weights) && wanted == Some(n_groups) {
            return Ok(grid);
        }
        Err(invalid(format!(
            "{n_weights} weights in rows of {n_columns}, in groups of {rows} x {columns}, do not have {n_groups} groups"
        )))
    }

    /// The number of the first group of a row.
    fn first(self, row: usize) -> usize {
        row / self.rows * self.n_groups
    }
}

pub(super) fn observe(weights: &[f32], grid: Grid, into: &mut [Extremes]) -> Result<()> {
    let mut is_finite = true;
    Level::detect().run(Observe {
        weights,
        grid,
        into,
        is_finite: &mut is_finite,
    });
    match is_finite {
        true => Ok(()),
        false => Err(not_finite(weights, grid.n_columns)),
    }
}

fn not_finite(weights: &[f32], n_columns: usize) -> Error {
    let found = weights
        .iter()
        .enumerate()
        .find(|(_, weight)| !weight.is_finite());
    let (place, weight) = found.unwrap_or((0, &f32::NAN));
    let (row, column) = (place / n_columns, place % n_columns);
    let message =
        format!("the weight at row {row}, column {column} is {weight}, which has no code");
    Error::new(ErrorKind::InvalidTensor, message)
}

struct Observe<'a> {
    weights: &'a [f32],
    grid: Grid,
    into: &'a mut [Extremes],
    is_finite: &'a mut bool,
}

impl Work for Observe<'_> {
    #[inline(always)]
    fn run(self) {
        let grid = self.grid;
        let rows = self.weights.chunks_exact(grid.n_columns.max(1));
        for (row, weights) in rows.enumerate() {
            let into = &mut self.into[grid.first(row)..][..grid.n_groups];
            for (group, into) in weights.chunks(grid.columns).zip(into) {
                let (least, greatest) = keys(group);
                *self.is_finite &= greatest < INFINITY && least > !INFINITY;
                let seen = Extremes {
                    least: of_key(least),
                    greatest: of_key(greatest),
                };
                *into = into.joined(seen);
            }
        }
    }
}

const INFINITY: i32 = 0x7f80_0000;

/// The least and the greatest key of 0 and these weights. Keys are in the order of the numbers, with NaNs at both ends.
#[inline(always)]
fn keys(weights: &[f32]) -> (i32, i32) {
    let (mut least, mut greatest) = (0, 0);
    for weight in weights {
        let key = key(weight.to_bits().cast_signed());
        least = key.min(least);
        greatest = key.max(greatest);
    }
    (least, greatest)
}

#[inline(always)]
fn key(bits: i32) -> i32 {
    bits ^ (bits >> 31 & 0x7fff_ffff)
}

#[inline(always)]
fn of_key(of: i32) -> f32 {
    f32::from_bits(key(of).cast_unsigned())
}

pub(super) fn encode(
    coding: Coding,
    weights: &[f32],
    grid: Grid,
    scales: &[Scale],
    global: f32,
    into: &mut [u8],
) -> Result<()> {
    if grid.n_columns == 0 {
        return Ok(());
    }
    let mut divided = [0.0; BLOCK];
    let rows = weights.chunks_exact(grid.n_columns);
    for (row, (weights, into)) in rows.zip(into.chunks_exact_mut(grid.n_columns)).enumerate() {
        let scales = &scales[grid.first(row)..][..grid.n_groups];
        let blocks = weights.chunks(BLOCK).zip(into.chunks_mut(BLOCK));
        for (number, (weights, into)) in blocks.enumerate() {
            let divided = &mut divided[..weights.len()];
            Level::detect().run(Divide {
                coding,
                weights,
                first: number * BLOCK,
                group: grid.columns,
                scales,
                global,
                into: &mut *divided,
            });
            finish(coding.code, divided, into)?;
        }
    }
    Ok(())
}

/// Makes codes of numbers that are in their range.
fn finish(code: Code, divided: &[f32], into: &mut [u8]) -> Result<()> {
    let dtype = match code {
        Code::Float(FloatCode::E5m2) => Dtype::F8_E5M2,
        Code::Float(_) | Code::Power(FloatCode::E4m3) => Dtype::F8_E4M3,
        Code::Int { bits, .. } => {
            let lowest = 1 << (bits - 1);
            Level::detect().run(Integers {
                divided,
                lowest,
                into,
            });
            return Ok(());
        }
        Code::Power(_) | Code::Nvfp4 => {
            Level::detect().run(Nibbles { divided, into });
            return Ok(());
        }
    };
    let mut bytes = [0; BLOCK * 4];
    let bytes = &mut bytes[..divided.len() * 4];
    for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(divided) {
        *bytes = value.to_le_bytes();
    }
    cast(Dtype::F32, bytes, dtype, into)
}

/// Weights divided by their scales, with zeros added, and brought into the range of the codes.
struct Divide<'a> {
    coding: Coding,
    weights: &'a [f32],
    /// The column of the first one.
    first: usize,
    /// Columns of a group.
    group: usize,
    scales: &'a [Scale],
    global: f32,
    into: &'a mut [f32],
}

impl Work for Divide<'_> {
    #[inline(always)]
    fn run(self) {
        match (self.coding.code, self.coding.arithmetic) {
            // The scales of these are not numbers of the arithmetic.
            (Code::Nvfp4 | Code::Power(_), _) | (_, Arithmetic::F32) => self.by(|value| value),
            (_, Arithmetic::Bf16) => self.by(brain),
            (_, Arithmetic::F16) => self.by(half),
        }
    }
}

impl Divide<'_> {
    #[inline(always)]
    fn by(self, round: impl Fn(f32) -> f32) {
        let (lowest, highest) = limits(self.coding.code);
        let is_int = matches!(self.coding.code, Code::Int { .. });
        let mut at = 0;
        while at < self.weights.len() {
            let column = self.first + at;
            let group = column / self.group;
            let end = ((group + 1).saturating_mul(self.group) - self.first).min(self.weights.len());
            let Scale { value, zero } = self.scales[group];
            let (scale, zero) = (value / self.global, f32::from(zero) + lowest);
            let pairs = self.weights[at..end].iter().zip(&mut self.into[at..end]);
            for (weight, into) in pairs {
                let quotient = round(weight / scale);
                let sum = if is_int {
                    round(quotient + zero)
                } else {
                    quotient
                };
                let raised = if sum < lowest { lowest } else { sum };
                *into = if raised > highest { highest } else { raised };
            }
            at = end;
        }
    }
}

/// The least and the greatest number of a code.
#[inline(always)]
fn limits(code: Code) -> (f32, f32) {
    match code {
        Code::Int { bits, .. } => {
            let half = (1u32 << (bits - 1)) as f32;
            (-half, half - 1.0)
        }
        Code::Float(float) | Code::Power(float) => (-greatest(float), greatest(float)),
        Code::Nvfp4 => (-greatest(FloatCode::E2m1), greatest(FloatCode::E2m1)),
    }
}

struct Integers<'a> {
    divided: &'a [f32],
    /// What is added to a number so that the least becomes 0.
    lowest: i32,
    into: &'a mut [u8],
}

impl Work for Integers<'_> {
    #[inline(always)]
    fn run(self) {
        // Numbers from 2^23 to 2^24 have no bits for a fraction: a sum there is rounded to an integer.
        const SHIFT: f32 = 12_582_912.0;
        for (value, into) in self.divided.iter().zip(self.into) {
            let integer = (value + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits());
            *into = integer.cast_signed().wrapping_add(self.lowest) as u8;
        }
    }
}

struct Nibbles<'a> {
    divided: &'a [f32],
    into: &'a mut [u8],
}

impl Work for Nibbles<'_> {
    #[inline(always)]
    fn run(self) {
        for (value, into) in self.divided.iter().zip(self.into) {
            let magnitude = value.abs();
            let over = [0.25, 1.25, 2.5, 5.0].map(|limit| u8::from(magnitude > limit));
            let from = [0.75, 1.75, 3.5].map(|limit| u8::from(magnitude >= limit));
            let code: u8 = over.iter().chain(&from).sum();
            // A zero has no sign, though what is rounded to 0 keeps it.
            *into = code | u8::from(*value < 0.0) << 3;
        }
    }
}
