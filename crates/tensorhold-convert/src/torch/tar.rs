//! What `torch.save` wrote before 0.1.10: a tar archive with the storages, the tensors and the pickle apart.
//!
//! ```text
//! storages: a pickle of their number; for each a pickle (key, location, class), a count of elements in 8 bytes, and these;
//!           a pickle of the views: [(key, key of what it is a part of, offset, count)]
//! tensors:  a pickle of their number; for each a pickle (key, key of its storage, class), the number of dimensions in 4 bytes
//!           and 4 more, sizes, strides and offset in 8 bytes each
//! pickle:   the value, in which keys are persistent numbers
//! ```
//!
//! # Source
//! `torch.serialization._legacy_load` of PyTorch 2.15. Numbers are little-endian.

use std::collections::HashMap;

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use super::rebuild::whole;
use crate::builder::Builder;
use crate::container::Tar;
use crate::element::Element;
use crate::finding::{Class, Finding, FindingKind};
use crate::pickle::globals::Known;
use crate::pickle::{Machine, NoPersistent, Persistent, Stream};
use crate::storage::{Place, Storage, View};
use crate::tree::{BareStorage, Node, NodeId, Tensor};

/// Whether an archive has what these have.
pub(crate) fn is_whole(tar: &Tar) -> bool {
    ["storages", "tensors", "pickle"]
        .iter()
        .all(|name| tar.entry(name).is_some())
}

/// The value of an archive.
///
/// # Errors
/// `ForeignFormat` if it is not as it should be, `Truncated` if a part of it ends early, `Overflow` past a limit.
pub(crate) fn read(builder: &mut Builder<'_>, tar: &Tar) -> Result<NodeId> {
    for finding in tar.findings() {
        builder.note(finding.clone());
    }
    let mut objects = Objects::default();
    read_storages(
        builder,
        &mut stream(builder, tar, "storages")?,
        &mut objects,
    )?;
    read_tensors(builder, &mut stream(builder, tar, "tensors")?, &mut objects)?;
    let mut pickle = stream(builder, tar, "pickle")?;
    let root = Machine::new(builder, &mut objects, Some(0)).run(&mut pickle)?;
    if pickle.left() > 0 {
        let message = format!("{} bytes follow the pickle", pickle.left());
        builder.note(Finding::new(
            FindingKind::ExtraBytes,
            Class::Unknown,
            message,
        ));
    }
    Ok(root)
}

fn stream<'a>(builder: &Builder<'a>, tar: &Tar, name: &str) -> Result<Stream<'a>> {
    let entry = tar
        .entry(name)
        .ok_or_else(|| odd("the archive lacks an entry"))?;
    Stream::new(builder.source, entry.data)
}

/// Storages and tensors by their keys.
#[derive(Default)]
struct Objects(HashMap<i64, NodeId>);

impl Persistent for Objects {
    fn load(&mut self, builder: &mut Builder<'_>, number: NodeId) -> Result<NodeId> {
        let key = match &builder.tree[number] {
            // A module and its source: only the module is of interest.
            Node::Tuple(parts) if !parts.is_empty() => return Ok(parts[0]),
            Node::Int(key) => Some(*key),
            Node::Str(text) => text.as_str().and_then(|text| text.parse().ok()),
            _ => None,
        };
        let found = key.and_then(|key| self.0.get(&key));
        found
            .copied()
            .ok_or_else(|| odd("a key of the pickle is of no tensor and no storage"))
    }
}

fn plain(builder: &mut Builder<'_>, stream: &mut Stream<'_>) -> Result<NodeId> {
    Machine::new(builder, &mut NoPersistent, Some(0)).run(stream)
}

fn count(builder: &mut Builder<'_>, stream: &mut Stream<'_>) -> Result<u64> {
    let count = plain(builder, stream)?;
    let count = builder
        .tree
        .integer(count)
        .and_then(|count| u64::try_from(count).ok());
    count.ok_or_else(|| odd("a number of parts is none"))
}

/// The three parts that come before a storage or tensor.
fn parts(builder: &mut Builder<'_>, stream: &mut Stream<'_>) -> Result<[NodeId; 3]> {
    let parts = plain(builder, stream)?;
    match builder.tree.items(parts) {
        Some(&[key, second, class]) => Ok([key, second, class]),
        _ => Err(odd("a part of the archive has no key and class")),
    }
}

fn key(builder: &Builder<'_>, id: NodeId) -> Result<i64> {
    builder
        .tree
        .integer(id)
        .ok_or_else(|| odd("a key is no number"))
}

