//! A row of codes as numbers, and the numbers as weights.

use crate::cast::level::{Level, Work};
use crate::scheme::Value;

/// What a weight is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// `value * scale`.
    Scale,
    /// `value * scale * factor`, of which this is the factor.
    ScaleTwice(f32),
    /// `(value - zero) * scale`.
    SubtractAndScale,
    /// `value * scale + zero`.
    ScaleAndAdd,
}

/// Which scale each column of a row has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Columns<'a> {
    /// The first group ends after so many columns, the others each after `size`.
    Follow { first: usize, size: usize },
    /// The groups of the columns, counted from `first` on.
    Listed { groups: &'a [u32], first: usize },
}

/// The scales and zeros of one row of groups, and what is made of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups<'a> {
    pub(super) scales: &'a [f32],
    pub(super) zeros: &'a [f32],
    pub(super) columns: Columns<'a>,
    pub(super) rule: Rule,
}

/// Writes the weights of a row of `codes` of `bits` bits into `into`; `numbers` is room for as many.
pub(super) fn weigh(
    value: Value,
    bits: u32,
    codes: &[u8],
    groups: Groups<'_>,
    numbers: &mut [f32],
    into: &mut [u8],
) {
    let into = into.as_chunks_mut().0;
    match value {
        Value::Unsigned => weigh_each(codes, f32::from, groups, into),
        Value::Signed => {
            let shift = 8 - bits;
            let number = move |code: u8| f32::from((code << shift) as i8 >> shift);
            weigh_each(codes, number, groups, into);
        }
        Value::Float(float) => {
            float.decode(codes, numbers);
            weigh_each(numbers, |number| number, groups, into);
        }
        Value::Table(table) => {
            table.decode(codes, numbers);
            weigh_each(numbers, |number| number, groups, into);
        }
    }
}

fn weigh_each<T: Copy>(
    from: &[T],
    number: impl Fn(T) -> f32 + Copy,
    groups: Groups<'_>,
    into: &mut [[u8; 4]],
) {
    Level::detect().run(Weigh {
        from,
        number,
        groups,
        into,
    });
}

/// What [`weigh_each`] does.
struct Weigh<'a, T, F> {
    from: &'a [T],
    number: F,
    groups: Groups<'a>,
    into: &'a mut [[u8; 4]],
}

impl<T: Copy, F: Fn(T) -> f32 + Copy> Work for Weigh<'_, T, F> {
    #[inline(always)]
    fn run(self) {
        let Groups {
            scales,
            zeros,
            columns,
            rule,
        } = self.groups;
        let (mut from, mut into) = (self.from, self.into);
        match columns {
            Columns::Follow { first, size } => {
                let n_first = first.min(from.len());
                let (head, rest) = from.split_at(n_first);
                let (into_head, into_rest) = into.split_at_mut(n_first);
                if let (Some(scale), Some(zero)) = (scales.first(), zeros.first()) {
                    weigh_group(rule, *scale, *zero, head, self.number, into_head);
                }
                let groups = scales.iter().zip(zeros).skip(1);
                let runs = rest.chunks(size).zip(into_rest.chunks_mut(size));
                for ((from, into), (scale, zero)) in runs.zip(groups) {
                    weigh_group(rule, *scale, *zero, from, self.number, into);
                }
            }
            Columns::Listed { groups, first } => {
                for run in groups.chunk_by(|group, next| group == next) {
                    let group = run[0] as usize - first;
                    let (head, rest) = from.split_at(run.len());
                    let (into_head, into_rest) = into.split_at_mut(run.len());
                    let (scale, zero) = (scales[group], zeros[group]);
                    weigh_group(rule, scale, zero, head, self.number, into_head);
                    (from, into) = (rest, into_rest);
                }
            }
        }
    }
}

/// Makes weights of codes that share a scale.
#[inline(always)]
fn weigh_group<T: Copy>(
    rule: Rule,
    scale: f32,
    zero: f32,
    from: &[T],
    number: impl Fn(T) -> f32,
    into: &mut [[u8; 4]],
) {
    match rule {
        Rule::Scale => each(from, into, |code| number(code) * scale),
        Rule::ScaleTwice(factor) => each(from, into, |code| number(code) * scale * factor),
        Rule::SubtractAndScale => each(from, into, |code| (number(code) - zero) * scale),
        Rule::ScaleAndAdd => each(from, into, |code| number(code) * scale + zero),
    }
}

#[inline(always)]
fn each<T: Copy>(from: &[T], into: &mut [[u8; 4]], weight: impl Fn(T) -> f32) {
    for (code, into) in from.iter().zip(into) {
        *into = weight(*code).to_le_bytes();
    }
}
