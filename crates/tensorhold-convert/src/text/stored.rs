//! Which tensors of a file hold the bytes of the tensors of a tree.

use std::collections::{BTreeMap, HashMap, HashSet};

use tensorhold_core::{Dtype, Result};

use super::Lie;
use super::json::{push_numbers, push_str};
use crate::element::Element;
use crate::storage::{StorageId, View, row_major};
use crate::tree::NodeId;

/// A tensor of the file that a tree refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its type in the file.
    pub dtype: Dtype,
    /// Its shape in the file.
    pub shape: Vec<u64>,
    /// Where its elements are, which lie in the file in row-major order.
    pub view: View,
    /// The value that it is named after.
    pub node: NodeId,
    /// Whether floats may be cast: nothing looks at its bits as another type.
    pub is_castable: bool,
}

/// A tensor of a tree, and what it needs of the file.
pub(super) struct Use {
    pub node: NodeId,
    /// The name that it would be stored under.
    pub name: String,
    pub view: View,
    /// Whether its conjugate and its negative bit are set.
    pub bits: (bool, bool),
}

/// What is stored, and how each node refers to it.
#[derive(Default)]
pub(super) struct Places {
    pub stored: Vec<Stored>,
    /// Of each tensor's node the text from the name of what is stored on.
    pub members: HashMap<NodeId, String>,
    /// Names that stand for others.
    pub tied: Vec<(String, String)>,
}

impl Places {
    /// Adds what holds a value that shares with none and has no strides: an array, or bytes.
    pub fn add_values(&mut self, node: NodeId, name: String, view: View) -> Result<()> {
        self.stored.push(stored(node, name, view, false)?);
        Ok(())
    }

    /// Adds what holds tensors, the uses of each storage together.
    pub fn add_tensors(&mut self, uses: BTreeMap<StorageId, Vec<Use>>, lie: Lie) -> Result<()> {
        let mut tied = Vec::new();
        for group in uses.into_values() {
            match &group[..] {
                [one] => self.add_alone(one, lie)?,
                _ => self.add_together(&group, &mut tied)?,
            }
        }
        let taken: HashSet<&str> = self.stored.iter().map(|one| &one.name[..]).collect();
        tied.retain(|(other, _): &(String, String)| !taken.contains(&other[..]));
        self.tied = tied;
        Ok(())
    }

    fn add_alone(&mut self, one: &Use, lie: Lie) -> Result<()> {
        let view = &one.view;
        let used = view.used_bytes()?;
        if view.is_contiguous() {
            let mut members = String::new();
            push_strides(&mut members, view);
            return self.add_whole(one, members);
        }
        if lie == Lie::Placed || (!is_dense(view) && used.len() < size_bytes(view)) {
            return self.add_hull(std::slice::from_ref(one), used.start, used.end);
        }
        let mut members = String::new();
        if is_dense(view) {
            members.push_str(",\"layout_stride\":");
            push_numbers(&mut members, view.strides());
        }
        self.add_whole(one, members)
    }

    fn add_together(&mut self, group: &[Use], tied: &mut Vec<(String, String)>) -> Result<()> {
        let mut used = Vec::with_capacity(group.len());
        for one in group {
            used.push(one.view.used_bytes()?);
        }
        let with_elements = || used.iter().filter(|range| !range.is_empty());
        let first = with_elements().map(|range| range.start).min().unwrap_or(0);
        let end = with_elements().map(|range| range.end).max().unwrap_or(0);
        let width = |one: &Use| one.view.element().width_bytes();
        let divides = group
            .iter()
            .zip(&used)
            .all(|(one, range)| range.is_empty() || (range.start - first) % width(one) == 0);
        let spans = |n: &usize| {
            used[*n].start == first && used[*n].end == end && group[*n].view.is_contiguous()
        };
        match (0..group.len()).find(|n| first < end && divides && spans(n)) {
            Some(kept) => self.add_views(group, kept, first, tied),
            None => {
                // What has wide elements begins at a multiple of them, counted from that of the storage.
                let widest = group.iter().map(width).max().unwrap_or(1);
                self.add_hull(group, first - first % widest, end)
            }
        }
    }

    /// Stores one tensor of a group under its own name, and the others as views of it.
    fn add_views(
        &mut self,
        group: &[Use],
        kept: usize,
        first: u64,
        tied: &mut Vec<(String, String)>,
    ) -> Result<()> {
        let whole = &group[kept];
        let mut members = String::new();
        push_strides(&mut members, &whole.view);
        self.add_whole(whole, members)?;
        let element = whole.view.element();
        for (n, one) in group.iter().enumerate().filter(|(n, _)| *n != kept) {
            let shape = self.stored.last().map(|stored| stored.shape.clone());
            let view = &one.view;
            self.refer(one, &whole.name, element, &shape.unwrap_or_default(), first);
            if view.element() != element {
                self.stored
                    .last_mut()
                    .into_iter()
                    .for_each(|kept| kept.is_castable = false);
            }
            let is_same = n != kept
                && view.is_contiguous()
                && (view.offset(), view.shape()) == (whole.view.offset(), whole.view.shape())
                && (view.element(), one.bits) == (element, whole.bits);
            if is_same {
                tied.push((one.name.clone(), whole.name.clone()));
            }
        }
        Ok(())
    }

