//! Boxes of whole tensors out of the chunks that meet them.
//!
//! ```text
//! for each window of the box, of some MB, row by row:
//!     for each chunk that meets it: read what both have, and lay it into the window
//!     hand the window over
//! ```
//!
//! The last dimension is counted in bytes here, so that elements of any width are read alike.

use std::ops::Range;

use tensorhold_core::{Dtype, Error, ErrorKind, Place, Request, Result, Selection};
use tensorhold_io::check_interrupt;

use super::{Assembled, Chunk, WholeTensor};
use crate::checkpoint::Tensor;
use crate::read::{allocate, read_selection};

/// Large enough for the disk, small enough to be held twice.
const WINDOW_BYTES: u64 = 8 << 20;
/// More requests than this would take more memory than many a tensor.
const MAX_REQUESTS: u64 = 1 << 20;

type Ranges = Vec<Range<u64>>;

/// Reads boxes window by window, into the same memory.
pub(super) struct Windows<'a> {
    source: &'a Assembled,
    window: Vec<u8>,
    /// What a chunk has of a window.
    part: Vec<u8>,
}

impl<'a> Windows<'a> {
    pub(super) fn of(source: &'a Assembled) -> Windows<'a> {
        Windows {
            source,
            window: Vec::new(),
            part: Vec::new(),
        }
    }

    /// Hands the bytes of a box of `tensor` to `put`, row by row.
    pub(super) fn stream(
        &mut self,
        tensor: &WholeTensor,
        ranges: &[Range<u64>],
        put: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        require_inside(tensor, ranges)?;
        if is_empty(ranges) {
            return Ok(());
        }
        let Geometry { ranges, chunks } = Geometry::of(tensor, ranges)?;
        for_each_window(&ranges, &mut |window| {
            check_interrupt()?;
            self.fill(tensor, window, &chunks)?;
            put(&self.window)
        })
    }

    fn fill(
        &mut self,
        tensor: &WholeTensor,
        window: &[Range<u64>],
        chunks: &[(&Chunk, Ranges)],
    ) -> Result<()> {
        resize(&mut self.window, volume(window))?;
        for (chunk, ranges) in chunks {
            let both = meet(window, ranges);
            if is_empty(&both) {
                continue;
            }
            let from = find(self.source, tensor, chunk)?;
            let wanted = selection(ranges, &both)?;
            if both == window {
                return read_selection(&from, &wanted, &mut self.window);
            }
            resize(&mut self.part, wanted.size_bytes())?;
            read_selection(&from, &wanted, &mut self.part)?;
            let mut rest = &self.part[..];
            for run in selection(window, &both)?.runs() {
                let (start, end) = (in_memory(run.start), in_memory(run.end));
                let (row, later) = rest.split_at(end - start);
                self.window[start..end].copy_from_slice(row);
                rest = later;
            }
        }
        Ok(())
    }
}

pub(super) fn requests(
    source: &Assembled,
    tensor: &WholeTensor,
    ranges: &[Range<u64>],
    buffer: usize,
) -> Result<Vec<Request>> {
    require_inside(tensor, ranges)?;
    let mut requests = Vec::new();
    if is_empty(ranges) {
        return Ok(requests);
    }
    let Geometry {
        ranges: wanted,
        chunks,
    } = Geometry::of(tensor, ranges)?;
    for (chunk, has) in &chunks {
        let both = meet(&wanted, has);
        if is_empty(&both) {
            continue;
        }
        let from = find(source, tensor, chunk)?;
        let n_rows = selection(&wanted, &both)?.max_runs();
        if n_rows.saturating_add(requests.len() as u64) > MAX_REQUESTS {
            let message = format!("the part takes over {MAX_REQUESTS} requests");
            return Err(Error::new(ErrorKind::InvalidSlice, message).with_tensor(&tensor.name[..]));
        }
        for_each_row(&wanted, &both, &mut |row| {
            let offset = selection(&wanted, row)?.span().start;
            let request = request(&from, has, row)?;
            requests.push(request.at(Place { buffer, offset }));
            Ok(())
        })?;
    }
    Ok(requests)
}

/// Of a chunk with the bytes `has` those of `part`.
fn request(chunk: &Tensor<'_>, has: &[Range<u64>], part: &[Range<u64>]) -> Result<Request> {
    let selection = selection(has, part)?;
    Ok(match selection.is_whole() {
        true => chunk.request(),
        false => chunk.request().part(selection),
    })
}

/// A box and the chunks of its tensor that meet it, in bytes.
struct Geometry<'a> {
    ranges: Ranges,
    chunks: Vec<(&'a Chunk, Ranges)>,
}

impl<'a> Geometry<'a> {
    /// Of a box that is not empty.
    fn of(tensor: &'a WholeTensor, ranges: &[Range<u64>]) -> Result<Geometry<'a>> {
        let there = tensor.chunks.iter();
        let there = there.filter(|chunk| meets(&chunk.ranges, ranges));
        let chunks: Option<Vec<(&Chunk, Ranges)>> = there
            .clone()
            .map(|chunk| Some((chunk, in_bytes(tensor.dtype, &chunk.ranges)?)))
            .collect();
        if let Some((ranges, chunks)) = in_bytes(tensor.dtype, ranges).zip(chunks) {
            return Ok(Geometry { ranges, chunks });
        }
        // Rows that end inside a byte can be kept, but not divided.
        let only: Vec<&Chunk> = there.collect();
        if let [chunk] = only[..]
            && chunk.ranges == ranges
        {
            let all: Ranges = std::iter::once(0..tensor.size_bytes()).collect();
            return Ok(Geometry {
                ranges: all.clone(),
                chunks: vec![(chunk, all)],
            });
        }
        let message = format!(
            "a part of a tensor of {} would begin or end inside a byte",
            tensor.dtype
        );
        Err(Error::new(ErrorKind::Misaligned, message).with_tensor(&tensor.name[..]))
    }
}

/// The box with its last dimension in bytes; a scalar gets one.
fn in_bytes(dtype: Dtype, ranges: &[Range<u64>]) -> Option<Ranges> {
    let width_bits = u64::from(dtype.width_bits());
    let bytes = |position: u64| {
        let bits = position * width_bits;
        bits.is_multiple_of(8).then_some(bits / 8)
    };
    let mut ranges = ranges.to_vec();
    match ranges.last_mut() {
        Some(last) => *last = bytes(last.start)?..bytes(last.end)?,
        None => ranges.push(0..bytes(1)?),
    }
    Some(ranges)
}

/// Calls `take` with parts of the box that together are the box, row by row, each of at most [`WINDOW_BYTES`].
fn for_each_window(
    ranges: &[Range<u64>],
    take: &mut dyn FnMut(&[Range<u64>]) -> Result<()>,
) -> Result<()> {
    // The first dimension of which one position fits.
    let fits = |dim: &usize| volume(&ranges[dim + 1..]) <= WINDOW_BYTES;
    let dim = (0..ranges.len()).find(fits).unwrap_or(ranges.len() - 1);
    let step = (WINDOW_BYTES / volume(&ranges[dim + 1..])).max(1);
    let mut window = ranges.to_vec();
    for_each_position(&ranges[..dim], &mut |position| {
        for (range, &at) in window.iter_mut().zip(position) {
            *range = at..at + 1;
        }
        let mut start = ranges[dim].start;
        while start < ranges[dim].end {
            let end = start.saturating_add(step).min(ranges[dim].end);
            window[dim] = start..end;
            take(&window)?;
            start = end;
        }
        Ok(())
    })
}

/// Calls `take` with the largest parts of `both` that lie side by side in `whole`.
fn for_each_row(
    whole: &[Range<u64>],
    both: &[Range<u64>],
    take: &mut dyn FnMut(&[Range<u64>]) -> Result<()>,
) -> Result<()> {
    let full = whole.iter().zip(both).rev();
    let n_full = full.take_while(|(whole, both)| whole == both).count();
    let dim = (whole.len() - n_full).saturating_sub(1);
    let mut row = both.to_vec();
    for_each_position(&both[..dim], &mut |position| {
        for (range, &at) in row.iter_mut().zip(position) {
            *range = at..at + 1;
        }
        take(&row)
    })
}

/// Calls `take` with each combination of positions, in order; none of the ranges is empty.
fn for_each_position(
    ranges: &[Range<u64>],
    take: &mut dyn FnMut(&[u64]) -> Result<()>,
) -> Result<()> {
    let mut position: Vec<u64> = ranges.iter().map(|range| range.start).collect();
    loop {
        take(&position)?;
        let mut dims = position.iter_mut().zip(ranges).rev();
        let moved = dims.any(|(at, range)| {
            *at += 1;
            let is_inside = *at < range.end;
            if !is_inside {
                *at = range.start;
            }
            is_inside
        });
        if !moved {
            return Ok(());
        }
    }
}

/// Of the bytes of `whole` those of `part`, a box inside of it.
fn selection(whole: &[Range<u64>], part: &[Range<u64>]) -> Result<Selection> {
    let shape: Vec<u64> = whole.iter().map(|range| range.end - range.start).collect();
    let pairs = whole.iter().zip(part);
    let ranges: Vec<Ranges> = pairs
        .map(|(whole, part)| {
            std::iter::once(part.start - whole.start..part.end - whole.start).collect()
        })
        .collect();
    Selection::of_ranges(Dtype::U8, &shape, &ranges)
}

fn meet(one: &[Range<u64>], other: &[Range<u64>]) -> Ranges {
    let pairs = one.iter().zip(other);
    pairs
        .map(|(one, other)| one.start.max(other.start)..one.end.min(other.end))
        .collect()
}

fn meets(one: &[Range<u64>], other: &[Range<u64>]) -> bool {
    let mut pairs = one.iter().zip(other);
    pairs.all(|(one, other)| one.start.max(other.start) < one.end.min(other.end))
}

fn is_empty(ranges: &[Range<u64>]) -> bool {
    ranges.iter().any(Range::is_empty)
}

/// The bytes of a box that is not empty.
fn volume(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).product()
}

fn find<'a>(source: &'a Assembled, tensor: &WholeTensor, chunk: &Chunk) -> Result<Tensor<'a>> {
    source.checkpoint.tensor_in(chunk.file, &tensor.name)
}

fn require_inside(tensor: &WholeTensor, ranges: &[Range<u64>]) -> Result<()> {
    let mut dims = ranges.iter().zip(&tensor.shape);
    if ranges.len() == tensor.shape.len() && dims.all(|(range, &size)| range.end <= size) {
        return Ok(());
    }
    let message = format!("{ranges:?} is no part of shape {:?}", tensor.shape);
    Err(Error::new(ErrorKind::InvalidArgument, message).with_tensor(&tensor.name[..]))
}

fn resize(buffer: &mut Vec<u8>, size_bytes: u64) -> Result<()> {
    match usize::try_from(size_bytes) {
        Ok(size) if size <= buffer.len() => buffer.truncate(size),
        Ok(size) if size <= buffer.capacity() => buffer.resize(size, 0),
        _ => *buffer = allocate(size_bytes)?,
    }
    Ok(())
}

fn in_memory(offset: u64) -> usize {
    usize::try_from(offset).expect("a window is a few MB")
}