fn read_storages(
    builder: &mut Builder<'_>,
    stream: &mut Stream<'_>,
    objects: &mut Objects,
) -> Result<()> {
    for _ in 0..count(builder, stream)? {
        let [id, location, class] = parts(builder, stream)?;
        let Some((_, Known::StorageClass(Some(element)))) = builder.global_of(class) else {
            return Err(odd("the class of a storage is none"));
        };
        let id = key(builder, id)?;
        let n_elements = u64::from_le_bytes(stream.array()?);
        let size = n_elements.checked_mul(element.width_bytes());
        let range = stream.skip(size.ok_or_else(|| odd("a storage is too large"))?)?;
        let mut storage = Storage::new(id.to_string(), Place::InFile(range), range.len());
        storage.device = builder.tree.text(location).unwrap_or("cpu").to_owned();
        let storage = builder.push_storage(storage)?;
        let node = builder.push(whole(storage, Some(element), range.len()))?;
        objects.0.insert(id, node);
    }
    let views = plain(builder, stream)?;
    let views = builder.tree.items(views).map(<[NodeId]>::to_vec);
    for view in views.ok_or_else(|| odd("the views of storages are no list"))? {
        let (id, node) = read_view(builder, view, objects)?;
        let node = builder.push(node)?;
        objects.0.insert(id, node);
    }
    Ok(())
}

/// A part of a storage that has a key of its own.
fn read_view(builder: &Builder<'_>, view: NodeId, objects: &Objects) -> Result<(i64, Node)> {
    let Some(&[target, root, offset, n_elements]) = builder.tree.items(view) else {
        return Err(odd("a view of a storage has other parts"));
    };
    let root = bare(builder, objects, key(builder, root)?)?;
    let width = root.element.map_or(1, Element::width_bytes);
    let bytes = |id| {
        let count = builder
            .tree
            .integer(id)
            .and_then(|count| u64::try_from(count).ok());
        count.and_then(|count| count.checked_mul(width))
    };
    let range = bytes(offset)
        .zip(bytes(n_elements))
        .and_then(|(offset, size)| {
            let start = root.bytes.start.checked_add(offset)?;
            let end = start
                .checked_add(size)
                .filter(|end| *end <= root.bytes.end)?;
            Some(ByteRange::new(start, end))
        });
    let bytes = range.ok_or_else(|| odd("a view of a storage is not inside it"))?;
    Ok((
        key(builder, target)?,
        Node::Storage(Box::new(BareStorage { bytes, ..root })),
    ))
}

fn bare(builder: &Builder<'_>, objects: &Objects, key: i64) -> Result<BareStorage> {
    match objects.0.get(&key).map(|id| &builder.tree[*id]) {
        Some(Node::Storage(bare)) => Ok((**bare).clone()),
        _ => Err(odd("a key is of no storage")),
    }
}

fn read_tensors(
    builder: &mut Builder<'_>,
    stream: &mut Stream<'_>,
    objects: &mut Objects,
) -> Result<()> {
    for _ in 0..count(builder, stream)? {
        let [id, storage, _class] = parts(builder, stream)?;
        let id = key(builder, id)?;
        let bare = bare(builder, objects, key(builder, storage)?)?;
        let start = stream.position();
        let view = read_layout(stream, &bare)
            .map_err(|error| error.with_bytes(ByteRange::new(start, stream.position())))?;
        let node = builder.push(Node::Tensor(Box::new(Tensor::new(view))))?;
        objects.0.insert(id, node);
    }
    Ok(())
}

/// A tensor's sizes, strides and offset.
fn read_layout(stream: &mut Stream<'_>, bare: &BareStorage) -> Result<View> {
    let n_dimensions = u32::from_le_bytes(stream.array()?);
    stream.skip(4)?;
    if n_dimensions > 64 {
        return Err(odd("a tensor has more than 64 dimensions"));
    }
    let mut numbers = Vec::new();
    for _ in 0..2 * n_dimensions + 1 {
        numbers.push(u64::from_le_bytes(stream.array()?));
    }
    let offset = numbers.pop().unwrap_or(0);
    let strides = numbers.split_off(n_dimensions as usize);
    let element = bare.element.unwrap_or(Element::Uint8);
    let first = offset.checked_add(bare.bytes.start / element.width_bytes());
    let first = first.ok_or_else(|| odd("the offset of a tensor passes 2^64"))?;
    View::new(
        (bare.storage, bare.bytes.end),
        element,
        first,
        numbers,
        strides,
    )
}

fn odd(message: &'static str) -> Error {
    Error::new(ErrorKind::ForeignFormat, message)
}
