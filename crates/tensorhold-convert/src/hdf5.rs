//! HDF5 files, as far as Keras writes them: groups of datasets whose elements lie in one piece.
//!
//! A group becomes a dict, a dataset a tensor that stays where it lies in the file. What such files can have besides
//! (chunks, filters, links to other files, shared types) is refused by the name of the dataset; text and structures are
//! left out with a finding. Attributes are not read.
//!
//! # Source
//! The HDF5 File Format Specification, version 3: superblocks 0, 2 and 3, object headers 1 and 2.

mod dataset;
mod group;
mod object;
mod superblock;

use std::collections::{HashMap, HashSet};

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::container::u64_at;
use crate::finding::{Class, Finding, FindingKind};
use crate::foreign::{Foreign, Format};
use crate::limits::Limits;
use crate::storage::{Place, Storage, StorageId};
use crate::table::Table;
use crate::tree::{Node, NodeId, Tensor};

/// The first bytes of every file.
pub(crate) const MAGIC: &[u8; 8] = b"\x89HDF\r\n\x1a\n";

const ATTRIBUTE: u8 = 0xc;
const LONGEST_PATH_BYTES: usize = 1024;
/// Groups in groups: those of layers in layers are a few deep.
const DEEPEST: u32 = 64;

/// The groups and datasets of the file in `source`, as dicts of tensors.
///
/// # Shapes
/// As NumPy has them: the last dimension is the fastest.
///
/// # Errors
/// `ForeignFormat` for what is malformed or of a kind that Keras does not write; `Truncated` where the file ends
/// early; `Overflow` for a dataset of more than 2^64 bytes. The message names the dataset.
pub fn read(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
    let root = superblock::root(source)?;
    // Honest records do not overlap, and each has more than eight bytes.
    let n_left = limits.entries.min(source.size_bytes() / 8 + 4096);
    let mut walk = Walk {
        file: File { source, n_left },
        table: Table::default(),
        groups: HashSet::new(),
        storages: HashMap::new(),
        most_depth: limits.depth.min(DEEPEST),
    };
    let root = walk.object(root, "", 0)?;
    match walk.table.tree[root] {
        Node::Dict(_) => Ok(walk.table.into_foreign(Format::Hdf5, root)),
        _ => Err(wrong("the root is no group", ByteRange::new(0, 8))),
    }
}

/// A malformed file, or one that is not read.
fn wrong(what: impl std::fmt::Display, bytes: ByteRange) -> Error {
    Error::new(ErrorKind::ForeignFormat, format!("hdf5: {what}")).with_bytes(bytes)
}

/// A file whose records may point anywhere: each pointer costs something, so that no file takes for ever.
struct File<'a> {
    source: &'a dyn Source,
    n_left: u64,
}

impl File<'_> {
    /// The `n_bytes` bytes at an address.
    fn bytes(&mut self, address: u64, n_bytes: u64) -> Result<Vec<u8>> {
        // A record of many bytes counts as many.
        self.count(1 + n_bytes / 256)?;
        let size_bytes = self.source.size_bytes();
        let end = address
            .checked_add(n_bytes)
            .filter(|end| *end <= size_bytes);
        if end.is_none() {
            return Err(Error::truncated(address, n_bytes, size_bytes));
        }
        let mut bytes = vec![0; n_bytes as usize];
        self.source.read_at(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The record of a fixed length at an address, which begins with `signature`.
    fn record(&mut self, address: u64, n_bytes: u64, signature: &[u8; 4]) -> Result<Vec<u8>> {
        let record = self.bytes(address, n_bytes)?;
        if record.starts_with(signature) {
            return Ok(record);
        }
        let what = format!("no {} stands where one should", signature.escape_ascii());
        Err(wrong(what, ByteRange::new(address, address + n_bytes)))
    }

    fn count(&mut self, n: u64) -> Result<()> {
        match self.n_left.checked_sub(n) {
            Some(left) => {
                self.n_left = left;
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::Overflow,
                "hdf5: more records than the limit",
            )),
        }
    }
}

struct Walk<'a> {
    file: File<'a>,
    table: Table,
    /// The groups that were seen, by their addresses: a group may not lie in itself, nor in two others.
    groups: HashSet<u64>,
    /// The storages of datasets, by their places and what is swapped: a dataset may have two names.
    storages: HashMap<(ByteRange, u64), (StorageId, u64)>,
    most_depth: u32,
}

