//! Copies a selection out of a tensor's bytes.

use super::runs::Starts;
use super::{Nest, Selection};

/// Fills `into` from `bytes`, which begin at the tensor's byte `base`. `announce` is told what is copied soon.
pub(super) fn gather(
    selection: &Selection,
    bytes: &[u8],
    base: u64,
    into: &mut [u8],
    announce: impl Fn(&[u8]),
) {
    assert_eq!(
        into.len() as u64,
        selection.size_bytes,
        "the result has another size"
    );
    if !selection.is_byte_aligned() {
        return gather_bits(selection, bytes, base, into);
    }
    let width_bits = u64::from(selection.dtype.width_bits());
    let mut left = into;
    for nest in selection.nests() {
        let size = nest.n_elements() * width_bits / 8;
        let size = usize::try_from(size).expect("it lies within the result");
        let (now, later) = left.split_at_mut(size);
        gather_bytes(nest, width_bits, bytes, base, now, &announce);
        left = later;
    }
}

fn gather_bytes(
    nest: &Nest,
    width_bits: u64,
    bytes: &[u8],
    base: u64,
    into: &mut [u8],
    announce: &impl Fn(&[u8]),
) {
    let in_bytes = |n_elements: u64| -> usize {
        usize::try_from(n_elements * width_bits / 8).expect("it lies within `bytes`")
    };
    let base = usize::try_from(base).expect("it lies within the tensor");
    let run = in_bytes(nest.run);
    let Some((inner, outer)) = nest.loops.split_last() else {
        let start = in_bytes(nest.start) - base;
        into.copy_from_slice(&bytes[start..start + run]);
        return;
    };
    let stride = Stride {
        size: in_bytes(inner.stride.unsigned_abs()),
        is_backwards: inner.stride < 0,
    };
    let line = in_bytes(inner.count * nest.run);
    for (start, into) in Starts::new(nest.start, outer).zip(into.chunks_exact_mut(line)) {
        let start = in_bytes(start) - base;
        if stride.size < run {
            gather_overlapping_line(bytes, start, stride, run, into);
        } else if stride.is_far(run) {
            gather_far_line(bytes, start, stride.size, run, into, announce);
        } else {
            gather_line(bytes, start, stride, run, into);
        }
    }
}

#[derive(Clone, Copy)]
struct Stride {
    size: usize,
    is_backwards: bool,
}

/// Within half a page processors see by themselves what comes next.
const FAR_BYTES: usize = 2048;

/// In longer runs, too, but for the first bytes, which hardly count there.
const LONG_BYTES: usize = 8 << 10;

/// So much is announced before it is copied: what can be on its way from the memory at once, and little beside a cache.
const AHEAD_BYTES: usize = 16 << 10;

/// However short, so many runs are announced before they are copied.
const MAX_AHEAD: usize = 32;

impl Stride {
    fn is_far(self, run: usize) -> bool {
        let is_far = self.size - run.min(self.size) >= FAR_BYTES;
        is_far && run <= LONG_BYTES && !self.is_backwards
    }
}

/// As [`gather_line`], of runs that lie far apart.
fn gather_far_line(
    bytes: &[u8],
    start: usize,
    stride: usize,
    run: usize,
    into: &mut [u8],
    announce: &impl Fn(&[u8]),
) {
    let n_ahead = (AHEAD_BYTES / run).min(MAX_AHEAD);
    let steps = bytes[start..].chunks(stride).take(into.len() / run);
    let mut later = steps.clone().skip(n_ahead);
    for (to, step) in into.chunks_exact_mut(run).zip(steps) {
        if let Some(later) = later.next() {
            announce(&later[..run.min(later.len())]);
        }
        to.copy_from_slice(&step[..run]);
    }
}

/// As [`gather_line`], of runs that begin before the one before them ends.
fn gather_overlapping_line(
    bytes: &[u8],
    start: usize,
    stride: Stride,
    run: usize,
    into: &mut [u8],
) {
    for (n, to) in into.chunks_exact_mut(run).enumerate() {
        let at = match stride.is_backwards {
            false => start + n * stride.size,
            true => start - n * stride.size,
        };
        to.copy_from_slice(&bytes[at..at + run]);
    }
}

/// One round of the innermost loop: runs of `run` bytes, `stride` apart. The common sizes are spelt
/// out so that each copy is one load and one store.
fn gather_line(bytes: &[u8], start: usize, stride: Stride, run: usize, into: &mut [u8]) {
    match run {
        1 => copy_runs(bytes, start, stride, 1, into),
        2 => copy_runs(bytes, start, stride, 2, into),
        4 => copy_runs(bytes, start, stride, 4, into),
        8 => copy_runs(bytes, start, stride, 8, into),
        16 => copy_runs(bytes, start, stride, 16, into),
        _ => copy_runs(bytes, start, stride, run, into),
    }
}

#[inline(always)]
fn copy_runs(bytes: &[u8], start: usize, stride: Stride, run: usize, into: &mut [u8]) {
    let into = into.chunks_exact_mut(run);
    if stride.is_backwards {
        let steps = bytes[..start + run].rchunks(stride.size);
        for (to, step) in into.zip(steps) {
            to.copy_from_slice(&step[step.len() - run..]);
        }
    } else {
        let steps = bytes[start..].chunks(stride.size);
        for (to, step) in into.zip(steps) {
            to.copy_from_slice(&step[..run]);
        }
    }
}

fn gather_bits(selection: &Selection, bytes: &[u8], base: u64, into: &mut [u8]) {
    let mut packer = Packer::new(into);
    for (start, n_bits) in selection.bit_runs() {
        let mut start = start - base * 8;
        let end = start + n_bits;
        while start < end {
            let n_bits = (end - start).min(Packer::MOST_BITS);
            packer.push(read_bits(bytes, start, n_bits), n_bits);
            start += n_bits;
        }
    }
}

/// The `n_bits` from bit `start` on, at most [`Packer::MOST_BITS`].
fn read_bits(bytes: &[u8], start: u64, n_bits: u64) -> u64 {
    let first = usize::try_from(start / 8).expect("it lies within `bytes`");
    let window = &bytes[first..bytes.len().min(first + 8)];
    let mut word = [0; 8];
    word[..window.len()].copy_from_slice(window);
    (u64::from_le_bytes(word) >> (start % 8)) & ((1 << n_bits) - 1)
}

/// Writes bits side by side, least significant first.
struct Packer<'a> {
    into: core::slice::IterMut<'a, u8>,
    word: u64,
    n_bits: u64,
}

impl<'a> Packer<'a> {
    /// With up to 7 bits waiting, so many more fit in a word.
    const MOST_BITS: u64 = 56;

    fn new(into: &'a mut [u8]) -> Packer<'a> {
        Packer {
            into: into.iter_mut(),
            word: 0,
            n_bits: 0,
        }
    }

    fn push(&mut self, bits: u64, n_bits: u64) {
        self.word |= bits << self.n_bits;
        self.n_bits += n_bits;
        while self.n_bits >= 8 {
            let to = self.into.next().expect("the result has room for all bits");
            *to = self.word as u8;
            self.word >>= 8;
            self.n_bits -= 8;
        }
    }
}
