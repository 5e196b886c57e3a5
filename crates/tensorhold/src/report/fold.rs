//! From a tree of names to the few modules that a person wants to see.
//!
//! - Siblings with numbers for labels and the same structure become one: `[0-2,5-35]`.
//! - A module with one child is joined with it: `input_layernorm.weight`, `layers.[0-35]`.
//! - A module of nothing but a few numbered groups gives its name to them: `layers.[0-2]`, `layers.[3-60]`.
//! - A module of two or three tensors becomes one line: `q_proj.{bias,weight}`.

use std::collections::HashMap;

use super::tree::{Entry, Structured, number};
use super::{Module, Shape};

/// More groups than this stay below a module of their own.
const MAX_DISSOLVED: usize = 4;
/// More tensors than this are not put into one line.
const MAX_IN_BRACES: usize = 3;
/// Of more ranges than this, some are left out of the name.
const MAX_RANGES: usize = 8;

pub(super) fn modules(tree: &Structured<'_>) -> Vec<Module> {
    below(tree, Structured::ROOT, 1)
}

/// The modules below `node`, of which there are `times`.
fn below(tree: &Structured<'_>, node: u32, times: u64) -> Vec<Module> {
    groups(tree, node)
        .into_iter()
        .flat_map(|group| module(tree, &group, times))
        .collect()
}

/// Siblings of one structure.
struct Group {
    example: u32,
    numbers: Vec<u64>,
}

fn groups(tree: &Structured<'_>, node: u32) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut of_structure: HashMap<u32, usize> = HashMap::new();
    for &example in tree.children(node) {
        let numbers: Vec<u64> = number(tree.label(example)).into_iter().collect();
        if let [number] = numbers[..] {
            let next = groups.len();
            let place = *of_structure.entry(tree.structure(example)).or_insert(next);
            if place < next {
                groups[place].numbers.push(number);
                continue;
            }
        }
        groups.push(Group { example, numbers });
    }
    groups
}

/// The module for `group`, or those that take its place.
fn module(tree: &Structured<'_>, group: &Group, times: u64) -> Vec<Module> {
    let node = group.example;
    let n_folded = group.numbers.len().max(1) as u64;
    let times = times.saturating_mul(n_folded);
    let shape = |entry: &Entry<'_>| Shape {
        dtype: entry.dtype,
        narrow: entry.narrow,
        dims: entry.dims.map(<[u64]>::to_vec),
        scheme: entry.scheme,
    };
    let module = Module {
        name: match group.numbers[..] {
            [] | [_] => tree.label(node).to_owned(),
            _ => ranges(&group.numbers),
        },
        n_folded,
        totals: tree.totals(node).times(times),
        dtypes: tree.dtypes(node).collect(),
        schemes: tree.schemes(node).to_vec(),
        tensors: tree.tensor(node).map(shape).into_iter().collect(),
        children: below(tree, node, times),
    };
    let children = tree.children(node);
    let is_numbered = children
        .iter()
        .all(|&child| number(tree.label(child)).is_some());
    simplify(module, is_numbered)
}

fn simplify(mut module: Module, is_numbered: bool) -> Vec<Module> {
    let n_children = module.children.len();
    if !module.tensors.is_empty() || n_children == 0 {
        return vec![module];
    }
    if n_children == 1 || (is_numbered && n_children <= MAX_DISSOLVED) {
        for child in &mut module.children {
            child.name = format!("{}.{}", module.name, child.name);
            child.n_folded = child.n_folded.saturating_mul(module.n_folded);
        }
        return module.children;
    }
    let is_plain =
        |child: &Module| child.is_tensor() && child.n_folded == 1 && !child.name.contains('.');
    if n_children <= MAX_IN_BRACES && module.children.iter().all(is_plain) {
        let names: Vec<&str> = module
            .children
            .iter()
            .map(|child| &child.name[..])
            .collect();
        module.name = format!("{}.{{{}}}", module.name, names.join(","));
        module.tensors = module
            .children
            .drain(..)
            .flat_map(|child| child.tensors)
            .collect();
    }
    vec![module]
}

impl Module {
    /// Whether it is one tensor, with nothing below it.
    fn is_tensor(&self) -> bool {
        self.tensors.len() == 1 && self.children.is_empty()
    }
}

/// `[0-2,5-35]` for ascending numbers.
fn ranges(numbers: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let mut texts: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        })
        .collect();
    if texts.len() > MAX_RANGES {
        texts.splice(MAX_RANGES - 2..texts.len() - 1, ["…".to_owned()]);
    }
    format!("[{}]", texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn numbers_that_follow_each_other_are_one_range() {
        for (numbers, expected) in [
            (&[0, 1, 2, 3][..], "[0-3]"),
            (&[0, 1, 2, 5, 6, 7, 8], "[0-2,5-8]"),
            (&[0, 1], "[0,1]"),
            (&[3, 7], "[3,7]"),
            (
                &[0, u64::MAX - 1, u64::MAX],
                "[0,18446744073709551614,18446744073709551615]",
            ),
        ] {
            assert_eq!(ranges(numbers), expected);
        }
    }

    #[test]
    fn of_many_ranges_the_first_and_the_last_are_shown() {
        let even: Vec<u64> = (0..30).map(|n| 2 * n).collect();
        assert_eq!(ranges(&even), "[0,2,4,6,8,10,…,58]");
    }
}
