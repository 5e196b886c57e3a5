//! The storages that a pickle of PyTorch's names by persistent numbers.

use std::collections::HashMap;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::rebuild::{UNKNOWN_SWAP, whole};
use crate::builder::Builder;
use crate::element::Element;
use crate::pickle::Persistent;
use crate::pickle::globals::Known;
use crate::storage::{Place, Storage, StorageId};
use crate::tree::{BareStorage, Node, NodeId, Tree};

/// The storages that one pickle has named, by their keys.
#[derive(Default)]
pub(crate) struct Storages {
    /// What stands before the key in the storage's name.
    pub(crate) prefix: String,
    /// Whether the numbers of the file are big-endian.
    pub(crate) is_big_endian: bool,
    /// Whether names have a sixth part, for views, and may be of modules.
    pub(crate) is_legacy: bool,
    pub(crate) by_key: HashMap<String, (StorageId, Option<Element>)>,
    pub(crate) views: HashMap<String, BareStorage>,
}

impl Persistent for Storages {
    fn load(&mut self, builder: &mut Builder<'_>, number: NodeId) -> Result<NodeId> {
        let parts = match &builder.tree[number] {
            Node::Tuple(parts) if parts.len() <= 8 => parts.clone(),
            _ => return Err(odd("a persistent value is named by no tuple")),
        };
        match parts.first().and_then(|first| builder.tree.text(*first)) {
            Some("storage") => {}
            Some("module") if self.is_legacy && parts.len() == 4 => return Ok(parts[1]),
            _ => return Err(odd("a persistent value is no storage")),
        }
        let bare = match (self.is_legacy, &parts[1..]) {
            (false, &[class, key, location, count]) => {
                self.storage(builder, class, key, location, count)?
            }
            (true, &[class, key, location, count, view]) => {
                let root = self.storage(builder, class, key, location, count)?;
                self.view(builder, root, view)?
            }
            _ => return Err(odd("a storage is not named by its parts")),
        };
        builder.push(Node::Storage(Box::new(bare)))
    }
}

impl Storages {
    fn storage(
        &mut self,
        builder: &mut Builder<'_>,
        class: NodeId,
        key: NodeId,
        location: NodeId,
        count: NodeId,
    ) -> Result<BareStorage> {
        let element = match builder.global_of(class) {
            Some((_, Known::StorageClass(element))) => element,
            _ => return Err(odd("the class of a storage is none")),
        };
        let tree = &builder.tree;
        let key = key_text(tree, key)?;
        let location = tree.text(location).unwrap_or("cpu").to_owned();
        let count = tree
            .integer(count)
            .and_then(|count| u64::try_from(count).ok());
        let width = element.map_or(1, Element::width_bytes);
        let size = count.and_then(|count| count.checked_mul(width));
        let size = size.ok_or_else(|| odd("the size of a storage is no count"))?;
        let id = match self.by_key.get(&key) {
            // The largest size that the pickle gives it; whether the file has so much is seen later.
            Some(&(id, _)) => {
                let known = &mut builder.storages[id.0 as usize].size_bytes;
                *known = size.max(*known);
                id
            }
            None => self.add(builder, key, element, location, size)?,
        };
        match whole(id, element, size) {
            Node::Storage(bare) => Ok(*bare),
            _ => Err(odd("a storage is none")),
        }
    }

    fn add(
        &mut self,
        builder: &mut Builder<'_>,
        key: String,
        element: Option<Element>,
        location: String,
        size: u64,
    ) -> Result<StorageId> {
        let mut storage = Storage::new(format!("{}{key}", self.prefix), Place::Missing, size);
        storage.device = location;
        if self.is_big_endian {
            storage.swap_width_bytes = element.map_or(UNKNOWN_SWAP, Element::swap_width_bytes);
        }
        let id = builder.push_storage(storage)?;
        self.by_key.insert(key, (id, element));
        Ok(id)
    }

    /// A part of a storage that has a key of its own: `None`, or the key, the offset and the size in elements.
    fn view(
        &mut self,
        builder: &Builder<'_>,
        root: BareStorage,
        view: NodeId,
    ) -> Result<BareStorage> {
        let parts = match &builder.tree[view] {
            Node::None => return Ok(root),
            Node::Tuple(parts) => parts,
            _ => return Err(odd("a view of a storage is no tuple")),
        };
        let &[key, offset, count] = &parts[..] else {
            return Err(odd("a view of a storage has other parts"));
        };
        let key = key_text(&builder.tree, key)?;
        if let Some(known) = self.views.get(&key) {
            return Ok(known.clone());
        }
        let width = root.element.map_or(1, Element::width_bytes);
        let bytes = |id| {
            let count = builder
                .tree
                .integer(id)
                .and_then(|count| u64::try_from(count).ok());
            count.and_then(|count| count.checked_mul(width))
        };
        let range = bytes(offset).zip(bytes(count)).and_then(|(start, size)| {
            let end = start
                .checked_add(size)
                .filter(|end| *end <= root.bytes.end)?;
            Some(ByteRange::new(start, end))
        });
        let bytes = range.ok_or_else(|| odd("a view of a storage is not inside it"))?;
        let view = BareStorage { bytes, ..root };
        self.views.insert(key, view.clone());
        Ok(view)
    }
}

fn key_text(tree: &Tree, key: NodeId) -> Result<String> {
    match &tree[key] {
        Node::Str(key) => Ok(key.to_string_lossy()),
        Node::Int(key) => Ok(key.to_string()),
        _ => Err(odd("the key of a storage is no text")),
    }
}

fn odd(message: &'static str) -> Error {
    Error::new(ErrorKind::ForeignFormat, message)
}
