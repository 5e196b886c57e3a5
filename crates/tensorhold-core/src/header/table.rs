//! The compact table behind a header.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use crate::dtype::Dtype;
use crate::extent::ByteRange;

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

/// The free-form entries of a file, in the order of the file.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    pairs: &'a Pairs,
}

impl<'a> Metadata<'a> {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// All keys with their values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + use<'a> {
        let pairs = self.pairs;
        (0..pairs.ends.len()).map(move |index| pairs.at(index))
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.ends.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Pairs of strings, all in one text.
#[derive(Default)]
pub(super) struct Pairs {
    text: String,
    /// Where each key and each value ends in the text.
    ends: Vec<(u32, u32)>,
}

impl Pairs {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Appends the pair whose key and value `write` appends to the text it is given.
    pub fn push(&mut self, key: impl FnOnce(&mut String), value: impl FnOnce(&mut String)) {
        key(&mut self.text);
        let key_end = self.text.len() as u32;
        value(&mut self.text);
        push_tight(&mut self.ends, (key_end, self.text.len() as u32));
    }

    pub fn at(&self, index: usize) -> (&str, &str) {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.ends[before].1 as usize);
        let (key_end, value_end) = (self.ends[index].0 as usize, self.ends[index].1 as usize);
        (&self.text[start..key_end], &self.text[key_end..value_end])
    }

    /// Keeps the last pair of every key; the first key that stood twice, if one did.
    ///
    /// Keys are sorted and not hashed: it takes less memory, and many pairs are a rare sight.
    pub fn keep_last_of_each_key(&mut self) -> Option<String> {
        let key = |index: u32| self.at(index as usize).0;
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_unstable_by(|&left, &right| key(left).cmp(key(right)).then(left.cmp(&right)));
        let mut twin = u32::MAX;
        let mut n_overruled = 0;
        for place in 1..order.len() {
            if key(order[place - 1]) == key(order[place]) {
                twin = twin.min(order[place]);
                order[n_overruled] = order[place - 1];
                n_overruled += 1;
            }
        }
        if n_overruled == 0 {
            return None;
        }
        let twice = String::from(key(twin));
        order.truncate(n_overruled);
        order.sort_unstable();
        self.remove(order.into_iter().map(|index| index as usize));
        Some(twice)
    }

    /// Removes the pairs at these places, which are sorted.
    fn remove(&mut self, places: impl Iterator<Item = usize>) {
        let mut places = places.peekable();
        let mut kept = Pairs::default();
        for index in 0..self.len() {
            if places.next_if_eq(&index).is_none() {
                let (key, value) = self.at(index);
                kept.push(|text| text.push_str(key), |text| text.push_str(value));
            }
        }
        *self = kept;
    }
}

/// Appends `item` without the spare room of a doubled list, so that a header's table stays small
/// next to its text.
#[inline]
pub(super) fn push_tight<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 16).max(16));
    }
    list.push(item);
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

/// One tensor: where its name and dims stand, and where its data starts. Where the data ends is
/// where that of the next one starts.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub start: u64,
    pub name: Name,
    dims_start: u32,
    rank_and_dtype: u32,
}

impl Entry {
    pub fn new(name: Name, dtype: Dtype, dims: core::ops::Range<usize>, start: u64) -> Entry {
        // A header of 100 000 000 bytes has room for less than 2^26 dimensions.
        let rank_and_dtype = (dims.len() as u32) << 5 | dtype as u32;
        Entry {
            start,
            name,
            dims_start: dims.start as u32,
            rank_and_dtype,
        }
    }

    #[inline]
    pub fn dtype(self) -> Dtype {
        Dtype::ALL[(self.rank_and_dtype & 31) as usize]
    }

    #[inline]
    pub fn dims(self) -> core::ops::Range<usize> {
        let start = self.dims_start as usize;
        start..start + (self.rank_and_dtype >> 5) as usize
    }
}

/// All tensors of a file in the order of their data, and its metadata.
#[derive(Default)]
pub(super) struct Table {
    pub entries: Vec<Entry>,
    pub dims: Vec<u64>,
    /// The names that stand with escapes in the header's text, without them.
    pub resolved: String,
    pub pairs: Option<Pairs>,
    pub data_size: u64,
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
        self.pairs.as_ref().map(|pairs| Metadata { pairs })
    }

    #[inline]
    pub fn name<'a>(&'a self, text: &'a str, index: usize) -> &'a str {
        self.entries[index].name.of(text, &self.resolved)
    }

    #[inline]
    pub fn info<'a>(&'a self, text: &'a str, index: usize) -> TensorInfo<'a> {
        let entry = self.entries[index];
        let end = self
            .entries
            .get(index + 1)
            .map_or(self.data_size, |next| next.start);
        TensorInfo {
            name: entry.name.of(text, &self.resolved),
            dtype: entry.dtype(),
            shape: &self.dims[entry.dims()],
            offsets: ByteRange {
                start: entry.start,
                end,
            },
        }
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
