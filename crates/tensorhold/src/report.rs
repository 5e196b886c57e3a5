//! What a checkpoint holds, summed up for a person: totals, and tensors as a tree of modules in which
//! layers of the same structure are one.

mod fold;
mod rows;
mod tree;

use std::collections::BTreeMap;

use tensorhold_core::{Dtype, TensorInfo};

use crate::checkpoint::Checkpoint;

pub use rows::{Row, rows};

/// The sums over a checkpoint, and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The sums over all tensors.
    pub totals: Totals,
    /// The sums for each dtype, that with the most bytes first.
    pub dtypes: Vec<(Dtype, Totals)>,
    /// The names at the top of the tree, in natural order.
    pub modules: Vec<Module>,
}

/// Sums over some tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// The number of tensors.
    pub n_tensors: u64,
    /// The number of their elements, which are a model's parameters.
    pub n_elements: u64,
    /// The bytes they take.
    pub size_bytes: u64,
}

/// A part of the tree: one name, or many of the same structure folded into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The name below its parent: `embed_tokens.weight`, `layers.[0-2,5-35]`, `q_proj.{bias,weight}`.
    pub name: String,
    /// How many names of the same structure are folded into this one; 1 if it stands for itself.
    pub n_folded: u64,
    /// The sums over all tensors below it, in all that is folded into it and its parents.
    pub totals: Totals,
    /// The dtypes below it, in file order.
    pub dtypes: Vec<Dtype>,
    /// The tensors of this very name: none for a module, one for a tensor, several for a name in braces.
    pub tensors: Vec<Shape>,
    /// What is below it.
    pub children: Vec<Module>,
}

/// The dtype and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The element type.
    pub dtype: Dtype,
    /// The size in each dimension.
    pub dims: Vec<u64>,
}

impl Report {
    /// The sums over `checkpoint`, from its headers alone.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint) -> Report {
        Report::of_tensors(checkpoint.tensors().map(|tensor| tensor.info()))
    }

    fn of_tensors<'a>(tensors: impl Iterator<Item = TensorInfo<'a>>) -> Report {
        let mut totals = Totals::default();
        let mut dtypes: BTreeMap<Dtype, Totals> = BTreeMap::new();
        let mut tree = tree::Tree::new();
        for info in tensors {
            totals.add(Totals::of(&info), 1);
            dtypes
                .entry(info.dtype)
                .or_default()
                .add(Totals::of(&info), 1);
            tree.insert(info);
        }
        let mut dtypes: Vec<(Dtype, Totals)> = dtypes.into_iter().collect();
        dtypes.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.size_bytes));
        Report {
            totals,
            dtypes,
            modules: fold::modules(&tree.structured()),
        }
    }
}

impl Totals {
    fn of(info: &TensorInfo<'_>) -> Totals {
        Totals {
            n_tensors: 1,
            n_elements: info.n_elements(),
            size_bytes: info.size_bytes(),
        }
    }

    /// Adds `times` the `other` totals. Files of one checkpoint can together pass 2^64; then the sum stays there.
    fn add(&mut self, other: Totals, times: u64) {
        let sum = |left: u64, right: u64| left.saturating_add(right.saturating_mul(times));
        self.n_tensors = sum(self.n_tensors, other.n_tensors);
        self.n_elements = sum(self.n_elements, other.n_elements);
        self.size_bytes = sum(self.size_bytes, other.size_bytes);
    }

    fn times(self, times: u64) -> Totals {
        let mut product = Totals::default();
        product.add(self, times);
        product
    }
}

#[cfg(test)]
mod tests;
