//! Cuts a selection into parts that lie close together in the tensor.
//!
//! ```text
//! for each walk of it: cut(loops, start), which is
//!
//! cut(loops, start):
//!     if there are no loops, or all of them together reach no further than is wanted and skip no more: one part
//!     if some rounds of the outermost loop do: a part for every so many rounds
//!     else: cut(the inner loops, start + round * stride) for each round
//! ```

use alloc::vec;
use alloc::vec::Vec;

use super::{Loop, Nest, Selection};

/// How far apart the bytes of one part may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closeness {
    /// A part reaches over at most so many bytes of the tensor, unless a single run does.
    pub max_span: u64,
    /// A part skips at most so many bytes from one run to the next.
    pub max_gap: u64,
}

impl Selection {
    /// Calls `take` with parts of the selection, in the order of the result and together all of it, and with the byte of the
    /// result that each begins at. A part is flat: its shape is the number of its elements.
    ///
    /// What is not byte-aligned is one part.
    pub(crate) fn cut(&self, closeness: Closeness, take: &mut dyn FnMut(u64, Selection)) {
        if !self.is_byte_aligned() {
            return take(0, self.clone());
        }
        let mut at = 0;
        for nest in self.nests() {
            let cutting = Cutting {
                selection: self,
                run: nest.run,
                closeness,
            };
            cutting.cut(nest.start, &nest.loops, &mut |part| {
                let size_bytes = part.size_bytes;
                take(at, part);
                at += size_bytes;
            });
        }
    }
}

/// How one walk of a selection is cut.
struct Cutting<'a> {
    selection: &'a Selection,
    run: u64,
    closeness: Closeness,
}

impl Cutting<'_> {
    fn cut(&self, start: u64, loops: &[Loop], take: &mut dyn FnMut(Selection)) {
        let Some((outer, inner)) = loops.split_first() else {
            return take(self.part(start, loops, 1));
        };
        let rounds = self.rounds_together(*outer, inner);
        let mut done = 0;
        while done < outer.count {
            // Within the tensor in the end, since every position of the walk is.
            let from = start.wrapping_add((outer.stride as u64).wrapping_mul(done));
            let now = rounds.min(outer.count - done);
            match rounds {
                0 => {
                    self.cut(from, inner, take);
                    done += 1;
                }
                _ => {
                    take(self.part(from, loops, now));
                    done += now;
                }
            }
        }
    }

    /// How many rounds of `outer` may lie in one part; 0 if not even one may.
    fn rounds_together(&self, outer: Loop, inner: &[Loop]) -> u64 {
        let Closeness { max_span, max_gap } = self.closeness;
        let round_span = self.in_bytes(inner.iter().fold(self.run, |span, each| {
            span + each.stride.unsigned_abs() * (each.count - 1)
        }));
        let mut skipped = self.run;
        for each in inner.iter().rev() {
            let stride = self.in_bytes(each.stride.unsigned_abs());
            if stride.saturating_sub(self.in_bytes(skipped)) > max_gap {
                return 0;
            }
            skipped += each.stride.unsigned_abs() * (each.count - 1);
        }
        if round_span > max_span {
            return 0;
        }
        let stride = self.in_bytes(outer.stride.unsigned_abs());
        if stride.saturating_sub(round_span) > max_gap {
            // Each round is alone, which is a part if it has loops of its own to keep together.
            return 1;
        }
        1 + (max_span - round_span) / stride.max(1)
    }

    /// The first `rounds` rounds of the outermost of `loops` from `start` on.
    fn part(&self, start: u64, loops: &[Loop], rounds: u64) -> Selection {
        let mut loops = loops.to_vec();
        match loops.first_mut() {
            Some(_) if rounds == 1 => {
                loops.remove(0);
            }
            Some(outer) => outer.count = rounds,
            None => {}
        }
        let nest = Nest {
            start,
            run: self.run,
            loops,
        };
        let n_elements = nest.n_elements();
        Selection {
            dtype: self.selection.dtype,
            tensor_bytes: self.selection.tensor_bytes,
            shape: vec![n_elements],
            size_bytes: self.in_bytes(n_elements),
            first: nest,
            rest: Vec::new(),
        }
    }

    /// The bytes of so many elements of a selection that is byte-aligned.
    fn in_bytes(&self, n_elements: u64) -> u64 {
        n_elements * u64::from(self.selection.dtype.width_bits()) / 8
    }
}
