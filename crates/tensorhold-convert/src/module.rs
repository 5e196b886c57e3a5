//! The state dict of a pickled module, as the module itself would give it.

use std::collections::HashSet;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::foreign::{Foreign, Format};
use crate::limits::Limits;
use crate::tree::{Node, NodeId, Tree};

/// Modules one in another.
const MOST_DEPTH: usize = 500;

/// Names of a state dict together, in bytes.
const MOST_BYTES: usize = 1 << 27;

impl Foreign {
    /// Adds the state dict of a pickled `torch.nn.Module` or of a TorchScript module to the tree, and gives its node;
    /// `None` if `module` is none.
    ///
    /// Names are those of `Module.state_dict()`: parameters, then buffers that are kept, then modules, in their order. Of
    /// a TorchScript module all attributes that are tensors are given, since only its code says which are kept; of a TorchScript
    /// program with constants those of its module.
    ///
    /// # Errors
    /// `Overflow` if modules lie too deep in each other, or their tensors have more names than `limits` allows.
    pub fn state_dict(&mut self, module: NodeId, limits: &Limits) -> Result<Option<NodeId>> {
        // A program with constants of its code is a dict of both.
        let program = self.tree.entry(module, "module");
        let module = match self.format {
            Format::TorchScript => program.unwrap_or(module),
            _ => module,
        };
        if !matches!(self.tree[module], Node::Object(_)) {
            return Ok(None);
        }
        let mut walk = Walk {
            foreign: self,
            limits,
            found: Vec::new(),
            n_bytes: 0,
        };
        walk.module(module, &mut String::new(), 0)?;
        let found = walk.found;
        let mut pairs = Vec::with_capacity(found.len());
        for (name, tensor) in found {
            let name = self.tree.push(Node::Str(name.as_str().into()));
            pairs.push((name, tensor));
        }
        Ok(Some(self.tree.push(Node::OrderedDict {
            pairs,
            attributes: None,
        })))
    }
}

struct Walk<'a> {
    foreign: &'a Foreign,
    limits: &'a Limits,
    found: Vec<(String, NodeId)>,
    n_bytes: usize,
}

impl Walk<'_> {
    fn module(&mut self, module: NodeId, prefix: &mut String, depth: usize) -> Result<()> {
        let Node::Object(object) = &self.foreign.tree[module] else {
            return Ok(());
        };
        if depth > MOST_DEPTH {
            return Err(over("modules lie too deep in each other"));
        }
        let tree = &self.foreign.tree;
        if tree.entry(object.state, "_parameters").is_none() {
            return self.attributes(object.state, prefix, depth);
        }
        let left_out = texts(
            tree,
            tree.entry(object.state, "_non_persistent_buffers_set"),
        );
        self.charge(tree.pairs(object.state).map_or(0, <[_]>::len) + left_out.len())?;
        for part in ["_parameters", "_buffers"] {
            let dict = tree.entry(object.state, part);
            for (name, value) in named(tree, dict) {
                let is_kept = part == "_parameters" || !left_out.contains(name);
                if is_kept && is_tensor(&tree[value]) {
                    self.add(prefix, name, value)?;
                }
            }
        }
        let modules = tree.entry(object.state, "_modules");
        for (name, value) in named(tree, modules) {
            self.inner(name, value, prefix, depth)?;
        }
        Ok(())
    }

    /// The attributes of a TorchScript module.
    fn attributes(&mut self, state: NodeId, prefix: &mut String, depth: usize) -> Result<()> {
        let tree = &self.foreign.tree;
        for (name, value) in named(tree, Some(state)) {
            match &tree[value] {
                Node::Object(_) => self.inner(name, value, prefix, depth)?,
                node if is_tensor(node) => self.add(prefix, name, value)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn inner(
        &mut self,
        name: &str,
        value: NodeId,
        prefix: &mut String,
        depth: usize,
    ) -> Result<()> {
        let outer = prefix.len();
        prefix.push_str(name);
        prefix.push('.');
        // What is gone through counts, too: modules without tensors may occur again and again.
        self.charge(prefix.len())?;
        self.module(value, prefix, depth + 1)?;
        prefix.truncate(outer);
        Ok(())
    }

    fn add(&mut self, prefix: &str, name: &str, value: NodeId) -> Result<()> {
        self.charge(prefix.len() + name.len())?;
        if self.found.len() as u64 >= self.limits.entries {
            return Err(over("a state dict has more names than the limit"));
        }
        self.found.push((format!("{prefix}{name}"), value));
        Ok(())
    }

    fn charge(&mut self, n_bytes: usize) -> Result<()> {
        self.n_bytes += n_bytes + 16;
        if self.n_bytes > MOST_BYTES {
            return Err(over("the names of a state dict are too long together"));
        }
        Ok(())
    }
}

/// The pairs of a dict whose keys are text.
fn named(tree: &Tree, dict: Option<NodeId>) -> impl Iterator<Item = (&str, NodeId)> {
    let pairs = dict.and_then(|dict| tree.pairs(dict)).unwrap_or_default();
    pairs
        .iter()
        .filter_map(|(name, value)| Some((tree.text(*name)?, *value)))
}

/// The texts in a set.
fn texts(tree: &Tree, set: Option<NodeId>) -> HashSet<&str> {
    match set.map(|set| &tree[set]) {
        Some(Node::Set(items)) => items.iter().filter_map(|item| tree.text(*item)).collect(),
        _ => HashSet::new(),
    }
}

fn is_tensor(node: &Node) -> bool {
    matches!(
        node,
        Node::Tensor(_) | Node::Meta(_) | Node::Sparse(_) | Node::Quantized(_) | Node::Nested(_)
    )
}

fn over(message: &'static str) -> Error {
    Error::new(ErrorKind::Overflow, message)
}
