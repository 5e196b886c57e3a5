//! A tree as the text that a file of this format keeps beside its tensors, and the tensors that the text refers to.
//!
//! ```text
//! go over the tree: name its tensors, and count what occurs more than once
//! say for each storage what is stored of it, and what its tensors are of that
//! go over the tree again: write
//! ```
//!
//! `docs/reference/tree.md` is the specification.

mod emit;
mod json;
mod name;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use tensorhold_core::{Error, ErrorKind, Result};

use crate::element::Element;
use crate::foreign::Foreign;
use crate::storage::{Place, StorageId, View};
use crate::tree::{Data, Node, NodeId, SparseLayout};
use name::{Names, Step};
pub use stored::Stored;
use stored::{Places, Use};

/// Containers inside containers that a tree of a file may have.
const MAX_DEPTH: usize = 1000;

/// How tensors are to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// By their values, as a file is written: in row-major order, unless they share their bytes with others.
    Written,
    /// As they lie: only what takes no gathering, where that can be. Arrays of NumPy whose elements do not lie in row-major
    /// order have to be gathered still.
    Placed,
}

/// A tree as text, and its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// The JSON text of the tree.
    pub text: String,
    /// What is to be stored.
    pub stored: Vec<Stored>,
    /// Names of tensors that are the same bytes as others, and of these: what loaders of models call aliases.
    pub tied: Vec<(String, String)>,
}

impl Foreign {
    /// The value `root` of the tree as text, and the tensors of it.
    ///
    /// # Errors
    /// `Overflow` where containers lie too deep in each other, or a size passes 2^64.
    pub fn lay_out(&self, root: NodeId, lie: Lie) -> Result<Laid> {
        let mut survey = Survey::new(self);
        survey.visit(root, Step::Silent)?;
        let Survey {
            uses,
            n_seen,
            mut places,
            ..
        } = survey;
        places.add_tensors(uses, lie)?;
        let text = emit::text(self, root, &n_seen, &places.members)?;
        Ok(Laid {
            text,
            stored: places.stored,
            tied: places.tied,
        })
    }
}

impl Foreign {
    /// Whether the bytes of a tensor, an array or bytes are not in the file.
    fn lacks_bytes_of(&self, id: NodeId) -> bool {
        let storage = match &self.tree[id] {
            Node::Tensor(tensor) => tensor.view.storage(),
            Node::Quantized(quantized) => quantized.ints.storage(),
            Node::Ndarray(array) => array.view.storage(),
            Node::Storage(bare) => bare.storage,
            Node::Bytes(Data::Storage(storage)) | Node::ByteArray(Data::Storage(storage)) => {
                *storage
            }
            _ => return false,
        };
        self.storages[storage.0 as usize].place == Place::Missing
    }
}

/// The first way over the tree.
struct Survey<'a> {
    foreign: &'a Foreign,
    names: Names,
    /// How often each value that can be shared occurs.
    n_seen: HashMap<NodeId, u32>,
    uses: BTreeMap<StorageId, Vec<Use>>,
    places: Places,
    depth: usize,
}

