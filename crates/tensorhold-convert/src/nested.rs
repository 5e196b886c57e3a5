//! Pickles inside the values of other pickles: looked for, and their names told.

use std::collections::HashSet;

use tensorhold_core::{ByteRange, Result, Source};

use crate::builder::Builder;
use crate::container::{Names, Zip};
use crate::finding::{Class, Finding, FindingKind};
use crate::npy;
use crate::pickle::opcodes::Operation;
use crate::pickle::{Machine, NoPersistent, Stream};
use crate::storage::Place;
use crate::tree::{Data, Node, NodeId};
use crate::walk::Ways;

/// Values that are looked into.
const MOST_VALUES: usize = 10_000;

/// Bytes of one value beyond which it is not looked into.
const MOST_BYTES: u64 = 64 << 20;

/// How deep pickles inside pickles are followed.
pub(crate) const MOST_DEPTH: u32 = 4;

/// Tells the names that pickles in values of bytes ask for.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn scan(builder: &mut Builder<'_>, ways: &Ways) -> Result<()> {
    let mut seen = HashSet::new();
    let mut is_new = |id: &&NodeId| match builder.tree[**id] {
        Node::Bytes(Data::Storage(storage)) | Node::ByteArray(Data::Storage(storage)) => {
            seen.insert(storage)
        }
        Node::Bytes(_) | Node::ByteArray(_) => true,
        _ => false,
    };
    let found = ways.reached.iter().filter(&mut is_new);
    let found: Vec<NodeId> = found.take(MOST_VALUES).copied().collect();
    for id in found {
        let Some(bytes) = bytes_of(builder, id)? else {
            continue;
        };
        let path = ways.path(&builder.tree, id).unwrap_or_default();
        look_into(builder, &bytes, &path, MOST_DEPTH)?;
    }
    Ok(())
}

/// Tells the names that pickles in values of bytes ask for, also in values that nothing leads to.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn scan_all(builder: &mut Builder<'_>) -> Result<()> {
    let nodes = (0..builder.tree.n_nodes()).map(|id| NodeId(id as u32));
    let is_bytes = |id: &NodeId| matches!(builder.tree[*id], Node::Bytes(Data::Memory(_)));
    let found: Vec<NodeId> = nodes.filter(is_bytes).take(MOST_VALUES).collect();
    for id in found {
        if let Some(bytes) = bytes_of(builder, id)? {
            look_into(builder, &bytes, "a value", MOST_DEPTH)?;
        }
    }
    Ok(())
}

/// Tells the names that the pickles of an archive ask for, and those in its arrays of objects; what is no archive is passed
/// over.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn look_into_archive(
    builder: &mut Builder<'_>,
    source: &dyn Source,
    path: &str,
    depth: u32,
) -> Result<()> {
    let Ok(zip) = Zip::open_named(source, builder.limits, Names::Keys) else {
        return Ok(());
    };
    for entry in zip.entries().iter().take(MOST_VALUES) {
        let is_told = [".npy", ".pkl"]
            .iter()
            .any(|ending| entry.name.ends_with(ending));
        if entry.size_bytes > MOST_BYTES || !is_told {
            continue;
        }
        let Ok(bytes) = entry.bytes(source, builder.limits) else {
            continue;
        };
        let start = usize::try_from(npy::data_start(&bytes)).unwrap_or(0);
        let pickle = bytes.get(start..).unwrap_or_default();
        look_into(builder, pickle, &format!("{path}({})", entry.name), depth)?;
    }
    Ok(())
}

/// The bytes of a value, if they may be a pickle.
fn bytes_of(builder: &mut Builder<'_>, id: NodeId) -> Result<Option<Vec<u8>>> {
    let (Node::Bytes(data) | Node::ByteArray(data)) = &builder.tree[id] else {
        return Ok(None);
    };
    let bytes = match data {
        Data::Memory(bytes) => bytes.clone(),
        Data::Storage(storage) => {
            let storage = &builder.storages[storage.0 as usize];
            if storage.size_bytes > MOST_BYTES {
                return Ok(None);
            }
            match &storage.place {
                Place::Memory(bytes) => bytes.clone(),
                Place::InFile(range) => {
                    let mut bytes = vec![0; usize::try_from(range.len()).unwrap_or(0)];
                    builder.source.read_at(range.start, &mut bytes)?;
                    bytes
                }
                _ => return Ok(None),
            }
        }
    };
    Ok(may_be_pickle(&bytes).then_some(bytes))
}

fn may_be_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 0..=5, ..] | [b'P', b'K', 3, 4, ..])
        || bytes.trim_ascii_end().ends_with(b".")
}

/// Tells the names of a pickle in bytes, and of those in its own values; bytes that are no pickle are passed over.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn look_into(
    builder: &mut Builder<'_>,
    bytes: &[u8],
    path: &str,
    depth: u32,
) -> Result<()> {
    if depth > 0 && bytes.starts_with(b"PK\x03\x04") {
        return look_into_archive(builder, &bytes, path, depth - 1);
    }
    if depth == 0 || !asks_for_names(builder, &bytes)? {
        return Ok(());
    }
    let outer = builder.pickle.replace(path.to_owned());
    let n_before = builder.globals.len();
    let n_nodes = builder.tree.n_nodes();
    let range = ByteRange::new(0, bytes.len() as u64);
    let mut stream = Stream::new(&bytes, range)?;
    // What it does wrong is no matter: the names that it has asked for until then are told.
    let outcome = Machine::new(builder, &mut NoPersistent, None).run(&mut stream);
    let worst = builder.globals[n_before..]
        .iter()
        .map(|global| global.class)
        .max();
    let worst = worst.unwrap_or(Class::Harmless);
    let state = if outcome.is_ok() { "whole" } else { "broken" };
    let message = format!("{} bytes of a value are a {state} pickle", bytes.len());
    builder.note(Finding::new(FindingKind::NestedPickle, worst, message).with_path(path));
    look_deeper(builder, n_nodes, path, depth - 1)?;
    builder.pickle = outer;
    Ok(())
}

/// Tells the names of pickles in the values that were made since there were `n_nodes`.
fn look_deeper(builder: &mut Builder<'_>, n_nodes: usize, path: &str, depth: u32) -> Result<()> {
    let made = (n_nodes..builder.tree.n_nodes()).map(|id| NodeId(id as u32));
    let is_bytes = |id: &NodeId| matches!(builder.tree[*id], Node::Bytes(Data::Memory(_)));
    let inner: Vec<NodeId> = made.filter(is_bytes).take(MOST_VALUES).collect();
    for id in inner {
        if let Some(bytes) = bytes_of(builder, id)? {
            look_into(builder, &bytes, &format!("{path}(pickle)"), depth)?;
        }
    }
    Ok(())
}

/// Whether bytes are operations that ask for a name before they stop, or before they go wrong after a beginning that
/// only pickles have.
fn asks_for_names(builder: &mut Builder<'_>, bytes: &&[u8]) -> Result<bool> {
    let is_marked = matches!(bytes, [0x80, 0..=5, ..]);
    let mut stream = Stream::new(bytes, ByteRange::new(0, bytes.size_bytes()))?;
    let mut asks = false;
    loop {
        builder.charge_operation()?;
        match Operation::read(&mut stream, builder.limits) {
            Ok(operation) if operation.code == b'.' => return Ok(asks),
            Ok(operation) => asks |= matches!(operation.code, b'c' | b'i' | 0x93 | 0x82..=0x84),
            Err(_) => return Ok(asks && is_marked),
        }
    }
}
