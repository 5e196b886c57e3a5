//! What a checkpoint holds, summed up for a person: totals, and tensors as a tree of modules in which
//! layers of the same structure are one.

mod fold;
mod rows;
mod tree;

use std::collections::{BTreeMap, HashMap};

use tensorhold_core::{Dtype, TensorInfo, n_elements};
use tensorhold_quant::detect::{Quantization, QuantizedWeight, SchemeName};

use crate::checkpoint::Checkpoint;
use crate::subbyte::{NarrowInt, NarrowTensor};
use tree::Entry;

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
    /// The sums over the quantized weights of each scheme, that with the most bytes first.
    pub schemes: Vec<(SchemeName, SchemeTotals)>,
}

/// Sums over the weights of one scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchemeTotals {
    /// The number of weights.
    pub n_weights: u64,
    /// Of how many of them the shape is not known.
    pub n_unknown: u64,
    /// The elements of those whose shape is known.
    pub n_elements: u64,
    /// The bytes that these take with all their parts.
    pub known_bytes: u64,
    /// The bytes that all take with all their parts.
    pub size_bytes: u64,
}

impl SchemeTotals {
    /// The bits that an element takes, with its part of scales and zeros; of weights whose shape is known.
    #[must_use]
    pub fn bits_per_weight(&self) -> Option<f64> {
        let bits = self.known_bytes as f64 * 8.0 / self.n_elements as f64;
        (self.n_elements > 0).then_some(bits)
    }
}

/// Sums over some tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Totals {
    /// The number of tensors.
    pub n_tensors: u64,
    /// The number of their elements, which are a model's parameters; of quantized weights, those that they have without quantization, and of packed
    /// integers those.
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
    /// The dtypes below it, in file order, of what is not quantized.
    pub dtypes: Vec<Dtype>,
    /// What is quantized below it is written in.
    pub schemes: Vec<SchemeName>,
    /// The tensors of this very name: none for a module, one for a tensor, several for a name in braces.
    pub tensors: Vec<Shape>,
    /// What is below it.
    pub children: Vec<Module>,
}

/// The dtype and shape of one tensor, or of one quantized weight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The element type; of a quantized weight, the one that its values are given as.
    pub dtype: Dtype,
    /// The type of integers narrower than a byte, which the tensor holds as `dtype`.
    pub narrow: Option<NarrowInt>,
    /// The size in each dimension; `None` for a quantized weight of which it is not known.
    pub dims: Option<Vec<u64>>,
    /// What the weight is written in, if it is quantized.
    pub scheme: Option<SchemeName>,
}

impl Report {
    /// The sums over `checkpoint`, from its headers alone.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint) -> Report {
        Report::of_tensors(
            checkpoint
                .tensors()
                .map(|tensor| (tensor.info(), tensor.narrow())),
            &Quantization::default(),
        )
    }

    /// The sums over `checkpoint` as it is without quantization: a weight has its elements and the bytes of all its parts.
    #[must_use]
    pub fn logical(checkpoint: &Checkpoint, quantization: &Quantization) -> Report {
        let tensors = checkpoint
            .tensors()
            .map(|tensor| (tensor.info(), tensor.narrow()));
        Report::of_tensors(tensors, quantization)
    }

    fn of_tensors<'a>(
        tensors: impl Iterator<Item = (TensorInfo<'a>, Option<&'a NarrowTensor>)>,
        quantization: &'a Quantization,
    ) -> Report {
        let mut sums = Sums::default();
        let mut parts: HashMap<&str, Totals> = quantization
            .parts()
            .map(|part| (part, Totals::default()))
            .collect();
        for (info, narrow) in tensors {
            sums.add_dtype(&info);
            match parts.get_mut(info.name) {
                Some(part) => *part = Totals::of(&info),
                None => sums.add(info.name, Entry::of(&info, narrow)),
            }
        }
        for weight in &quantization.weights {
            sums.add_weight(weight, &parts);
        }
        for name in &quantization.companions {
            let totals = parts.get(&**name).copied().unwrap_or_default();
            sums.totals.add(
                Totals {
                    n_elements: 0,
                    ..totals
                },
                1,
            );
        }
        sums.finish()
    }
}

/// The sums so far.
#[derive(Default)]
struct Sums<'a> {
    totals: Totals,
    dtypes: BTreeMap<Dtype, Totals>,
    schemes: BTreeMap<SchemeName, SchemeTotals>,
    tree: tree::Tree<'a>,
}

impl<'a> Sums<'a> {
    fn add_dtype(&mut self, info: &TensorInfo<'_>) {
        let of_dtype = self.dtypes.entry(info.dtype).or_default();
        of_dtype.add(Totals::of(info), 1);
    }

    fn add(&mut self, name: &'a str, entry: Entry<'a>) {
        self.totals.add(entry.totals, 1);
        self.tree.insert(name, entry);
    }

    fn add_weight(&mut self, weight: &'a QuantizedWeight, parts: &HashMap<&str, Totals>) {
        let mut totals = Totals::default();
        for part in weight.parts.values() {
            totals.add(parts.get(&**part).copied().unwrap_or_default(), 1);
        }
        let n_elements = weight
            .shape()
            .map(|shape| n_elements(shape).unwrap_or(u64::MAX));
        totals.n_elements = n_elements.unwrap_or(0);
        let of_scheme = self.schemes.entry(weight.scheme).or_default();
        of_scheme.add(&totals, n_elements.is_some());
        let entry = Entry {
            dtype: weight.dtype,
            narrow: None,
            dims: weight.shape(),
            scheme: Some(weight.scheme),
            totals,
        };
        self.add(&weight.name, entry);
    }

    fn finish(self) -> Report {
        let mut dtypes: Vec<(Dtype, Totals)> = self.dtypes.into_iter().collect();
        dtypes.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.size_bytes));
        let mut schemes: Vec<(SchemeName, SchemeTotals)> = self.schemes.into_iter().collect();
        schemes.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.size_bytes));
        Report {
            totals: self.totals,
            dtypes,
            modules: fold::modules(&self.tree.structured()),
            schemes,
        }
    }
}

impl SchemeTotals {
    fn add(&mut self, totals: &Totals, is_known: bool) {
        self.n_weights += 1;
        self.size_bytes = self.size_bytes.saturating_add(totals.size_bytes);
        self.n_elements = self.n_elements.saturating_add(totals.n_elements);
        match is_known {
            true => self.known_bytes = self.known_bytes.saturating_add(totals.size_bytes),
            false => self.n_unknown += 1,
        }
    }
}

impl<'a> Entry<'a> {
    fn of(info: &TensorInfo<'a>, narrow: Option<&'a NarrowTensor>) -> Entry<'a> {
        let totals = Totals::of(info);
        Entry {
            dtype: info.dtype,
            narrow: narrow.map(NarrowTensor::dtype),
            dims: Some(narrow.map_or(info.shape, NarrowTensor::shape)),
            scheme: None,
            totals: Totals {
                n_elements: narrow.map_or(totals.n_elements, NarrowTensor::n_values),
                ..totals
            },
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
