//! Cuts a selection into parts that lie close together in the tensor.
//!
//! ```text
//! cut(loops, start):
//!     if there are no loops, or all of them together reach no further than is wanted and skip no more: one part
//!     if some rounds of the outermost loop do: a part for every so many rounds
//!     else: cut(the inner loops, start + round * stride) for each round
//! ```

use alloc::vec;

use super::{Loop, Selection};

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
        if self.run == 0 {
            return;
        }
        if !self.is_byte_aligned() {
            return take(0, self.clone());
        }
        let mut at = 0;
        self.cut_loops(self.start, &self.loops, closeness, &mut |part| {
            let size_bytes = part.size_bytes;
            take(at, part);
            at += size_bytes;
        });
    }

    fn cut_loops(
        &self,
        start: u64,
        loops: &[Loop],
        closeness: Closeness,
        take: &mut dyn FnMut(Selection),
    ) {
        let Some((outer, inner)) = loops.split_first() else {
            return take(self.part(start, loops, 1));
        };
        let rounds = self.rounds_together(*outer, inner, closeness);
        let mut done = 0;
        while done < outer.count {
            // Within the tensor in the end, since every position of the walk is.
            let from = start.wrapping_add((outer.stride as u64).wrapping_mul(done));
            let now = rounds.min(outer.count - done);
            match rounds {
                0 => {
                    self.cut_loops(from, inner, closeness, take);
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
    fn rounds_together(&self, outer: Loop, inner: &[Loop], closeness: Closeness) -> u64 {
        let round_span = self.in_bytes(inner.iter().fold(self.run, |span, each| {
            span + each.stride.unsigned_abs() * (each.count - 1)
        }));
        let mut skipped = self.run;
        for each in inner.iter().rev() {
            if self
                .in_bytes(each.stride.unsigned_abs())
                .saturating_sub(self.in_bytes(skipped))
                > closeness.max_gap
            {
                return 0;
            }
            skipped += each.stride.unsigned_abs() * (each.count - 1);
        }
        if round_span > closeness.max_span {
            return 0;
        }
        let stride = self.in_bytes(outer.stride.unsigned_abs());
        if stride.saturating_sub(round_span) > closeness.max_gap {
            // Each round is alone, which is a part if it has loops of its own to keep together.
            return 1;
        }
        1 + (closeness.max_span - round_span) / stride.max(1)
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
        let n_elements = loops
            .iter()
            .fold(self.run, |product, each| product * each.count);
        Selection {
            dtype: self.dtype,
            tensor_bytes: self.tensor_bytes,
            shape: vec![n_elements],
            size_bytes: self.in_bytes(n_elements),
            start,
            run: self.run,
            loops,
        }
    }

    /// The bytes of so many elements of a selection that is byte-aligned.
    fn in_bytes(&self, n_elements: u64) -> u64 {
        n_elements * u64::from(self.dtype.width_bits()) / 8
    }
}