impl Walk<'_> {
    /// The group or dataset whose header lies at `address`.
    fn object(&mut self, address: u64, path: &str, depth: u32) -> Result<NodeId> {
        let messages = object::messages(&mut self.file, address)?;
        if depth == 0 {
            self.report_code(&messages);
        }
        let node = match group::links(&mut self.file, &messages)? {
            Some(links) => self.group(address, links, path, depth)?,
            None => self.dataset(&messages, path)?,
        };
        Ok(self.table.tree.push(node))
    }

    /// Keras's older files have the model's configuration in an attribute of the root.
    fn report_code(&mut self, messages: &[object::Message]) {
        let has_config = |message: &&object::Message| {
            message.kind == ATTRIBUTE
                && memchr::memmem::find(&message.body, b"model_config").is_some()
        };
        if let Some(message) = messages.iter().find(has_config) {
            let what = "the file has the configuration of a model, which is not looked at and may have code";
            let finding = Finding::new(FindingKind::Code, Class::Unknown, what);
            self.table.findings.push(finding.with_bytes(message.place));
        }
    }

    fn group(
        &mut self,
        address: u64,
        links: Vec<(String, u64)>,
        path: &str,
        depth: u32,
    ) -> Result<Node> {
        let here = ByteRange::new(address, address);
        if depth >= self.most_depth {
            return Err(wrong(
                format!("groups lie more than {} deep", self.most_depth),
                here,
            ));
        }
        if !self.groups.insert(address) {
            return Err(wrong(format!("the group `{path}` has two names"), here));
        }
        let mut pairs = Vec::new();
        for (name, address) in links {
            let path = match path {
                "" => name.clone(),
                path => format!("{path}/{name}"),
            };
            if path.len() > LONGEST_PATH_BYTES {
                return Err(wrong(format!("a path has {} bytes", path.len()), here));
            }
            let value = self.object(address, &path, depth + 1)?;
            if self.table.tree[value] == Node::None {
                continue;
            }
            pairs.push((self.table.tree.push(Node::Str(name.as_str().into())), value));
        }
        Ok(Node::Dict(pairs))
    }

    /// The tensor of a dataset; `None` as a value where its type has no tensors.
    fn dataset(&mut self, messages: &[object::Message], path: &str) -> Result<Node> {
        let named = |error: Error| match error.kind() {
            ErrorKind::Io | ErrorKind::Interrupted => error,
            kind => Error::new(kind, format!("{} (dataset `{path}`)", error.message()))
                .with_bytes(error.bytes().unwrap_or_default())
                .with_hint(error.hint().unwrap_or(HINT).to_owned()),
        };
        let dataset = dataset::Dataset::of(messages).map_err(named)?;
        let Some(kind) = dataset.kind else {
            let what = format!("the dataset `{path}` is no array of numbers and is left out");
            let finding = Finding::new(FindingKind::LeftOut, Class::Unknown, what);
            self.table.findings.push(finding);
            return Ok(Node::None);
        };
        let place = dataset
            .place(self.file.source.size_bytes())
            .map_err(named)?;
        let storage = self.storage(path, kind, place);
        let view = kind.view(storage, dataset.shape).map_err(named)?;
        Ok(Node::Tensor(Box::new(Tensor::new(view))))
    }

    /// The storage at a place: that of another dataset, if that has the same bytes in the same order.
    fn storage(&mut self, path: &str, kind: dataset::Kind, place: Place) -> (StorageId, u64) {
        let swap_width_bytes = match kind.is_big_endian {
            true => kind.element.swap_width_bytes(),
            false => 1,
        };
        let (size_bytes, key) = match &place {
            Place::InFile(range) => (range.len(), Some((*range, swap_width_bytes))),
            _ => (0, None),
        };
        if let Some(known) = key.and_then(|key| self.storages.get(&key)) {
            return *known;
        }
        let mut storage = Storage::new(path, place, size_bytes);
        storage.swap_width_bytes = swap_width_bytes;
        let storage = self.table.add_storage(storage);
        if let Some(key) = key {
            self.storages.insert(key, storage);
        }
        storage
    }
}

const HINT: &str =
    "write the file again with `h5repack -l CONTI -f NONE`, or save the model with Keras";

/// An address, which must be one.
fn address_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64_at(bytes, at)).filter(|address| *address != u64::MAX)
}
