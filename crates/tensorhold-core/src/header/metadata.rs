//! The free-form entries of a header.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::growth::{Progress, make_room};
use super::json::JsonStr;

/// The free-form entries of a file, in the order of the file.
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    pairs: &'a Pairs,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(pairs: &'a Pairs) -> Metadata<'a> {
        Metadata { pairs }
    }

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
    /// Keys with their values, which take less than 2^32 bytes.
    pub fn of(pairs: &[(&str, &str)]) -> Pairs {
        let mut made = Pairs::default();
        for (key, value) in pairs {
            made.text.push_str(key);
            let key_end = made.text.len() as u32;
            made.text.push_str(value);
            made.ends.push((key_end, made.text.len() as u32));
        }
        made
    }

    pub fn push(&mut self, key: JsonStr<'_>, value: JsonStr<'_>, progress: Progress) {
        make_room(&mut self.ends, 1, progress);
        key.resolve_into(&mut self.text);
        let key_end = self.text.len() as u32;
        value.resolve_into(&mut self.text);
        self.ends.push((key_end, self.text.len() as u32));
    }

    /// Keeps the last pair of every key; one of the keys that stood more than once, if any did.
    pub fn keep_last_of_each_key(&mut self) -> Option<String> {
        let key = |index: u32| self.at(index as usize).0;
        // Sorted and not hashed, as that takes less memory.
        let mut order: Vec<u32> = (0..self.ends.len() as u32).collect();
        order.sort_unstable_by(|&left, &right| key(left).cmp(key(right)).then(left.cmp(&right)));
        let mut n_overruled = 0;
        for place in 1..order.len() {
            if key(order[place - 1]) == key(order[place]) {
                order[n_overruled] = order[place - 1];
                n_overruled += 1;
            }
        }
        let twice = String::from(key(*order[..n_overruled].first()?));
        order.truncate(n_overruled);
        order.sort_unstable();
        self.remove(&order);
        Some(twice)
    }

    fn at(&self, index: usize) -> (&str, &str) {
        let (key_end, value_end) = self.ends[index];
        let (start, key_end, value_end) = (self.start(index), key_end as usize, value_end as usize);
        (&self.text[start..key_end], &self.text[key_end..value_end])
    }

    fn start(&self, index: usize) -> usize {
        index
            .checked_sub(1)
            .map_or(0, |before| self.ends[before].1 as usize)
    }

    /// Removes the pairs at `indices`, which ascend, in the memory that is there.
    fn remove(&mut self, indices: &[u32]) {
        let mut text = core::mem::take(&mut self.text).into_bytes();
        let mut removed = indices.iter().copied().peekable();
        let (mut n_kept, mut text_end, mut start) = (0, 0, 0);
        for index in 0..self.ends.len() {
            let (key_end, value_end) = self.ends[index];
            let pair = start as usize..value_end as usize;
            if removed.next_if_eq(&(index as u32)).is_none() {
                let shift = start - text_end;
                text.copy_within(pair, text_end as usize);
                self.ends[n_kept] = (key_end - shift, value_end - shift);
                text_end = value_end - shift;
                n_kept += 1;
            }
            start = value_end;
        }
        text.truncate(text_end as usize);
        self.ends.truncate(n_kept);
        self.text = String::from_utf8(text).expect("whole strings stay in the text");
    }
}
