//! The message packs of Flax: a tree of maps whose leaves are arrays.
//!
//! Arrays stay where they lie in the file. An array that Flax has cut into chunks, because it is larger than 1 GiB, is
//! one tensor again whose storage has several pieces.
//!
//! # Source
//! The specification of MessagePack, and `flax.serialization` of Flax 0.12 for what its extensions 1 (an array),
//! 2 (a complex number) and 3 (a scalar of NumPy) hold.

mod array;
mod chunks;
mod pack;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::finding::{Class, Finding, FindingKind};
use crate::foreign::{Foreign, Format};
use crate::limits::Limits;
use crate::storage::{Place, Storage};
use crate::table::Table;
use crate::tree::{Data, Node, NodeId};
use pack::{Item, Reader};

/// Trees of real models are a few dozen deep; Python's reader gives up at 1024.
const DEEPEST: u32 = 128;
/// Bytes of more than these stay in the file.
const LONGEST_IN_MEMORY: u64 = 4096;

/// The tree in `source`.
///
/// # Shapes
/// As NumPy has them: the last dimension is the fastest.
///
/// # Errors
/// `ForeignFormat` for what is no message pack, or has what Flax does not write; `Truncated` where it ends early;
/// `Overflow` for an array of more than 2^64 bytes or more values than `limits` allows.
pub fn read(source: &dyn Source, limits: &Limits) -> Result<Foreign> {
    let mut walk = Walk {
        reader: Reader::new(source, limits),
        limits,
        table: Table::default(),
        most_depth: limits.depth.min(DEEPEST),
    };
    let root = walk.value(0)?;
    let end = walk.reader.position();
    if end < source.size_bytes() {
        let after = ByteRange::new(end, source.size_bytes());
        let what = format!("{} bytes follow the tree", after.len());
        let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, what);
        walk.table.findings.push(finding.with_bytes(after));
    }
    chunks::join(&mut walk.table, root)?;
    Ok(walk.table.into_foreign(Format::Flax, root))
}

/// A malformed file.
fn wrong(what: impl std::fmt::Display, bytes: ByteRange) -> Error {
    Error::new(ErrorKind::ForeignFormat, format!("flax: {what}")).with_bytes(bytes)
}

struct Walk<'a> {
    reader: Reader<'a>,
    limits: &'a Limits,
    table: Table,
    most_depth: u32,
}

impl Walk<'_> {
    /// The value where the reader stands, which lies in `depth` others.
    fn value(&mut self, depth: u32) -> Result<NodeId> {
        let start = self.reader.position();
        let item = self.reader.item()?;
        let here = ByteRange::new(start, self.reader.position());
        let node = match item {
            Item::Nil => Node::None,
            Item::Truth(truth) => Node::Bool(truth),
            Item::Integer(number) => Node::Int(number),
            Item::Large(number) => Node::BigInt([&number.to_le_bytes()[..], &[0]].concat()),
            Item::Float(number) => Node::Float(number),
            Item::Text(n_bytes) => self.text(n_bytes, here)?,
            Item::Bytes(n_bytes) => self.bytes(n_bytes)?,
            Item::Array(n_items) => {
                self.check_depth(depth, here)?;
                self.list(n_items, depth)?
            }
            Item::Map(n_pairs) => {
                self.check_depth(depth, here)?;
                self.map(n_pairs, depth, here)?
            }
            Item::Extension(kind, n_bytes) => {
                let node = array::extension(&mut self.reader, &mut self.table, kind, n_bytes);
                node.map_err(|error| error.with_bytes(here))?
            }
        };
        self.push(node)
    }

    fn push(&mut self, node: Node) -> Result<NodeId> {
        if self.table.tree.n_nodes() as u64 >= self.limits.nodes {
            let message = format!("flax: more values than the limit of {}", self.limits.nodes);
            return Err(Error::new(ErrorKind::Overflow, message));
        }
        Ok(self.table.tree.push(node))
    }

    fn check_depth(&self, depth: u32, here: ByteRange) -> Result<()> {
        match depth < self.most_depth {
            true => Ok(()),
            false => Err(wrong(
                format!("values lie more than {} deep", self.most_depth),
                here,
            )),
        }
    }

    fn text(&mut self, n_bytes: u64, here: ByteRange) -> Result<Node> {
        let bytes = self.reader.text(n_bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("text is not UTF-8", here))?;
        Ok(Node::Str(text.as_str().into()))
    }

    fn bytes(&mut self, n_bytes: u64) -> Result<Node> {
        if n_bytes <= LONGEST_IN_MEMORY {
            return Ok(Node::Bytes(Data::Memory(self.reader.text(n_bytes)?)));
        }
        let place = self.reader.skip(n_bytes)?;
        let name = format!("bytes at {}", place.start);
        let storage = Storage::new(name, Place::InFile(place), n_bytes);
        let (storage, _) = self.table.add_storage(storage);
        Ok(Node::Bytes(Data::Storage(storage)))
    }

    fn list(&mut self, n_items: u64, depth: u32) -> Result<Node> {
        self.reader.check_room(n_items)?;
        let mut items = Vec::new();
        for _ in 0..n_items {
            items.push(self.value(depth + 1)?);
        }
        Ok(Node::List(items))
    }

    fn map(&mut self, n_pairs: u64, depth: u32, here: ByteRange) -> Result<Node> {
        self.reader.check_room(n_pairs.saturating_mul(2))?;
        let mut pairs: Vec<(NodeId, NodeId)> = Vec::new();
        let mut places = HashMap::new();
        for _ in 0..n_pairs {
            let key = self.value(depth + 1)?;
            let text = match &self.table.tree[key] {
                Node::Str(text) => Some(text.clone()),
                Node::None | Node::Bool(_) | Node::Int(_) => None,
                _ => return Err(wrong("a key is neither text nor a number", here)),
            };
            let value = self.value(depth + 1)?;
            // As Python's reader: a key that stands twice has the place of the first, the value of the last.
            let before = text.and_then(|text| match places.entry(text) {
                Entry::Occupied(place) => Some(*place.get()),
                Entry::Vacant(place) => {
                    place.insert(pairs.len());
                    None
                }
            });
            match before {
                None => pairs.push((key, value)),
                Some(before) => {
                    self.report_twin(key, here);
                    pairs[before].1 = value;
                }
            }
        }
        Ok(Node::Dict(pairs))
    }

    fn report_twin(&mut self, key: NodeId, here: ByteRange) {
        let Node::Str(key) = &self.table.tree[key] else {
            return;
        };
        let name = crate::container::short(&key.to_string_lossy());
        let what = format!("the key {name} stands twice in a map; the last one counts");
        let finding = Finding::new(FindingKind::DuplicateKey, Class::Unknown, what);
        self.table.findings.push(finding.with_bytes(here));
    }
}
