//! The keys and values before the tensors.

use std::collections::HashSet;

use tensorhold_core::{ByteRange, Result};

use super::{Reader, overflow, wrong};
use crate::container::short;
use crate::table::Table;
use crate::tree::{Data, Node, NodeId};

const DEFAULT_ALIGNMENT: u64 = 32;
/// Arrays of arrays: ggml itself reads none.
const DEEPEST: u32 = 8;

pub(super) struct Metadata {
    pub pairs: Vec<(NodeId, NodeId)>,
    /// The bytes that tensors are aligned to.
    pub alignment: u64,
    /// In how many files the model lies.
    pub n_parts: u64,
}

/// The `n_keys` pairs where `reader` stands.
pub(super) fn read(reader: &mut Reader<'_>, n_keys: u64, table: &mut Table) -> Result<Metadata> {
    reader.check_room(n_keys, 9, "keys")?;
    let mut metadata = Metadata {
        pairs: Vec::new(),
        alignment: DEFAULT_ALIGNMENT,
        n_parts: 1,
    };
    let mut names = HashSet::new();
    for _ in 0..n_keys {
        let start = reader.cursor.position();
        let key = reader.name()?;
        let kind = reader.u32()?;
        let value = value(reader, kind, table, DEEPEST)?;
        let here = ByteRange::new(start, reader.cursor.position());
        match (key.as_str(), &table.tree[value]) {
            ("general.alignment", Node::Int(alignment)) if kind == 4 => {
                metadata.alignment = alignment_of(*alignment, here)?;
            }
            ("general.alignment", _) => {
                return Err(wrong("the alignment is no number of 32 bits", here));
            }
            ("split.count", Node::Int(count)) => {
                metadata.n_parts = u64::try_from(*count).unwrap_or(1)
            }
            _ => {}
        }
        metadata
            .pairs
            .push((table.tree.push(Node::Str(key.as_str().into())), value));
        if !names.insert(key.clone()) {
            return Err(wrong(format!("the key {} stands twice", short(&key)), here));
        }
    }
    Ok(metadata)
}

fn alignment_of(alignment: i64, here: ByteRange) -> Result<u64> {
    let alignment = u64::try_from(alignment)
        .ok()
        .filter(|alignment| alignment.is_power_of_two());
    alignment.ok_or_else(|| wrong("the alignment is no power of two", here))
}

/// A value of the type `kind`. Numbers keep their value, not their width.
fn value(reader: &mut Reader<'_>, kind: u32, table: &mut Table, depth: u32) -> Result<NodeId> {
    let node = match kind {
        0 => Node::Int(i64::from(reader.number::<1>()?[0])),
        1 => Node::Int(i64::from(i8::from_le_bytes(reader.number()?))),
        2 => Node::Int(i64::from(u16::from_le_bytes(reader.number()?))),
        3 => Node::Int(i64::from(i16::from_le_bytes(reader.number()?))),
        4 => Node::Int(i64::from(reader.u32()?)),
        5 => Node::Int(i64::from(i32::from_le_bytes(reader.number()?))),
        6 => Node::Float(f64::from(f32::from_le_bytes(reader.number()?))),
        7 => truth(reader)?,
        8 => text(reader)?,
        9 => array(reader, table, depth)?,
        10 => unsigned(reader.u64()?),
        11 => Node::Int(i64::from_le_bytes(reader.number()?)),
        12 => Node::Float(f64::from_le_bytes(reader.number()?)),
        _ => {
            let here = reader.cursor.position();
            let here = ByteRange::new(here - 4, here);
            return Err(wrong(
                format!("a value is of the unknown type {kind}"),
                here,
            ));
        }
    };
    if table.tree.n_nodes() as u64 >= reader.limits.nodes {
        return Err(overflow(
            "the number of its values, of which the limit allows fewer,",
        ));
    }
    Ok(table.tree.push(node))
}

fn truth(reader: &mut Reader<'_>) -> Result<Node> {
    let [byte] = reader.number()?;
    match byte {
        0 | 1 => Ok(Node::Bool(byte == 1)),
        _ => {
            let end = reader.cursor.position();
            Err(wrong(
                format!("a truth value is {byte}"),
                ByteRange::new(end - 1, end),
            ))
        }
    }
}

/// Text; bytes where it is not UTF-8, as tokens of some vocabularies are not.
fn text(reader: &mut Reader<'_>) -> Result<Node> {
    Ok(match String::from_utf8(reader.text()?) {
        Ok(text) => Node::Str(text.as_str().into()),
        Err(error) => Node::Bytes(Data::Memory(error.into_bytes())),
    })
}

fn unsigned(number: u64) -> Node {
    match i64::try_from(number) {
        Ok(number) => Node::Int(number),
        Err(_) => Node::BigInt([&number.to_le_bytes()[..], &[0]].concat()),
    }
}

fn array(reader: &mut Reader<'_>, table: &mut Table, depth: u32) -> Result<Node> {
    let start = reader.cursor.position();
    let kind = reader.u32()?;
    let n_items = reader.count()?;
    let here = ByteRange::new(start, reader.cursor.position());
    if depth == 0 {
        return Err(wrong("arrays lie in arrays too deeply", here));
    }
    let least_bytes = match kind {
        2 | 3 => 2,
        4..=6 | 8 => 4,
        9 => 8,
        10..=12 => 8,
        _ => 1,
    };
    reader.check_room(n_items, least_bytes, "items of an array")?;
    if n_items > reader.limits.nodes {
        return Err(wrong(
            format!("an array of {n_items} items is over the limit"),
            here,
        ));
    }
    let mut items = Vec::new();
    for _ in 0..n_items {
        items.push(value(reader, kind, table, depth - 1)?);
    }
    Ok(Node::List(items))
}
