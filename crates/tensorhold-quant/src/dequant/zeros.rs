//! What is taken away from the values of codes, or added to their products.

use tensorhold_core::Result;

use super::lent::{Lender, Lent, LentNumbers};
use super::value::Rule;
use crate::scheme::{Window, Zeros};

/// The zeros of a recipe with their bytes.
pub(super) enum LentZeros<'a> {
    None,
    Factor(f32),
    Constant(f32),
    Packed {
        lent: Lent<'a>,
        plus: u8,
        /// The bits of a code.
        mask: u8,
        /// Room for the codes of a tile.
        codes: Vec<u8>,
    },
    Numbers(LentNumbers<'a>),
    Bias(LentNumbers<'a>),
}

impl<'a> LentZeros<'a> {
    /// The next part of the lender, if `zeros` has one.
    pub(super) fn new(zeros: &'a Zeros, lender: &mut Lender<'a, '_>) -> Result<LentZeros<'a>> {
        Ok(match zeros {
            Zeros::None => LentZeros::None,
            Zeros::Factor(factor) => LentZeros::Factor(*factor),
            Zeros::Constant(zero) => LentZeros::Constant(*zero),
            Zeros::Packed { stored, plus } => LentZeros::Packed {
                lent: lender.lend(stored)?,
                plus: *plus,
                mask: u8::MAX >> (8 - stored.code_bits()),
                codes: Vec::new(),
            },
            Zeros::Numbers(numbers) => LentZeros::Numbers(lender.lend_numbers(numbers)?),
            Zeros::Bias(numbers) => LentZeros::Bias(lender.lend_numbers(numbers)?),
        })
    }

    /// What a weight is made of.
    pub(super) fn rule(&self) -> Rule {
        match self {
            LentZeros::None => Rule::Scale,
            LentZeros::Factor(factor) => Rule::ScaleTwice(*factor),
            LentZeros::Bias(_) => Rule::ScaleAndAdd,
            LentZeros::Constant(_) | LentZeros::Packed { .. } | LentZeros::Numbers(_) => {
                Rule::SubtractAndScale
            }
        }
    }

    /// Writes the zeros of the groups of `grid` into `into`.
    pub(super) fn read(&mut self, grid: &Window, into: &mut [f32]) -> Result<()> {
        match self {
            LentZeros::None | LentZeros::Factor(_) => {}
            LentZeros::Constant(zero) => into.fill(*zero),
            LentZeros::Packed {
                lent,
                plus,
                mask,
                codes,
            } => {
                codes.resize(into.len(), 0);
                lent.codes(grid, codes)?;
                for (zero, code) in into.iter_mut().zip(codes) {
                    *zero = f32::from(code.wrapping_add(*plus) & *mask);
                }
            }
            LentZeros::Numbers(numbers) | LentZeros::Bias(numbers) => numbers.read(grid, into)?,
        }
        Ok(())
    }
}
