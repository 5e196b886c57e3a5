//! What readers fill while they read one file.

use std::collections::HashMap;

use tensorhold_core::{Error, ErrorKind, Result, Source};

use crate::finding::{Class, Finding, FindingKind, Global, GlobalId};
use crate::limits::Limits;
use crate::pickle::globals::{Known, known};
use crate::storage::{Place, Storage, StorageId};
use crate::tree::{Data, Node, NodeId, Opaque, Tree};

/// The parts of a [`crate::Foreign`] as they come, and what they have cost so far.
pub(crate) struct Builder<'a> {
    pub(crate) limits: &'a Limits,
    /// The file.
    pub(crate) source: &'a dyn Source,
    pub(crate) tree: Tree,
    pub(crate) storages: Vec<Storage>,
    pub(crate) globals: Vec<Global>,
    pub(crate) findings: Vec<(Finding, Option<NodeId>)>,
    /// Names of a pickle that is not the file's main one.
    pub(crate) pickle: Option<String>,
    /// How many files inside bytes the reader is in.
    pub(crate) depth: u32,
    known: Vec<Known>,
    ids: HashMap<(String, String, Option<String>), GlobalId>,
    operations: u64,
    nodes: u64,
    bytes: u64,
    /// Bytes that may be made out of others: what a file needs is less than a few times its size.
    most_bytes: u64,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(source: &'a dyn Source, limits: &'a Limits) -> Builder<'a> {
        Builder {
            limits,
            source,
            tree: Tree::new(),
            storages: Vec::new(),
            globals: Vec::new(),
            findings: Vec::new(),
            pickle: None,
            depth: 0,
            known: Vec::new(),
            ids: HashMap::new(),
            operations: 0,
            nodes: 0,
            bytes: 0,
            most_bytes: source
                .size_bytes()
                .saturating_mul(4)
                .saturating_add(1 << 16),
        }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// `Overflow` past the limit of nodes.
    pub(crate) fn push(&mut self, node: Node) -> Result<NodeId> {
        self.charge_nodes(1)?;
        Ok(self.tree.push(node))
    }

    /// Counts nodes, or children of nodes, that are about to be made.
    ///
    /// # Errors
    /// `Overflow` past the limit.
    pub(crate) fn charge_nodes(&mut self, count: usize) -> Result<()> {
        self.nodes += count as u64;
        over(self.nodes, self.limits.nodes, "values")
    }

    /// Counts one operation.
    ///
    /// # Errors
    /// `Overflow` past the limit.
    pub(crate) fn charge_operation(&mut self) -> Result<()> {
        self.operations += 1;
        over(self.operations, self.limits.operations, "operations")
    }

    /// The value of a text key of a dict, as [`Tree::entry`]; what has to be looked through is counted.
    ///
    /// # Errors
    /// `Overflow` past the limit of operations.
    pub(crate) fn entry(&mut self, dict: NodeId, key: &str) -> Result<Option<NodeId>> {
        let count = self.tree.pairs(dict).map_or(0, <[_]>::len);
        self.operations += count as u64;
        over(self.operations, self.limits.operations, "operations")?;
        Ok(self.tree.entry(dict, key))
    }

    /// Allows for bytes that a compressed part of the file has become.
    pub(crate) fn allow_inflated(&mut self, count: usize) {
        self.most_bytes = self
            .most_bytes
            .saturating_add((count as u64).saturating_mul(4));
    }

    /// Counts bytes that are about to be made out of others.
    ///
    /// # Errors
    /// `Overflow` past the limit.
    pub(crate) fn charge_bytes(&mut self, count: usize) -> Result<()> {
        self.bytes += count as u64;
        over(
            self.bytes,
            self.most_bytes.min(self.limits.pickle_bytes),
            "bytes",
        )
    }

    /// Adds a storage.
    ///
    /// # Errors
    /// `Overflow` past the limit of entries.
    pub(crate) fn push_storage(&mut self, storage: Storage) -> Result<StorageId> {
        let count = self.storages.len() as u64;
        over(
            count + 1,
            self.limits.entries.min(u64::from(u32::MAX)),
            "storages",
        )?;
        self.storages.push(storage);
        Ok(StorageId(count as u32))
    }

    /// The storage of a value's bytes, which become one: it is the same each time.
    ///
    /// # Errors
    /// `Overflow` past a limit.
    pub(crate) fn storage_of_bytes(&mut self, id: NodeId) -> Result<Option<StorageId>> {
        let (Node::Bytes(data) | Node::ByteArray(data)) = self.tree.node_mut(id) else {
            return Ok(None);
        };
        let bytes = match data {
            Data::Storage(storage) => return Ok(Some(*storage)),
            Data::Memory(bytes) => std::mem::take(bytes),
        };
        let size = bytes.len() as u64;
        let name = format!("bytes {}", id.0);
        let storage = self.push_storage(Storage::new(name, Place::Memory(bytes), size))?;
        if let Node::Bytes(data) | Node::ByteArray(data) = self.tree.node_mut(id) {
            *data = Data::Storage(storage);
        }
        Ok(Some(storage))
    }

    /// The number of a name that a pickle mentions at `position`.
    pub(crate) fn mention(&mut self, module: String, name: String, position: u64) -> GlobalId {
        let key = (module, name, self.pickle.clone());
        if let Some(&id) = self.ids.get(&key) {
            self.globals[id.0 as usize].n_mentions += 1;
            return id;
        }
        let id = GlobalId(self.globals.len() as u32);
        let known = known(&key.0, &key.1);
        self.globals.push(Global {
            module: key.0.clone(),
            name: key.1.clone(),
            class: known.class(),
            n_mentions: 1,
            is_called: false,
            position,
            paths: Vec::new(),
            pickle: self.pickle.clone(),
        });
        self.known.push(known);
        self.ids.insert(key, id);
        id
    }

    /// What is known of a name.
    pub(crate) fn known(&self, id: GlobalId) -> Known {
        self.known[id.0 as usize]
    }

    /// The name that a node is, and what is known of it.
    pub(crate) fn global_of(&self, id: NodeId) -> Option<(GlobalId, Known)> {
        match self.tree[id] {
            Node::Global(global) => Some((global, self.known(global))),
            _ => None,
        }
    }

    /// Remembers that a name is called.
    pub(crate) fn called(&mut self, id: GlobalId) {
        self.globals[id.0 as usize].is_called = true;
    }

    /// Adds a finding about a node.
    pub(crate) fn find(&mut self, kind: FindingKind, class: Class, message: String, node: NodeId) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings
                .push((Finding::new(kind, class, message), Some(node)));
        }
    }

    /// Adds a finding about no node.
    pub(crate) fn note(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push((finding, None));
        }
    }

    /// An object of which only the parts are known.
    ///
    /// # Errors
    /// `Overflow` past the limit of nodes.
    pub(crate) fn push_opaque(
        &mut self,
        callee: NodeId,
        args: Option<NodeId>,
        kwargs: Option<NodeId>,
    ) -> Result<NodeId> {
        let global = self.global_of(callee).map(|(global, _)| global);
        let opaque = Opaque {
            global,
            callee: global.is_none().then_some(callee),
            args,
            kwargs,
            state: None,
            items: Vec::new(),
            pairs: Vec::new(),
        };
        self.push(Node::Opaque(Box::new(opaque)))
    }
}

/// More findings than this say nothing new.
const MAX_FINDINGS: usize = 10_000;

fn over(count: u64, limit: u64, what: &str) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Overflow,
        format!("the file has more {what} than the limit of {limit}"),
    ))
}
