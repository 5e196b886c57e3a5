//! The compact table behind a header.

use alloc::string::String;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use crate::dtype::Dtype;
use crate::error::Error;
use crate::extent::ByteRange;

use super::LENGTH_BYTES;
use super::metadata::{Metadata, Pairs};
use super::shapes::{Place, Shapes};

/// A tensor as its file describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// The name.
    pub name: &'a str,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The size in each dimension; none for a scalar.
    pub shape: &'a [u64],
    /// The bytes of the tensor, counted from the start of the data.
    pub offsets: ByteRange,
}

impl TensorInfo<'_> {
    /// The number of elements.
    #[must_use]
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The bytes that the elements take.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.offsets.len()
    }
}

/// Where a name stands: in the header's text, or, where it had escapes, in the table's own text.
#[derive(Clone, Copy)]
pub(super) struct Name {
    start: u32,
    length: u32,
}

impl Name {
    /// A header is shorter than this bit counts, which therefore tells the two texts apart.
    const IS_RESOLVED: u32 = 1 << 31;

    pub fn in_text(start: usize, length: usize) -> Name {
        Name {
            start: start as u32,
            length: length as u32,
        }
    }

    pub fn resolved(start: usize, length: usize) -> Name {
        Name {
            start: start as u32 | Name::IS_RESOLVED,
            length: length as u32,
        }
    }

    /// Where it stands in the file, unless its escapes had to be resolved.
    fn place(self) -> Option<ByteRange> {
        let start = LENGTH_BYTES + u64::from(self.start);
        let end = start + u64::from(self.length);
        (self.start & Name::IS_RESOLVED == 0).then_some(ByteRange { start, end })
    }

    #[inline]
    pub fn of<'a>(self, text: &'a str, resolved: &'a str) -> &'a str {
        let start = (self.start & !Name::IS_RESOLVED) as usize;
        let text = if self.start & Name::IS_RESOLVED == 0 {
            text
        } else {
            resolved
        };
        &text[start..start + self.length as usize]
    }
}

/// One tensor: where its name and shape stand, and where its data starts. Where the data ends is
/// where that of the next one starts, unless the table says otherwise.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub start: u64,
    pub name: Name,
    shape_start: u32,
    /// From the lowest bit: 5 bits of dtype, one that marks a long shape, 26 of rank.
    packed: u32,
}

impl Entry {
    #[inline]
    pub fn new(name: Name, dtype: Dtype, shape: Place, start: u64) -> Entry {
        // A header of 100 000 000 bytes has room for less than 2^26 dimensions.
        let packed = shape.rank << 6 | u32::from(shape.is_long) << 5 | dtype as u32;
        Entry {
            start,
            name,
            shape_start: shape.start,
            packed,
        }
    }

    #[inline]
    pub fn dtype(self) -> Dtype {
        Dtype::ALL[(self.packed & 31) as usize]
    }

    #[inline]
    pub fn shape(self) -> Place {
        let is_long = self.packed >> 5 & 1 == 1;
        Place {
            start: self.shape_start,
            rank: self.packed >> 6,
            is_long,
        }
    }
}

/// All tensors of a file in the order of their data, and its metadata.
#[derive(Default)]
pub(super) struct Table {
    pub entries: Vec<Entry>,
    pub shapes: Shapes,
    /// The names that stand with escapes in the header's text, without them.
    pub resolved: String,
    pub pairs: Option<Pairs>,
    pub data_size: u64,
    /// Where the data of each tensor ends, where the next one does not say so.
    pub ends: Vec<u64>,
    pub index: NameIndex,
}

impl Table {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn data_size(&self) -> u64 {
        self.data_size
    }

    pub fn metadata(&self) -> Option<Metadata<'_>> {
        self.pairs.as_ref().map(Metadata::new)
    }

    #[inline]
    pub fn name<'a>(&'a self, text: &'a str, index: usize) -> &'a str {
        self.entries[index].name.of(text, &self.resolved)
    }

    /// The error, with the name of the tensor and where that stands in the file.
    #[cold]
    pub fn blame(&self, text: &str, name: Name, error: Error) -> Error {
        let error = error.with_tensor(name.of(text, &self.resolved));
        name.place().into_iter().fold(error, Error::with_bytes)
    }

    #[inline]
    pub fn info<'a>(&'a self, text: &'a str, index: usize) -> TensorInfo<'a> {
        let entry = self.entries[index];
        TensorInfo {
            name: entry.name.of(text, &self.resolved),
            dtype: entry.dtype(),
            shape: self.shapes.at(text, entry.shape()),
            offsets: self.offsets(index),
        }
    }

    #[inline]
    pub fn offsets(&self, index: usize) -> ByteRange {
        let start = self.entries[index].start;
        if let Some(&end) = self.ends.get(index) {
            return ByteRange { start, end };
        }
        let next = self.entries.get(index + 1);
        let end = next.map_or(self.data_size, |next| next.start);
        ByteRange { start, end }
    }

    pub fn index_of(&self, text: &str, name: &str) -> Option<usize> {
        let hash = hash_name(&self.index.seed, name);
        let found = self
            .index
            .places
            .find(hash, |&index| self.name(text, index as usize) == name);
        found.map(|&index| index as usize)
    }

    /// Fills the index of names; the two places of a name that stands twice otherwise.
    pub fn index_names(&mut self, text: &str) -> Result<(), (usize, usize)> {
        let seed = DefaultHashBuilder::default();
        let mut places = HashTable::with_capacity(self.len());
        for index in 0..self.len() {
            let name = self.name(text, index);
            let hash = hash_name(&seed, name);
            let same = |&other: &u32| self.name(text, other as usize) == name;
            let rehash = |&other: &u32| hash_name(&seed, self.name(text, other as usize));
            match places.entry(hash, same, rehash) {
                hash_table::Entry::Occupied(other) => return Err((*other.get() as usize, index)),
                hash_table::Entry::Vacant(place) => drop(place.insert(index as u32)),
            }
        }
        self.index = NameIndex { seed, places };
        Ok(())
    }
}

/// From names to places in the table. The seed differs in every process, so that a file cannot
/// bring names that collide.
#[derive(Default)]
pub(super) struct NameIndex {
    seed: DefaultHashBuilder,
    places: HashTable<u32>,
}

#[inline]
fn hash_name(seed: &DefaultHashBuilder, name: &str) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(name.as_bytes());
    hasher.finish()
}
