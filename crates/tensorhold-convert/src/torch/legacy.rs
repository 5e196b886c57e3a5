//! What `torch.save` wrote from 0.1.10 to 1.5, and what storages still are in plain pickles: five pickles one after
//! another, and the bytes of the storages after them.
//!
//! # Source
//! `torch.serialization._legacy_save` of PyTorch 2.15.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use super::storages::Storages;
use crate::builder::Builder;
use crate::element::Element;
use crate::finding::{Class, Finding, FindingKind};
use crate::limits::Limits;
use crate::pickle::{Machine, NoPersistent, Refusal, Stream};
use crate::storage::{Place, StorageId};
use crate::tree::{Node, NodeId};

/// The number that every such stream begins with, as a pickle of its own: least byte first.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The version that is in every one.
const VERSION: i64 = 1001;

/// How deep such streams may lie inside each other.
const MOST_DEPTH: u32 = 8;

/// Whether a file with these first bytes is such a stream.
pub(crate) fn begins(head: &[u8]) -> bool {
    let limits = Limits::default();
    let mut builder = Builder::new(&head, &limits);
    let range = ByteRange::new(0, head.len() as u64);
    let first = Stream::new(&head, range).and_then(|mut stream| {
        Machine::new(&mut builder, &mut NoPersistent, None).run(&mut stream)
    });
    first.is_ok_and(|first| builder.tree[first] == Node::BigInt(MAGIC.to_vec()))
}

/// The value of a stream in `range` of a source; `in_file` is what to add to its positions to have the file's.
///
/// # Errors
/// `ForeignFormat` if it is not as it should be, `Truncated` if it ends early, `Overflow` past a limit.
pub(crate) fn read(
    builder: &mut Builder<'_>,
    source: &dyn Source,
    range: ByteRange,
    in_file: Option<u64>,
) -> Result<NodeId> {
    let mut stream = Stream::new(source, range)?;
    let plain = |builder: &mut Builder<'_>, stream: &mut Stream<'_>| {
        Machine::new(builder, &mut NoPersistent, in_file).run(stream)
    };
    let magic = plain(builder, &mut stream)?;
    if builder.tree[magic] != Node::BigInt(MAGIC.to_vec()) {
        return Err(odd("a stream of PyTorch does not begin with its number"));
    }
    let version = plain(builder, &mut stream)?;
    if builder.tree[version] != Node::Int(VERSION) {
        return Err(odd("a stream of PyTorch has another version than 1001"));
    }
    plain(builder, &mut stream)?;
    let mut storages = Storages {
        is_legacy: true,
        ..Storages::default()
    };
    let root = Machine::new(builder, &mut storages, in_file).run(&mut stream)?;
    let keys = plain(builder, &mut stream)?;
    place_all(builder, &mut stream, &storages, keys, in_file)?;
    if stream.left() > 0 {
        let bytes = ByteRange::new(stream.position(), stream.position() + stream.left());
        let message = format!("{} bytes follow the last storage", stream.left());
        let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, message);
        builder.note(finding.with_bytes(bytes));
    }
    Ok(root)
}

/// Finds the places of the storages whose keys are in a list, in its order.
fn place_all(
    builder: &mut Builder<'_>,
    stream: &mut Stream<'_>,
    storages: &Storages,
    keys: NodeId,
    in_file: Option<u64>,
) -> Result<()> {
    let Some(keys) = builder.tree.items(keys).map(<[NodeId]>::to_vec) else {
        return Err(odd("the keys of storages are no list"));
    };
    for key in keys {
        let found = builder
            .tree
            .text(key)
            .and_then(|key| storages.by_key.get(key));
        let Some(&(id, element)) = found else {
            return Err(odd("a storage is there that nothing names"));
        };
        place(builder, stream, id, element, in_file)?;
    }
    Ok(())
}

/// Finds the place of the next storage of a stream.
fn place(
    builder: &mut Builder<'_>,
    stream: &mut Stream<'_>,
    id: StorageId,
    element: Option<Element>,
    in_file: Option<u64>,
) -> Result<()> {
    let start = stream.position();
    let count = u64::from_le_bytes(stream.array()?);
    let size = count.checked_mul(element.map_or(1, Element::width_bytes));
    let expected = builder.storages[id.0 as usize].size_bytes;
    if size != Some(expected) {
        let message = format!("a storage of {expected} bytes has {count} elements");
        return Err(Error::new(ErrorKind::ForeignFormat, message)
            .with_bytes(ByteRange::new(start, start + 8)));
    }
    let range = stream.skip(expected)?;
    let place = match in_file.and_then(|start| range.checked_add(start)) {
        Some(range) => Place::InFile(range),
        None => Place::Memory(stream.read(range)?),
    };
    builder.storages[id.0 as usize].place = place;
    Ok(())
}

/// `torch.storage._load_from_bytes(bytes)`: a stream whose value is a storage.
pub(crate) fn from_bytes(
    machine: &mut Machine<'_, '_>,
    list: &[NodeId],
) -> std::result::Result<NodeId, Refusal> {
    let builder = &mut *machine.builder;
    let &[bytes] = list else {
        return Err(Refusal::Lie("it loads what is no one value".into()));
    };
    if builder.depth >= MOST_DEPTH {
        return Err(Refusal::Lie(
            "it loads what loads more, again and again".into(),
        ));
    }
    builder.depth += 1;
    let read = match builder.storage_of_bytes(bytes)? {
        Some(storage) => read_storage(builder, storage),
        None => Err(odd("it loads what are no bytes")),
    };
    builder.depth -= 1;
    match read {
        Ok(id) if matches!(builder.tree[id], Node::Storage(_)) => Ok(id),
        Ok(_) => Err(Refusal::Lie("it loads what is no storage".into())),
        Err(error) if error.kind() == ErrorKind::Overflow => Err(error.into()),
        Err(error) => Err(Refusal::Lie(error.message().into())),
    }
}

fn read_storage(builder: &mut Builder<'_>, id: StorageId) -> Result<NodeId> {
    let storage = &mut builder.storages[id.0 as usize];
    match &mut storage.place {
        Place::InFile(range) => {
            let (range, source) = (*range, builder.source);
            read(builder, source, range, Some(0))
        }
        Place::Memory(bytes) => {
            let bytes = std::mem::take(bytes);
            builder.charge_bytes(bytes.len())?;
            let range = ByteRange::new(0, bytes.len() as u64);
            let read = read(builder, &bytes.as_slice(), range, None);
            builder.storages[id.0 as usize].place = Place::Memory(bytes);
            read
        }
        _ => Err(odd("its bytes are not in the file")),
    }
}

fn odd(message: &'static str) -> Error {
    Error::new(ErrorKind::ForeignFormat, message)
}
