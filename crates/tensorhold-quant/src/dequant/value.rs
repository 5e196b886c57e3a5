//! A row of codes as numbers, and the numbers as weights.
//!
//! Codes become elements in one loop: value, scale and rounding happen in registers. Blocks of a fixed number of codes
//! go through it together, so that compilers make vectors of groups that are short.

use core::ops::Range;

use tensorhold_core::{Dtype, Result};

use super::lookup::{Magnitudes, Pairs};
use super::store::{Store, put, put_all};
use crate::cast;
use crate::cast::decode::{Decode, F8E4m3, F8E5m2};
use crate::cast::encode::{Bf16OnesNan, Encode};
use crate::cast::level::{Level, Work};
use crate::codec::{FloatCode, PairOrder};
use crate::scheme::Value;

/// What weights are written as.
pub(super) trait Element {
    /// One of them, little-endian.
    type Bytes: Copy + Default;

    /// The room for elements in `bytes`.
    fn elements(bytes: &mut [u8]) -> &mut [Self::Bytes];

    /// Writes elements into as many, as [`put`] does.
    fn put<const PAST: bool>(from: &[Self::Bytes], into: &mut [Self::Bytes]);

    /// The element nearest to `weight`.
    fn of(weight: f32) -> Self::Bytes;
}

/// F32, what weights are computed in.
pub(super) struct Single;

impl Element for Single {
    type Bytes = [u8; 4];

    #[inline(always)]
    fn elements(bytes: &mut [u8]) -> &mut [[u8; 4]] {
        bytes.as_chunks_mut().0
    }

    #[inline(always)]
    fn put<const PAST: bool>(from: &[[u8; 4]], into: &mut [[u8; 4]]) {
        put::<PAST>(from.as_flattened(), into.as_flattened_mut());
    }

    #[inline(always)]
    fn of(weight: f32) -> [u8; 4] {
        weight.to_le_bytes()
    }
}

/// BF16, as a cast makes it of F32.
pub(super) struct Brain;

impl Element for Brain {
    type Bytes = [u8; 2];

    #[inline(always)]
    fn elements(bytes: &mut [u8]) -> &mut [[u8; 2]] {
        Bf16OnesNan::elements(bytes)
    }

    #[inline(always)]
    fn put<const PAST: bool>(from: &[[u8; 2]], into: &mut [[u8; 2]]) {
        put::<PAST>(from.as_flattened(), into.as_flattened_mut());
    }

    #[inline(always)]
    fn of(weight: f32) -> [u8; 2] {
        Bf16OnesNan::encode(weight.to_bits())
    }
}

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

/// The groups of `n_columns` of which the first has `first` and the others `size` each.
pub(super) fn runs(
    first: usize,
    size: usize,
    n_columns: usize,
) -> impl Iterator<Item = Range<usize>> {
    let head = first.min(n_columns);
    let rest = (head..n_columns).step_by(size.max(1));
    let rest = rest.map(move |start| start..start.saturating_add(size).min(n_columns));
    std::iter::once(0..head).chain(rest)
}

/// The scales and zeros of one row of groups, and what is made of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups<'a> {
    pub(super) scales: &'a [f32],
    pub(super) zeros: &'a [f32],
    pub(super) columns: Columns<'a>,
    pub(super) rule: Rule,
}

/// A row of codes with what makes weights of them.
pub(super) struct Row<'a> {
    pub(super) value: Value,
    /// The width of a code in bits.
    pub(super) bits: u32,
    /// One in each byte, in its low bits; two where tables are of such.
    pub(super) codes: &'a [u8],
    pub(super) groups: Groups<'a>,
    /// Room for as many numbers as weights.
    pub(super) numbers: &'a mut [f32],
    /// Tables, where many weights share a scale.
    pub(super) tables: Option<Tables<'a>>,
}

