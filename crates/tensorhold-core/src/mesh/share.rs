//! The part of one tensor that one rank holds.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use super::placement::{FusedPart, Placement};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::slice::Selection;

/// Of each dimension of a tensor the positions that a rank holds.
///
/// ```
/// use tensorhold_core::{Placement, Share};
///
/// // Rank 1 of 2 along an axis that divides the rows, rank 0 of 2 along one that divides the columns.
/// let mut share = Share::whole(&[8, 6]);
/// share.divide(&Placement::Shard { dim: 0 }, 2, 1)?;
/// share.divide(&Placement::Shard { dim: 1 }, 2, 0)?;
/// assert_eq!(share.ranges(), [vec![4..8], vec![0..3]]);
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    shape: Vec<u64>,
    ranges: Vec<Line>,
}

/// Positions of a dimension, one range behind the other.
type Line = Vec<Range<u64>>;

/// The units in which the dimensions of a tensor may be cut: a cut between ranks must lie at a multiple, or at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Granularity {
    /// By dimension; 1 for those beyond the list.
    pub units: Vec<u64>,
}

impl Share {
    /// All of a tensor of `shape`.
    #[must_use]
    pub fn whole(shape: &[u64]) -> Share {
        Share {
            shape: shape.to_vec(),
            ranges: shape
                .iter()
                .map(|&size| iter::once(0..size).collect())
                .collect(),
        }
    }

    /// These positions of a tensor of `shape`, by dimension in the order in which they are held.
    ///
    /// # Errors
    /// `InvalidArgument` if there are ranges for another number of dimensions, or one that passes the end.
    pub fn of_ranges(shape: &[u64], ranges: Vec<Vec<Range<u64>>>) -> Result<Share> {
        let inside = |(line, &size): (&Line, &u64)| {
            line.iter()
                .all(|range| range.start <= range.end && range.end <= size)
        };
        if ranges.len() != shape.len() || !ranges.iter().zip(shape).all(inside) {
            return Err(invalid(format!(
                "{ranges:?} are no positions of a tensor of {shape:?}"
            )));
        }
        Ok(Share {
            shape: shape.to_vec(),
            ranges,
        })
    }

    /// Keeps of what is held the part of rank `rank` of `n_ranks` along an axis of a mesh.
    ///
    /// Axes are taken in the order of the mesh: each divides what those before it have left.
    ///
    /// # Errors
    /// `InvalidArgument` if the tensor has no such dimension, or if its size does not suit the placement.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn divide(&mut self, placement: &Placement, n_ranks: u64, rank: u64) -> Result<()> {
        assert!(rank < n_ranks, "the rank is one of those along the axis");
        let Some(dim) = placement.dim() else {
            return Ok(());
        };
        let rank_of_tensor = self.shape.len();
        let number = usize::try_from(if dim < 0 {
            dim + rank_of_tensor as i64
        } else {
            dim
        });
        let line = number.ok().and_then(|number| self.ranges.get_mut(number));
        let Some(line) = line else {
            return Err(invalid(format!(
                "{placement} cannot divide a tensor of {rank_of_tensor} dimensions"
            )));
        };
        let seat = Seat { n_ranks, rank };
        *line = match placement {
            Placement::Replicate => return Ok(()),
            Placement::Shard { .. } => take(line, chunk(length(line), seat)),
            Placement::StridedShard {
                split_factor: 0, ..
            } => return Err(invalid("a split factor of 0 makes no groups".into())),
            Placement::StridedShard { split_factor, .. } => strided(line, *split_factor, seat),
            Placement::Blocks { size: 0, .. } => {
                return Err(invalid("blocks of 0 positions hold nothing".into()));
            }
            Placement::Blocks { size, .. } => blocks(line, *size, seat),
            Placement::Fused { parts, .. } => fused(line, parts, seat)?,
            Placement::Heads { n_heads, .. } => {
                let part = FusedPart {
                    size: length(line),
                    n_heads: Some(*n_heads),
                };
                fused(line, &[part], seat)?
            }
        };
        Ok(())
    }

    /// Keeps of a dimension these positions of what is held of it.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no such dimension or position.
    pub fn keep(&mut self, dim: usize, positions: Range<u64>) -> Result<()> {
        let line = self.ranges.get_mut(dim);
        let line = line.filter(|line| positions.end <= length(line));
        let Some(line) = line else {
            let Range { start, end } = positions;
            return Err(invalid(format!(
                "there are no positions {start}..{end} of dimension {dim}"
            )));
        };
        *line = take(line, positions);
        Ok(())
    }

    /// Of each dimension the positions, in the order in which they are held.
    #[must_use]
    pub fn ranges(&self) -> &[Vec<Range<u64>>] {
        &self.ranges
    }

    /// The shape of the tensor.
    #[must_use]
    pub fn full_shape(&self) -> &[u64] {
        &self.shape
    }

    /// The shape of what is held.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        self.ranges.iter().map(|line| length(line)).collect()
    }

    /// Whether it is all of the tensor.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let mut each = self.ranges.iter().zip(&self.shape);
        each.all(|(line, &size)| matches!(&line[..], [range] if *range == (0..size)))
    }

    /// Refuses a share that is cut inside of a unit.
    ///
    /// # Errors
    /// `InvalidArgument` with the dimension, the cut, and the nearest ones that may be.
    pub fn check(&self, granularity: &Granularity) -> Result<()> {
        let sized = self.shape.iter().zip(&granularity.units);
        for (dim, (line, (&size, &unit))) in self.ranges.iter().zip(sized).enumerate() {
            let unit = unit.max(1);
            let cuts = line.iter().flat_map(|range| [range.start, range.end]);
            let inside = |&cut: &u64| cut != size && !cut.is_multiple_of(unit);
            if let Some(cut) = cuts.into_iter().find(inside) {
                let before = cut / unit * unit;
                let after = before.saturating_add(unit).min(size);
                return Err(invalid(format!(
                    "dimension {dim} of size {size} would be cut at {cut}, inside a unit of {unit}: the nearest cuts are at \
                     {before} and {after}"
                )));
            }
        }
        Ok(())
    }

    /// The bytes that hold it; `None` where it is all of the tensor.
    ///
    /// # Errors
    /// Those of [`Selection::of_ranges`].
    pub fn selection(&self, dtype: Dtype) -> Result<Option<Selection>> {
        match self.is_whole() {
            true => Ok(None),
            false => Selection::of_ranges(dtype, &self.shape, &self.ranges).map(Some),
        }
    }
}

