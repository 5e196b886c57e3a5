//! The runs of a selection, one at a time.

use alloc::vec;
use alloc::vec::Vec;
use core::slice;

use super::{Loop, Nest, Selection};
use crate::extent::ByteRange;

/// The ranges of bytes of a [`Selection`], in the order of the result; see [`Selection::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a>(ElementRuns<'a>);

impl<'a> Runs<'a> {
    pub(super) fn new(selection: &'a Selection) -> Runs<'a> {
        Runs(ElementRuns::new(selection))
    }
}

impl Iterator for Runs<'_> {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let (start, end) = self.0.next()?;
        let width_bits = self.0.width_bits;
        Some(ByteRange::new(start * width_bits / 8, end * width_bits / 8))
    }
}

impl core::iter::FusedIterator for Runs<'_> {}

/// The runs of bits of a [`Selection`], in the order of the result: the first bit, counted from the
/// tensor's first byte on, least significant first, and the number of bits.
#[derive(Debug, Clone)]
pub struct BitRuns<'a>(ElementRuns<'a>);

impl<'a> BitRuns<'a> {
    pub(super) fn new(selection: &'a Selection) -> BitRuns<'a> {
        BitRuns(ElementRuns::new(selection))
    }
}

impl Iterator for BitRuns<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let (start, end) = self.0.next()?;
        let width_bits = self.0.width_bits;
        Some((start * width_bits, (end - start) * width_bits))
    }
}

impl core::iter::FusedIterator for BitRuns<'_> {}

/// The maximal runs of elements, as first and end.
///
/// Loops are joined when they are made, so two runs can touch only where a loop ends and the one
/// around it goes round, as the elements 3 and 4 do in `x[:, ::3]` of a tensor of 2 x 4, or where a walk ends.
#[derive(Debug, Clone)]
struct ElementRuns<'a> {
    starts: Starts<'a>,
    run: u64,
    /// The walks that are still to come.
    rest: slice::Iter<'a, Nest>,
    width_bits: u64,
    next: Option<(u64, u64)>,
}

impl<'a> ElementRuns<'a> {
    fn new(selection: &'a Selection) -> ElementRuns<'a> {
        let Nest { start, run, loops } = &selection.first;
        let mut runs = ElementRuns {
            starts: Starts::new(*start, loops),
            run: *run,
            rest: selection.rest.iter(),
            width_bits: u64::from(selection.dtype.width_bits()),
            next: None,
        };
        runs.next = runs.advance().filter(|_| *run != 0);
        runs
    }

    fn advance(&mut self) -> Option<(u64, u64)> {
        loop {
            if let Some(start) = self.starts.next() {
                return Some((start, start + self.run));
            }
            let nest = self.rest.next()?;
            self.starts = Starts::new(nest.start, &nest.loops);
            self.run = nest.run;
        }
    }

    fn next(&mut self) -> Option<(u64, u64)> {
        let (start, mut end) = self.next?;
        self.next = self.advance();
        while let Some((_, further)) = self.next.filter(|&(start, _)| start == end) {
            end = further;
            self.next = self.advance();
        }
        Some((start, end))
    }
}

/// The positions that a nest of loops goes through.
#[derive(Debug, Clone)]
pub(super) struct Starts<'a> {
    loops: &'a [Loop],
    rounds: Vec<u64>,
    next: Option<u64>,
}

impl<'a> Starts<'a> {
    pub(super) fn new(start: u64, loops: &'a [Loop]) -> Starts<'a> {
        Starts {
            loops,
            rounds: vec![0; loops.len()],
            next: Some(start),
        }
    }
}

impl Iterator for Starts<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let here = self.next.take()?;
        let mut position = here;
        for (each, rounds) in self.loops.iter().zip(&mut self.rounds).rev() {
            if *rounds + 1 < each.count {
                *rounds += 1;
                self.next = Some(position.wrapping_add_signed(each.stride));
                break;
            }
            // Back to the loop's first position, which lies in the tensor: nothing wraps in the end.
            position = position.wrapping_sub((each.stride as u64).wrapping_mul(*rounds));
            *rounds = 0;
        }
        Some(here)
    }
}