/// What weights are looked up in.
pub(super) enum Tables<'a> {
    Magnitudes(&'a mut Magnitudes),
    Pairs(PairOrder, &'a mut Pairs),
}

/// Room for a row on its way to types that take a cast.
#[derive(Default)]
pub(super) struct Casts {
    singles: Vec<u8>,
    casted: Vec<u8>,
}

impl Row<'_> {
    /// Writes the weights into `into`, as elements of type `to`, by tables where they serve.
    ///
    /// # Errors
    /// `InvalidArgument` where weights cannot become elements of this type.
    pub(super) fn put(
        &mut self,
        to: Dtype,
        store: Store,
        casts: &mut Casts,
        into: &mut [u8],
    ) -> Result<()> {
        let is_done = match self.tables.take() {
            Some(Tables::Magnitudes(tables)) => {
                tables.put(self, to, store, into.as_chunks_mut().0)?
            }
            Some(Tables::Pairs(order, tables)) => {
                tables.put(self, order, to, store, into.as_chunks_mut().0)?;
                true
            }
            None => false,
        };
        match to {
            _ if is_done => {}
            Dtype::BF16 => self.weigh::<Brain>(store, into),
            Dtype::F32 => self.weigh::<Single>(store, into),
            _ => {
                let Casts { singles, casted } = casts;
                singles.resize(self.codes.len() * 4, 0);
                casted.resize(into.len(), 0);
                self.weigh::<Single>(Store::Through, singles);
                cast(Dtype::F32, singles, to, casted)?;
                put_all(store, casted, into);
            }
        }
        Ok(())
    }

    /// A row of other codes, whose weights are made in the same way; `numbers` is as long where values are no arithmetic of codes.
    pub(super) fn of<'b>(
        &self,
        codes: &'b [u8],
        groups: Groups<'b>,
        numbers: &'b mut [f32],
    ) -> Row<'b> {
        Row {
            value: self.value,
            bits: self.bits,
            codes,
            groups,
            numbers,
            tables: None,
        }
    }

    /// Writes the weights into `into`, as elements of type `E`.
    pub(super) fn weigh<E: Element>(&mut self, store: Store, into: &mut [u8]) {
        let (codes, bits, numbers) = (self.codes, self.bits, &mut *self.numbers);
        let weigh = Weigh::<'_, E> {
            groups: self.groups,
            store,
            into: E::elements(into),
        };
        match self.value {
            Value::Unsigned => weigh.each(codes, f32::from),
            Value::Signed => {
                let shift = 8 - bits;
                weigh.each(codes, move |code| f32::from((code << shift) as i8 >> shift));
            }
            Value::Float(FloatCode::E4m3) => weigh.each(codes, float::<F8E4m3>),
            Value::Float(FloatCode::E5m2) => weigh.each(codes, float::<F8E5m2>),
            Value::Float(FloatCode::E2m1) => weigh.each(codes, e2m1),
            Value::Float(float) => {
                float.decode(codes, numbers);
                weigh.each(numbers, |number| number);
            }
            Value::Table(table) => {
                table.decode(codes, numbers);
                weigh.each(numbers, |number| number);
            }
        }
    }
}

#[inline(always)]
fn float<T: Decode<Bytes = [u8; 1]>>(code: u8) -> f32 {
    f32::from_bits(T::decode([code]))
}

#[inline(always)]
fn e2m1(code: u8) -> f32 {
    f32::from_bits(FloatCode::e2m1_bits(code))
}

/// Where the weights of a row go, and what they are made by.
struct Weigh<'a, E: Element> {
    groups: Groups<'a>,
    store: Store,
    into: &'a mut [E::Bytes],
}

impl<E: Element> Weigh<'_, E> {
    /// Makes weights of what `number` makes numbers of.
    fn each<T: Copy>(self, from: &[T], number: impl Fn(T) -> f32 + Copy) {
        let level = Level::detect();
        match self.store {
            Store::Through => level.run(WeighEach::<'_, E, T, _, false> {
                from,
                number,
                weigh: self,
            }),
            Store::Past => level.run(WeighEach::<'_, E, T, _, true> {
                from,
                number,
                weigh: self,
            }),
        }
    }
}

/// What [`Weigh::each`] does.
struct WeighEach<'a, E: Element, T, F, const PAST: bool> {
    from: &'a [T],
    number: F,
    weigh: Weigh<'a, E>,
}

impl<E: Element, T: Copy, F: Fn(T) -> f32 + Copy, const PAST: bool> Work
    for WeighEach<'_, E, T, F, PAST>
{
    #[inline(always)]
    fn run(self) {
        let Weigh { groups, into, .. } = self.weigh;
        let (from, number) = (self.from, self.number);
        // Each rule has loops of its own, in which nothing is asked.
        match groups.rule {
            Rule::Scale => {
                let weight = move |code, scale, _| number(code) * scale;
                by_group::<E, T, PAST>(from, groups, weight, into);
            }
            Rule::ScaleTwice(factor) => {
                let weight = move |code, scale, _| number(code) * scale * factor;
                by_group::<E, T, PAST>(from, groups, weight, into);
            }
            Rule::SubtractAndScale => {
                let weight = move |code, scale, zero| (number(code) - zero) * scale;
                by_group::<E, T, PAST>(from, groups, weight, into);
            }
            Rule::ScaleAndAdd => {
                let weight = move |code, scale, zero| number(code) * scale + zero;
                by_group::<E, T, PAST>(from, groups, weight, into);
            }
        }
    }
}