impl<'a> Survey<'a> {
    fn new(foreign: &'a Foreign) -> Survey<'a> {
        Survey {
            foreign,
            names: Names::default(),
            n_seen: HashMap::new(),
            uses: BTreeMap::new(),
            places: Places::default(),
            depth: 0,
        }
    }

    fn visit(&mut self, id: NodeId, step: Step) -> Result<()> {
        let n_seen = self.n_seen.entry(id).or_default();
        *n_seen += 1;
        if *n_seen > 1 {
            return Ok(());
        }
        if self.depth == MAX_DEPTH {
            return Err(too_deep());
        }
        self.depth += 1;
        self.names.enter(step);
        let visited = self.parts(id);
        self.names.leave();
        self.depth -= 1;
        visited
    }

    fn parts(&mut self, id: NodeId) -> Result<()> {
        let foreign = self.foreign;
        if foreign.lacks_bytes_of(id) {
            return Ok(());
        }
        match &foreign.tree[id] {
            Node::Bytes(Data::Storage(storage)) | Node::ByteArray(Data::Storage(storage)) => {
                let size = self.storage_size(*storage);
                let view = View::contiguous((*storage, size), Element::Uint8, 0, vec![size])?;
                self.add_values(id, view)
            }
            Node::List(items) | Node::Tuple(items) | Node::Set(items) | Node::FrozenSet(items) => {
                self.visit_items(items)
            }
            Node::Dict(pairs) | Node::Counter(pairs) | Node::DefaultDict { pairs, .. } => {
                self.visit_pairs(pairs)
            }
            Node::OrderedDict { pairs, attributes } => {
                self.visit_pairs(pairs)?;
                self.visit_all(attributes.iter().map(|&id| (Step::Silent, id)))
            }
            Node::Slice(parts) | Node::Range(parts) => self.visit_items(parts),
            Node::Scalar(_, value) => self.visit(*value, Step::Silent),
            Node::Object(object) => self.visit(object.state, Step::Module),
            Node::Opaque(opaque) => {
                self.share_arguments(opaque.args);
                let named = [
                    ("args", opaque.args),
                    ("kwargs", opaque.kwargs),
                    ("of", opaque.callee),
                ];
                let named = named
                    .into_iter()
                    .filter_map(|(name, id)| Some((Step::Name(name), id?)));
                let state = opaque.state.map(|id| (Step::Silent, id));
                self.visit_all(named.chain(state))?;
                self.visit_items(&opaque.items)?;
                self.visit_pairs(&opaque.pairs)
            }
            _ => self.tensors(id),
        }
    }

    /// Arguments are written with each object that has them: what several have is then shared.
    fn share_arguments(&mut self, args: Option<NodeId>) {
        let Some(args) = args.filter(|args| self.n_seen.get(args) == Some(&1)) else {
            return;
        };
        for item in self.foreign.tree.items(args).unwrap_or_default() {
            *self.n_seen.entry(*item).or_default() += 1;
        }
    }

    /// What lies in storages.
    fn tensors(&mut self, id: NodeId) -> Result<()> {
        let foreign = self.foreign;
        match &foreign.tree[id] {
            Node::Tensor(tensor) => {
                let bits = (tensor.is_conj, tensor.is_neg);
                self.add_use(id, tensor.view.clone(), bits);
                self.visit_all(tensor.attributes.iter().map(|&id| (Step::Silent, id)))
            }
            Node::Quantized(quantized) => {
                self.names.enter(Step::Name("ints"));
                let ints = self.integers(&quantized.ints);
                ints.map(|ints| self.add_use(id, ints, (false, false)))?;
                self.names.leave();
                self.visit_all(
                    emit::quantized_parts(quantized).map(|(name, id)| (Step::Name(name), id)),
                )
            }
            Node::Ndarray(array) => self.add_values(id, array.view.clone()),
            Node::Storage(bare) => {
                let element = bare.element.unwrap_or(Element::Uint8);
                let width = element.width_bytes();
                let shape = vec![bare.bytes.len() / width];
                let storage = (bare.storage, self.storage_size(bare.storage));
                let view = View::contiguous(storage, element, bare.bytes.start / width, shape)?;
                self.add_use(id, view, (false, false));
                Ok(())
            }
            Node::Sparse(sparse) => {
                let (first, second) = match sparse.layout {
                    SparseLayout::Coo { indices, .. } => (("indices", indices), None),
                    SparseLayout::Csr { compressed, plain }
                    | SparseLayout::Bsr { compressed, plain } => {
                        (("crow_indices", compressed), Some(("col_indices", plain)))
                    }
                    SparseLayout::Csc { compressed, plain }
                    | SparseLayout::Bsc { compressed, plain } => {
                        (("ccol_indices", compressed), Some(("row_indices", plain)))
                    }
                };
                let parts = [Some(first), second, Some(("values", sparse.values))];
                self.visit_all(
                    parts
                        .into_iter()
                        .flatten()
                        .map(|(name, id)| (Step::Name(name), id)),
                )
            }
            Node::Nested(nested) => {
                let parts = emit::nested_parts(nested);
                self.visit_all(parts.into_iter().map(|(name, id)| (Step::Name(name), id)))
            }
            _ => Ok(()),
        }
    }

    fn visit_all(&mut self, parts: impl Iterator<Item = (Step, NodeId)>) -> Result<()> {
        for (step, id) in parts {
            self.visit(id, step)?;
        }
        Ok(())
    }

    fn visit_items(&mut self, items: &[NodeId]) -> Result<()> {
        self.visit_all(
            items
                .iter()
                .enumerate()
                .map(|(n, &id)| (Step::Index(n), id)),
        )
    }

    fn visit_pairs(&mut self, pairs: &[(NodeId, NodeId)]) -> Result<()> {
        for &(key, value) in pairs {
            self.visit(key, Step::Silent)?;
            let step = self.names.step_of_key(&self.foreign.tree, key);
            self.visit(value, step)?;
        }
        Ok(())
    }

    /// Adds what is stored by itself; the node says its name.
    fn add_values(&mut self, id: NodeId, view: View) -> Result<()> {
        let name = self.names.take();
        self.places.members.insert(id, name.clone());
        self.places.add_values(id, name, view)
    }

    fn add_use(&mut self, node: NodeId, view: View, bits: (bool, bool)) {
        let name = self.names.take();
        let group = self.uses.entry(view.storage()).or_default();
        group.push(Use {
            node,
            name,
            view,
            bits,
        });
    }

    /// The integers of a quantized tensor: by themselves, or, where one has several elements, all bytes of the storage.
    fn integers(&self, view: &View) -> Result<View> {
        let element = match view.element() {
            Element::Quint8 => Element::Uint8,
            Element::Qint8 => Element::Int8,
            Element::Qint32 => Element::Int32,
            _ => {
                let size = self.storage_size(view.storage());
                return View::contiguous((view.storage(), size), Element::Uint8, 0, vec![size]);
            }
        };
        let storage = (view.storage(), self.storage_size(view.storage()));
        let (shape, strides) = (view.shape().to_vec(), view.strides().to_vec());
        View::new(storage, element, view.offset(), shape, strides)
    }

    fn storage_size(&self, storage: StorageId) -> u64 {
        self.foreign.storages[storage.0 as usize].size_bytes
    }
}

fn too_deep() -> Error {
    let message = format!("more than {MAX_DEPTH} containers lie one in another");
    Error::new(ErrorKind::Overflow, message)
}
