//! Puts together what a file has that is a table of names and values.

use crate::finding::Finding;
use crate::foreign::{Foreign, Format};
use crate::storage::{Storage, StorageId};
use crate::tree::{Node, NodeId, Tree};

/// A file's values, while they are read.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub tree: Tree,
    pub findings: Vec<Finding>,
    storages: Vec<Storage>,
    pairs: Vec<(NodeId, NodeId)>,
}

impl Table {
    /// Keeps a storage; gives its number and size, as views ask for them.
    pub fn add_storage(&mut self, storage: Storage) -> (StorageId, u64) {
        let number =
            u32::try_from(self.storages.len()).expect("the limit of entries is below 2^32");
        let size_bytes = storage.size_bytes;
        self.storages.push(storage);
        (StorageId(number), size_bytes)
    }

    /// A storage that was added.
    pub fn storage(&self, id: StorageId) -> &Storage {
        &self.storages[id.0 as usize]
    }

    /// Adds a named value to the file's dict.
    pub fn insert(&mut self, name: &str, node: Node) {
        let key = self.tree.push(Node::Str(name.into()));
        let value = self.tree.push(node);
        self.pairs.push((key, value));
    }

    /// The file as a dict of what was inserted.
    pub fn into_dict(mut self, format: Format) -> Foreign {
        let root = self.tree.push(Node::Dict(std::mem::take(&mut self.pairs)));
        self.into_foreign(format, root)
    }

    /// The file as the value `root`.
    pub fn into_foreign(mut self, format: Format, root: NodeId) -> Foreign {
        self.tree.set_root(root);
        Foreign {
            format,
            tree: self.tree,
            storages: self.storages,
            globals: Vec::new(),
            findings: self.findings,
        }
    }
}