/// Makes weights of a row of codes, group by group.
#[inline(always)]
fn by_group<E: Element, T: Copy, const PAST: bool>(
    from: &[T],
    groups: Groups<'_>,
    weight: impl Fn(T, f32, f32) -> f32 + Copy,
    into: &mut [E::Bytes],
) {
    let Groups { scales, zeros, .. } = groups;
    match groups.columns {
        Columns::Follow { size: 1, .. } => {
            each_own::<E, T, PAST>(from, |place| (scales[place], zeros[place]), weight, into);
        }
        Columns::Follow { first, size } => {
            let n_first = first.min(from.len());
            let (head, rest) = from.split_at(n_first);
            let (into_head, into_rest) = into.split_at_mut(n_first);
            let mut groups = scales.iter().zip(zeros);
            if let Some((&scale, &zero)) = groups.next() {
                each::<E, T, PAST>(head, into_head, |code| weight(code, scale, zero));
            }
            let runs = rest.chunks(size).zip(into_rest.chunks_mut(size));
            for ((from, into), (&scale, &zero)) in runs.zip(groups) {
                each::<E, T, PAST>(from, into, |code| weight(code, scale, zero));
            }
        }
        Columns::Listed { groups, first } => {
            let group = |place: usize| {
                let group = groups[place] as usize - first;
                (scales[group], zeros[group])
            };
            each_own::<E, T, PAST>(from, group, weight, into);
        }
    }
}

/// Makes weights of codes each of which has a scale and a zero of its own.
#[inline(always)]
fn each_own<E: Element, T: Copy, const PAST: bool>(
    from: &[T],
    group: impl Fn(usize) -> (f32, f32),
    weight: impl Fn(T, f32, f32) -> f32,
    into: &mut [E::Bytes],
) {
    let blocks = from.chunks(BLOCK).zip(into.chunks_mut(BLOCK));
    for (number, (from, into)) in blocks.enumerate() {
        let (mut scales, mut zeros) = ([0.0; BLOCK], [0.0; BLOCK]);
        for (place, (scale, zero)) in scales
            .iter_mut()
            .zip(&mut zeros)
            .enumerate()
            .take(from.len())
        {
            (*scale, *zero) = group(number * BLOCK + place);
        }
        let mut made = [E::Bytes::default(); BLOCK];
        let groups = scales.iter().zip(&zeros);
        for ((code, made), (scale, zero)) in from.iter().zip(&mut made).zip(groups) {
            *made = E::of(weight(*code, *scale, *zero));
        }
        E::put::<PAST>(&made[..into.len()], into);
    }
}

/// Codes that go through the loops together: a vector, or a few.
const BLOCK: usize = 32;

#[inline(always)]
fn each<E: Element, T: Copy, const PAST: bool>(
    from: &[T],
    into: &mut [E::Bytes],
    weight: impl Fn(T) -> f32,
) {
    let (blocks, rest) = from.as_chunks::<BLOCK>();
    let (into_blocks, into_rest) = into.as_chunks_mut::<BLOCK>();
    for (from, into) in blocks.iter().zip(into_blocks) {
        block::<E, T, BLOCK, PAST>(from, into, &weight);
    }
    let (halves, rest) = rest.as_chunks::<{ BLOCK / 2 }>();
    let (into_halves, into_rest) = into_rest.as_chunks_mut::<{ BLOCK / 2 }>();
    for (from, into) in halves.iter().zip(into_halves) {
        block::<E, T, { BLOCK / 2 }, PAST>(from, into, &weight);
    }
    for (code, into) in rest.iter().zip(into_rest) {
        *into = E::of(weight(*code));
    }
}

#[inline(always)]
fn block<E: Element, T: Copy, const N: usize, const PAST: bool>(
    from: &[T; N],
    into: &mut [E::Bytes; N],
    weight: &impl Fn(T) -> f32,
) {
    let mut made = [E::Bytes::default(); N];
    for (code, made) in from.iter().zip(&mut made) {
        *made = E::of(weight(*code));
    }
    E::put::<PAST>(&made, into);
}