    /// Stores the bytes from `first` to `end` of a storage as one dimension, named after the first of the tensors.
    fn add_hull(&mut self, group: &[Use], first: u64, end: u64) -> Result<()> {
        let one = group[0].view.element();
        let is_plain = group.iter().all(|each| each.view.element() == one)
            && one.is_native()
            && one.n_stored() == 1
            && (end - first).is_multiple_of(one.width_bytes());
        let element = if is_plain { one } else { Element::Uint8 };
        let width = element.width_bytes();
        let (offset, n) = (first / width, (end - first) / width);
        let storage = (group[0].view.storage(), end);
        let view = View::contiguous(storage, element, offset, vec![n])?;
        let name = group[0].name.clone();
        self.stored
            .push(stored(group[0].node, name.clone(), view, is_plain)?);
        for each in group {
            self.refer(each, &name, element, &[n], first);
        }
        Ok(())
    }

    fn add_whole(&mut self, one: &Use, more: String) -> Result<()> {
        let element = one.view.element();
        let made = stored(one.node, one.name.clone(), one.view.clone(), true)?;
        let mut members = String::new();
        push_str(&mut members, &one.name);
        if !is_kept(element, &one.view) {
            push_dtype(&mut members, element);
            if made.shape != one.view.shape() {
                members.push_str(",\"shape\":");
                push_numbers(&mut members, one.view.shape());
            }
        }
        members.push_str(&more);
        self.stored.push(made);
        self.members.insert(one.node, members);
        Ok(())
    }

    /// Says what a node is of a stored tensor of `element` that begins at byte `first` of the storage.
    fn refer(&mut self, one: &Use, name: &str, element: Element, shape: &[u64], first: u64) {
        let view = &one.view;
        let mut members = String::new();
        push_str(&mut members, name);
        if view.element() != element || !view.element().is_native() {
            push_dtype(&mut members, view.element());
        }
        if view.shape() != logical(shape, element) {
            members.push_str(",\"shape\":");
            push_numbers(&mut members, view.shape());
        }
        push_strides(&mut members, view);
        let width = view.element().width_bytes();
        let offset = (view.offset() * width).saturating_sub(first) / width;
        if offset > 0 && view.n_elements() > 0 {
            members.push_str(&format!(",\"offset\":{offset}"));
        }
        self.members.insert(one.node, members);
    }
}

/// The tensor of a file that holds the elements of `view`.
fn stored(node: NodeId, name: String, view: View, is_castable: bool) -> Result<Stored> {
    let element = view.element();
    let mut shape = view.shape().to_vec();
    let mut dtype = element.dtype();
    match (element.n_stored(), shape.last_mut()) {
        (1, _) => {}
        // Pairs that the format has no type for have a dimension of their own.
        (n, _) if !element.is_native() => shape.push(n),
        (n, Some(last)) => *last = last.saturating_mul(n),
        (_, None) => dtype = Dtype::U8,
    }
    let is_castable = is_castable && element.is_native();
    Ok(Stored {
        name,
        dtype,
        shape,
        view,
        node,
        is_castable,
    })
}

/// Whether the file's type says what the element is.
fn is_kept(element: Element, view: &View) -> bool {
    element.is_native() && (element.n_stored() == 1 || !view.shape().is_empty())
}

/// The shape that readers take a stored tensor for.
fn logical(shape: &[u64], element: Element) -> Vec<u64> {
    let mut shape = shape.to_vec();
    if element.is_native() && element.n_stored() > 1 {
        shape
            .iter_mut()
            .last()
            .into_iter()
            .for_each(|last| *last /= element.n_stored());
    }
    shape
}

fn push_dtype(members: &mut String, element: Element) {
    members.push_str(",\"dtype\":");
    push_str(members, element.name());
}

/// Says the strides where they are not those of a contiguous tensor.
fn push_strides(members: &mut String, view: &View) {
    if row_major(view.shape()).as_deref() != Some(view.strides()) {
        members.push_str(",\"stride\":");
        push_numbers(members, view.strides());
    }
}

fn size_bytes(view: &View) -> u64 {
    view.n_elements()
        .saturating_mul(view.element().width_bytes())
}

/// Whether the strides are those of a permutation of a contiguous tensor.
fn is_dense(view: &View) -> bool {
    let dims = view.strides().iter().zip(view.shape());
    let mut dims: Vec<(u64, u64)> = dims.map(|(&stride, &size)| (stride, size)).collect();
    dims.retain(|&(_, size)| size != 1);
    dims.sort_unstable();
    let mut expected = 1u64;
    dims.into_iter().all(|(stride, size)| {
        let is_next = stride == expected;
        expected = expected.saturating_mul(size);
        is_next
    })
}
