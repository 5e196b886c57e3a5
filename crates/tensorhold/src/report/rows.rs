//! Which lines of the tree are shown when not all of them fit.

use std::collections::{BinaryHeap, HashSet};

use super::{Module, Report};

/// One line of the tree.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// How many parents it has.
    pub depth: usize,
    /// What it shows.
    pub module: &'a Module,
    /// Whether its children are left out.
    pub is_closed: bool,
}

/// At most `max_rows` lines of the tree: the modules with the most bytes are opened first. Of a tree that is too wide
/// at its top, the first lines. Without a maximum, all of it.
#[must_use]
pub fn rows(report: &Report, max_rows: Option<usize>) -> Vec<Row<'_>> {
    let max_rows = max_rows.unwrap_or(usize::MAX);
    let top = &report.modules[..report.modules.len().min(max_rows)];
    let open = opened(top, max_rows);
    let mut rows = Vec::new();
    for module in top {
        push(module, 0, &open, &mut rows);
    }
    rows
}

fn opened(top: &[Module], max_rows: usize) -> HashSet<*const Module> {
    let mut open = HashSet::new();
    let mut n_rows = top.len();
    let mut candidates: BinaryHeap<Candidate<'_>> = top.iter().map(Candidate).collect();
    while let Some(Candidate(module)) = candidates.pop() {
        let n_more = module.children.len();
        if n_more > 0 && n_more <= max_rows - n_rows {
            n_rows += n_more;
            open.insert(std::ptr::from_ref(module));
            candidates.extend(module.children.iter().map(Candidate));
        }
    }
    open
}

fn push<'a>(
    module: &'a Module,
    depth: usize,
    open: &HashSet<*const Module>,
    rows: &mut Vec<Row<'a>>,
) {
    let is_open = open.contains(&std::ptr::from_ref(module));
    rows.push(Row {
        depth,
        module,
        is_closed: !is_open && !module.children.is_empty(),
    });
    if is_open {
        for child in &module.children {
            push(child, depth + 1, open, rows);
        }
    }
}

/// A module that may be opened; the one with the most bytes first, of equal ones the one with the first name.
struct Candidate<'a>(&'a Module);

impl Candidate<'_> {
    fn key(&self) -> (u64, std::cmp::Reverse<&str>) {
        (self.0.totals.size_bytes, std::cmp::Reverse(&self.0.name))
    }
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}
