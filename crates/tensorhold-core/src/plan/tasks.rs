//! A plan as the reads that carry it out.
//!
//! ```text
//! for each request: cut it into pieces that lie close together in the file
//! sort the pieces by file and position
//! join neighbours into one task as long as it stays short and skips little
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::load::{LoadPlan, Request};
use crate::dtype::Dtype;
use crate::extent::{ByteRange, Extent};
use crate::slice::{Closeness, Selection};

/// Pieces of a long run end on such a boundary of the file, so that reads past the page cache are aligned.
const BOUNDARY_BYTES: u64 = 4096;

/// So many pieces are handed to and fro at once; more would take memory that is not in the processor's cache.
const MOST_PIECES: usize = 1024;

/// How the bytes of one file are best read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// What lies side by side is read in pieces of at most so many bytes.
    pub piece_bytes: u64,
    /// Several pieces are read together where they span at most so many bytes.
    pub window_bytes: u64,
    /// Unwanted bytes between two wanted ones are read along, or passed over in place, where they are at most so many.
    pub max_gap_bytes: u64,
}

/// One read of one file, which serves one piece or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The bytes to read; those before the first and after the last wanted one are not among them.
    pub extent: Extent,
    /// Its pieces, as indices into [`Tasks::pieces`].
    pub pieces: Range<usize>,
}

/// A part of one request.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The request's number in the plan.
    pub request: usize,
    /// The bytes of the file from the first to the last that is needed.
    pub range: ByteRange,
    /// The buffer.
    pub buffer: usize,
    /// The bytes of the buffer that it fills.
    pub place: ByteRange,
    /// Which of the tensor's bytes those are; all of `range` where there is none.
    pub selection: Option<Box<Selection>>,
    /// What its elements become on the way, if something else.
    pub cast: Option<Dtype>,
}

/// A plan that is ready to be carried out.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tasks: Vec<Task>,
    pieces: Vec<Piece>,
}

impl Tasks {
    pub(super) fn of(plan: &LoadPlan, mut cut: impl FnMut(usize) -> Cut) -> Tasks {
        let cuts: Vec<Cut> = (0..plan.n_files()).map(&mut cut).collect();
        let mut pieces = Vec::with_capacity(plan.requests().len());
        for (number, request) in plan.requests().iter().enumerate() {
            add_pieces(plan, number, request, cuts[request.file], &mut pieces);
        }
        let file_of = |piece: &Piece| plan.requests()[piece.request].file;
        let by_position = |piece: &Piece| (file_of(piece), piece.range.start);
        if !pieces.is_sorted_by_key(by_position) {
            pieces.sort_by_key(by_position);
        }
        let mut tasks: Vec<Task> = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let file = file_of(piece);
            let joined = tasks
                .last_mut()
                .is_some_and(|last| last.extent.file == file && last.join(piece, &cuts[file]));
            if !joined {
                tasks.push(Task {
                    extent: Extent {
                        file,
                        range: piece.range,
                    },
                    pieces: number..number + 1,
                });
            }
        }
        Tasks { tasks, pieces }
    }

    /// The reads, by file and position.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The pieces that a task serves, by position.
    #[must_use]
    pub fn pieces(&self, task: &Task) -> &[Piece] {
        &self.pieces[task.pieces.clone()]
    }

    /// All pieces, by file and position.
    #[must_use]
    pub fn all_pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The bytes that all reads together take, with what lies between wanted ones.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.tasks.iter().map(|task| task.extent.range.len()).sum()
    }

    /// The tasks in `n_workers` stretches of about as many bytes each, in order: what one worker reads is then contiguous.
    #[must_use]
    pub fn stretches(&self, n_workers: usize) -> Vec<Range<usize>> {
        let n_workers = n_workers.max(1);
        let total = u128::from(self.read_bytes());
        let mut stretches = Vec::with_capacity(n_workers);
        let (mut start, mut read) = (0, 0u128);
        for (number, task) in self.tasks.iter().enumerate() {
            read += u128::from(task.extent.range.len());
            let closed = stretches.len() as u128 + 1;
            if read * n_workers as u128 >= total * closed && stretches.len() + 1 < n_workers {
                stretches.push(start..number + 1);
                start = number + 1;
            }
        }
        stretches.push(start..self.tasks.len());
        stretches
    }
}

impl Task {
    /// Takes `piece` along if it lies close enough behind.
    fn join(&mut self, piece: &Piece, cut: &Cut) -> bool {
        let range = &mut self.extent.range;
        let end = piece.range.end.max(range.end);
        let is_close = piece.range.start.saturating_sub(range.end) <= cut.max_gap_bytes;
        let is_full = self.pieces.len() == MOST_PIECES;
        if is_full || !is_close || end - range.start > cut.window_bytes {
            return false;
        }
        range.end = end;
        self.pieces.end += 1;
        true
    }
}

fn add_pieces(
    plan: &LoadPlan,
    number: usize,
    request: &Request,
    cut: Cut,
    pieces: &mut Vec<Piece>,
) {
    let whole = plan.extent(request);
    let tensor = whole.start;
    let cast = plan.casts(request);
    let (from, to) = cast.unwrap_or((1, 1));
    let in_place = |at: u64| request.place.offset + at / u64::from(from) * u64::from(to);
    let mut add = |range: ByteRange, at: u64, size_bytes: u64, selection| {
        pieces.push(Piece {
            request: number,
            range,
            buffer: request.place.buffer,
            place: ByteRange::new(in_place(at), in_place(at + size_bytes)),
            selection,
            cast: request.dtype.filter(|_| cast.is_some()),
        });
    };
    // What is cast comes by way of a window.
    let piece_bytes = match cast {
        Some(_) => cut.piece_bytes.min(cut.window_bytes),
        None => cut.piece_bytes,
    };
    let run_cut = RunCut {
        piece_bytes,
        unit: from.into(),
    };
    let Some(selection) = &request.selection else {
        return run_cut.for_each(whole, |part| {
            add(part, part.start - tensor, part.len(), None);
        });
    };
    let closeness = Closeness {
        max_span: piece_bytes,
        max_gap: cut.max_gap_bytes,
    };
    selection.cut(closeness, &mut |at, part| {
        let span = part.span();
        let range = ByteRange::new(tensor + span.start, tensor + span.end);
        if part.is_run() {
            run_cut.for_each(range, |cut| {
                add(cut, at + (cut.start - range.start), cut.len(), None);
            });
        } else {
            add(range, at, part.size_bytes(), Some(Box::new(part)));
        }
    });
}

/// How bytes that lie side by side are cut.
#[derive(Clone, Copy)]
struct RunCut {
    piece_bytes: u64,
    /// A piece is a whole number of so many bytes.
    unit: u64,
}

impl RunCut {
    fn for_each(self, range: ByteRange, mut take: impl FnMut(ByteRange)) {
        let mut start = range.start;
        while start < range.end {
            let end = self.end(start, range.end);
            take(ByteRange::new(start, end));
            start = end;
        }
    }

    /// Where the piece from `start` on ends: on a boundary of the file, if there is one within reach.
    fn end(self, start: u64, end: u64) -> u64 {
        let reach = self.piece_bytes.max(self.unit);
        if end - start <= reach {
            return end;
        }
        let boundary = (start + reach) / BOUNDARY_BYTES * BOUNDARY_BYTES;
        let len = boundary.checked_sub(start).filter(|&len| len >= self.unit);
        let len = len.unwrap_or(reach);
        start + len / self.unit * self.unit
    }
}