/// One of the ranks along an axis.
#[derive(Clone, Copy)]
struct Seat {
    n_ranks: u64,
    rank: u64,
}

/// What a rank has of `len` positions: as `torch.chunk` divides them, but that there may be ranks without any.
fn chunk(len: u64, seat: Seat) -> Range<u64> {
    let size = len.div_ceil(seat.n_ranks);
    let start = size.saturating_mul(seat.rank).min(len);
    start..start.saturating_add(size).min(len)
}

/// Each of `split_factor` groups is divided by itself.
///
/// # Source
/// `_StridedShard._split_tensor` of PyTorch 2.15.
fn strided(line: &[Range<u64>], split_factor: u64, seat: Seat) -> Line {
    let len = length(line);
    let mut all = Line::new();
    // Groups beyond the last position are empty.
    for rank in 0..split_factor.min(len) {
        let group = chunk(
            len,
            Seat {
                n_ranks: split_factor,
                rank,
            },
        );
        let held = chunk(group.end - group.start, seat);
        all.extend(take(line, group.start + held.start..group.start + held.end));
    }
    all
}

/// Some whole blocks; the last one may be partial.
fn blocks(line: &[Range<u64>], size: u64, seat: Seat) -> Line {
    let len = length(line);
    let held = chunk(len.div_ceil(size), seat);
    let at = |number: u64| number.saturating_mul(size).min(len);
    take(line, at(held.start)..at(held.end))
}

fn fused(line: &[Range<u64>], parts: &[FusedPart], seat: Seat) -> Result<Line> {
    let sizes = parts.iter().map(|part| part.size);
    let total = sizes.fold(0u64, u64::saturating_add);
    if total != length(line) {
        return Err(invalid(format!(
            "the fused parts take {total} positions of a dimension that has {}",
            length(line)
        )));
    }
    let mut all = Line::new();
    let mut start = 0;
    for part in parts {
        let held = match part.n_heads {
            Some(n_heads) => heads(part.size, n_heads, seat)?,
            None => chunk(part.size, seat),
        };
        all.extend(take(line, start + held.start..start + held.end));
        start += part.size;
    }
    Ok(all)
}

/// What a rank has of `size` positions that hold `n_heads` heads.
fn heads(size: u64, n_heads: u64, seat: Seat) -> Result<Range<u64>> {
    if n_heads == 0 || !size.is_multiple_of(n_heads) {
        return Err(invalid(format!(
            "{size} positions cannot hold {n_heads} heads of one size"
        )));
    }
    let head_size = size / n_heads;
    let Seat { n_ranks, rank } = seat;
    let held = if n_ranks <= n_heads && n_heads.is_multiple_of(n_ranks) {
        chunk(n_heads, seat)
    } else if n_ranks.is_multiple_of(n_heads) {
        let head = rank / (n_ranks / n_heads);
        head..head + 1
    } else {
        return Err(invalid(format!(
            "{n_heads} heads can neither be divided by {n_ranks} ranks nor be repeated evenly for them"
        )));
    };
    Ok(held.start * head_size..held.end * head_size)
}

fn length(line: &[Range<u64>]) -> u64 {
    line.iter().map(|range| range.end - range.start).sum()
}

/// The positions of `line` that come at the places `wanted`.
fn take(line: &[Range<u64>], wanted: Range<u64>) -> Line {
    let mut taken = Line::new();
    let mut before = 0;
    for range in line {
        let len = range.end - range.start;
        let from = wanted.start.clamp(before, before + len) - before;
        let to = wanted.end.clamp(before, before + len) - before;
        if from < to {
            taken.push(range.start + from..range.start + to);
        }
        before += len;
    }
    taken
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
