//! The shapes of all tensors of a header.

use alloc::boxed::Box;
use alloc::vec::Vec;

use once_cell::race::OnceBox;

use crate::error::ErrorKind;

use super::growth::{Progress, make_room};
use super::json::Cursor;

/// Shapes of this many dimensions are kept as numbers while their end is not known yet.
pub(super) const LONGEST_KEPT: usize = 64;

/// Where a shape is kept.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub start: u32,
    pub rank: u32,
    pub is_long: bool,
}

impl Place {
    /// A shape of `rank` numbers that begin at `start` of [`Shapes::dims`].
    pub fn of_kept(start: usize, rank: usize) -> Place {
        Place {
            start: start as u32,
            rank: rank as u32,
            is_long: false,
        }
    }
}

/// Shapes, most of them as numbers one behind the other.
///
/// A number takes 8 bytes, and may stand in 2 bytes of text. That a header cannot ask for several
/// times its own size of memory, a shape that takes more room than its tensor's text is worth stays
/// text until someone asks for it.
#[derive(Default)]
pub(super) struct Shapes {
    pub dims: Vec<u64>,
    long: Vec<Long>,
}

struct Long {
    n_elements: u64,
    /// Where its `[` stands in the header.
    position: u32,
    dims: OnceBox<Vec<u64>>,
}

/// A shape that has just been read.
pub(super) struct Read {
    /// Where its `[` stands in the header.
    pub position: usize,
    /// Where its dims start in [`Shapes::dims`], which ends with the first [`LONGEST_KEPT`].
    pub start: usize,
    pub rank: usize,
    /// The product of the dims, unless it passes 2^64.
    pub n_elements: Option<u64>,
}

impl Shapes {
    /// Keeps a shape that stands in a text of `text_bytes` about its tensor.
    pub fn keep(&mut self, shape: &Read, text_bytes: usize, progress: Progress) -> Place {
        if shape.rank <= 2 || shape.rank <= LONGEST_KEPT && 16 * shape.rank <= text_bytes {
            return Place::of_kept(shape.start, shape.rank);
        }
        self.dims.truncate(shape.start);
        make_room(&mut self.long, 1, progress);
        self.long.push(Long {
            n_elements: shape.n_elements.unwrap_or(0),
            position: shape.position as u32,
            dims: OnceBox::new(),
        });
        Place {
            start: self.long.len() as u32 - 1,
            rank: shape.rank as u32,
            is_long: true,
        }
    }

    /// The dims of a shape in the header `text`.
    #[inline]
    pub fn at<'a>(&'a self, text: &str, place: Place) -> &'a [u64] {
        match self.kept(place) {
            Some(dims) => dims,
            None => self.long[place.start as usize].dims(text, place.rank as usize),
        }
    }

    /// The dims of a shape that is no long one.
    #[inline]
    pub fn kept(&self, place: Place) -> Option<&[u64]> {
        let start = place.start as usize;
        (!place.is_long).then(|| &self.dims[start..start + place.rank as usize])
    }

    /// The number of elements in a shape.
    pub fn n_elements(&self, place: Place) -> u64 {
        match self.kept(place) {
            Some(dims) => dims.iter().product(),
            None => self.long[place.start as usize].n_elements,
        }
    }
}

impl Long {
    #[cold]
    fn dims(&self, text: &str, rank: usize) -> &[u64] {
        self.dims
            .get_or_init(|| Box::new(read_again(&text[self.position as usize..], rank)))
    }
}

/// The dims in `text`, which has been found to begin with an array of `rank` numbers.
fn read_again(text: &str, rank: usize) -> Vec<u64> {
    const HOLDS: &str = "the shape has been read before";
    let mut cursor = Cursor::new(text, 0, ErrorKind::HeaderJson);
    let mut dims = Vec::with_capacity(rank);
    let mut first = true;
    cursor.expect(b'[', "`[`").expect(HOLDS);
    while cursor.next_item(&mut first).expect(HOLDS) {
        dims.push(cursor.unsigned("a size").expect(HOLDS));
    }
    dims
}
