//! Whether boxes hold each element of a tensor, and each once.
//!
//! ```text
//! overlap(boxes):
//!     along any dimension, sort the boxes by where they begin, and cut where all before have ended
//!     if that makes several groups: overlap of each; boxes of two groups cannot meet
//!     otherwise: each box with each
//! ```
//!
//! What meshes make falls apart into single boxes that way; only boxes that lie around each other as the vanes of a windmill do not.

use std::fmt;
use std::ops::Range;

use tensorhold_core::n_elements;

type Box<'a> = &'a [Range<u64>];

/// What is wrong with boxes, and which one of them shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A box passes the shape.
    Passes(usize, Vec<u64>),
    /// A box has elements that one before it has.
    Overlaps(usize),
    /// Together they have other than all elements.
    Incomplete { found: u128, wanted: u64 },
}

impl Fault {
    /// The number of the box that shows it.
    pub(super) fn chunk(&self) -> usize {
        match *self {
            Fault::Passes(chunk, _) | Fault::Overlaps(chunk) => chunk,
            Fault::Incomplete { .. } => 0,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Passes(_, shape) => write!(f, "has a chunk that passes its shape {shape:?}"),
            Fault::Overlaps(_) => f.write_str("has two chunks with the same elements"),
            Fault::Incomplete { found, wanted } => {
                write!(
                    f,
                    "has {found} of {wanted} elements in the files of the folder"
                )
            }
        }
    }
}

/// The shape that the boxes reach to; `None` if they have different numbers of dimensions.
///
/// # Panics
/// If there is no box.
pub(super) fn reach(boxes: &[Box<'_>]) -> Option<Vec<u64>> {
    let mut reach = vec![0; boxes[0].len()];
    for each in boxes {
        if each.len() != reach.len() {
            return None;
        }
        for (end, range) in reach.iter_mut().zip(*each) {
            *end = range.end.max(*end);
        }
    }
    Some(reach)
}

/// Refuses boxes that do not hold each element of `shape` once. The elements of the shape can be counted.
pub(super) fn check(shape: &[u64], boxes: &[Box<'_>]) -> Result<(), Fault> {
    let is_inside = |each: Box<'_>| {
        let mut dims = each.iter().zip(shape);
        each.len() == shape.len() && dims.all(|(range, &size)| range.end <= size)
    };
    if let Some(outside) = boxes.iter().position(|each| !is_inside(each)) {
        return Err(Fault::Passes(outside, shape.to_vec()));
    }
    if let Some(second) = overlap(shape.len(), boxes) {
        return Err(Fault::Overlaps(second));
    }
    let wanted = n_elements(shape).expect("the elements of the shape were counted");
    let found = boxes.iter().map(|each| u128::from(volume(each))).sum();
    match found == u128::from(wanted) {
        true => Ok(()),
        false => Err(Fault::Incomplete { found, wanted }),
    }
}

/// The elements of a box that lies inside of a shape.
fn volume(each: Box<'_>) -> u64 {
    match is_empty(each) {
        true => 0,
        false => each.iter().map(|range| range.end - range.start).product(),
    }
}

fn is_empty(each: Box<'_>) -> bool {
    each.iter().any(Range::is_empty)
}

/// A box that has elements of another one, if there is one.
fn overlap(n_dims: usize, boxes: &[Box<'_>]) -> Option<usize> {
    let all = (0..boxes.len()).filter(|&number| !is_empty(boxes[number]));
    let mut groups: Vec<Vec<usize>> = vec![all.collect()];
    while let Some(mut group) = groups.pop() {
        if group.len() < 2 {
            continue;
        }
        match (0..n_dims).find_map(|dim| split(boxes, &mut group, dim)) {
            Some(parts) => groups.extend(parts),
            None => {
                if let Some(second) = pairwise(boxes, &group) {
                    return Some(second);
                }
            }
        }
    }
    None
}

/// The boxes in groups that lie one behind the other along `dim`, if there are several.
fn split(boxes: &[Box<'_>], group: &mut [usize], dim: usize) -> Option<Vec<Vec<usize>>> {
    let along = |number: usize| &boxes[number][dim];
    group.sort_unstable_by_key(|&number| along(number).start);
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut end = 0;
    for &number in &*group {
        match parts.last_mut() {
            Some(part) if along(number).start < end => part.push(number),
            _ => parts.push(vec![number]),
        }
        end = end.max(along(number).end);
    }
    (parts.len() > 1).then_some(parts)
}

fn pairwise(boxes: &[Box<'_>], group: &[usize]) -> Option<usize> {
    let meets = |one: usize, other: usize| {
        let mut dims = boxes[one].iter().zip(boxes[other]);
        dims.all(|(one, other)| one.start.max(other.start) < one.end.min(other.end))
    };
    let pairs = group
        .iter()
        .enumerate()
        .flat_map(|(at, &one)| group[at + 1..].iter().map(move |&other| (one, other)));
    let mut pairs = pairs;
    pairs
        .find(|&(one, other)| meets(one, other))
        .map(|(one, other)| one.max(other))
}

#[cfg(test)]
#[allow(
    clippy::single_range_in_vec_init,
    reason = "a box of one dimension is one range"
)]
mod tests {
    use super::*;

    fn grid(n: u64) -> Vec<Vec<Range<u64>>> {
        let cells = (0..n).flat_map(|row| (0..n).map(move |column| (row, column)));
        cells
            .map(|(row, column)| vec![row * 2..row * 2 + 2, column * 3..column * 3 + 3])
            .collect()
    }

    fn checked(shape: &[u64], boxes: &[Vec<Range<u64>>]) -> Result<(), Fault> {
        let boxes: Vec<&[Range<u64>]> = boxes.iter().map(|each| &each[..]).collect();
        check(shape, &boxes)
    }

    #[test]
    fn ten_thousand_boxes_are_checked_at_once() {
        let mut boxes = grid(100);
        assert_eq!(checked(&[200, 300], &boxes), Ok(()));
        boxes[77] = boxes[4].clone();
        assert_eq!(checked(&[200, 300], &boxes), Err(Fault::Overlaps(77)));
        boxes.remove(77);
        let wanted = Fault::Incomplete {
            found: 59_994,
            wanted: 60_000,
        };
        assert_eq!(checked(&[200, 300], &boxes), Err(wanted));
    }

    #[test]
    fn vanes_of_a_windmill_are_no_overlap() {
        let vanes = vec![
            vec![0..1, 0..2],
            vec![0..2, 2..3],
            vec![2..3, 1..3],
            vec![1..3, 0..1],
            vec![1..2, 1..2],
        ];
        assert_eq!(checked(&[3, 3], &vanes), Ok(()));
        let mut wider = vanes;
        wider[4] = vec![1..2, 0..1];
        assert_eq!(checked(&[3, 3], &wider), Err(Fault::Overlaps(4)));
    }

    #[test]
    fn scalars_and_empty_tensors_are_whole() {
        assert_eq!(checked(&[], &[vec![]]), Ok(()));
        assert_eq!(checked(&[], &[vec![], vec![]]), Err(Fault::Overlaps(1)));
        assert_eq!(
            checked(&[0, 3], &[vec![0..0, 0..3], vec![0..0, 0..3]]),
            Ok(())
        );
        assert_eq!(checked(&[2], &[vec![0..1], vec![1..1], vec![1..2]]), Ok(()));
        assert!(checked(&[2], &[vec![0..1], vec![1..3]]).is_err());
    }
}
