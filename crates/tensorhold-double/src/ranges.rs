//! A table of address ranges that do not overlap.

use std::collections::BTreeMap;
use std::ops::Range;

/// Values by the range of addresses that they belong to.
pub(crate) struct Ranges<T> {
    by_start: BTreeMap<usize, (usize, T)>,
}

/// Where a range of addresses lies with respect to a table.
pub(crate) enum Place<'a, T> {
    Outside,
    Inside(&'a T),
    /// It overlaps this range and does not lie in it.
    Across(Range<usize>),
}

impl<T> Ranges<T> {
    pub(crate) const fn new() -> Ranges<T> {
        Ranges {
            by_start: BTreeMap::new(),
        }
    }

    /// The range must overlap no other.
    pub(crate) fn insert(&mut self, range: Range<usize>, value: T) {
        self.by_start.insert(range.start, (range.end, value));
    }

    pub(crate) fn remove(&mut self, start: usize) -> Option<(Range<usize>, T)> {
        let (end, value) = self.by_start.remove(&start)?;
        Some((start..end, value))
    }

    pub(crate) fn at(&self, start: usize) -> Option<&T> {
        self.by_start.get(&start).map(|(_, value)| value)
    }

    pub(crate) fn range_at(&self, start: usize) -> Option<Range<usize>> {
        self.by_start.get(&start).map(|(end, _)| start..*end)
    }

    pub(crate) fn at_mut(&mut self, start: usize) -> Option<&mut T> {
        self.by_start.get_mut(&start).map(|(_, value)| value)
    }

    pub(crate) fn place(&self, range: &Range<usize>) -> Place<'_, T> {
        let below = self.by_start.range(..range.end.max(range.start + 1));
        match below.last() {
            Some((&start, (end, value))) if *end > range.start => {
                if start <= range.start && range.end <= *end {
                    Place::Inside(value)
                } else {
                    Place::Across(start..*end)
                }
            }
            _ => Place::Outside,
        }
    }
}

pub(crate) fn overlap(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}
