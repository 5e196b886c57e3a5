//! Large arrays, which Flax writes as a map of their shape and of flat chunks.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use crate::element::Element;
use crate::storage::{Place, Storage, View};
use crate::table::Table;
use crate::tree::{Node, NodeId, Tensor};

const MARK: &str = "__msgpack_chunked_array__";

/// Puts an array in the place of each map of chunks that `root` leads to.
pub(super) fn join(table: &mut Table, root: NodeId) -> Result<()> {
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        match &table.tree[id] {
            Node::List(items) => waiting.extend(items),
            Node::Dict(pairs) if find(table, pairs, MARK).is_none() => {
                waiting.extend(pairs.iter().map(|pair| pair.1));
            }
            Node::Dict(pairs) => {
                let array = Chunked::of(table, pairs).ok_or_else(broken)?;
                let array = array.tensor(table)?;
                table.tree.replace(id, array);
            }
            _ => {}
        }
    }
    Ok(())
}

fn broken() -> Error {
    Error::new(
        ErrorKind::ForeignFormat,
        "flax: the chunks of an array do not make an array of its shape",
    )
}

struct Chunked {
    element: Element,
    shape: Vec<u64>,
    pieces: Vec<ByteRange>,
}

impl Chunked {
    /// The array that a map has the chunks of; `None` where it has not.
    fn of(table: &Table, pairs: &[(NodeId, NodeId)]) -> Option<Chunked> {
        let shape = numbered(table, find(table, pairs, "shape")?)?;
        let shape: Option<Vec<u64>> = shape
            .into_iter()
            .map(|extent| match table.tree[extent] {
                Node::Int(extent) => u64::try_from(extent).ok(),
                _ => None,
            })
            .collect();
        let mut chunked = Chunked {
            element: Element::Uint8,
            shape: shape?,
            pieces: Vec::new(),
        };
        for chunk in numbered(table, find(table, pairs, "chunks")?)? {
            let Node::Tensor(chunk) = &table.tree[chunk] else {
                return None;
            };
            let element = chunk.view.element();
            let is_same = chunked.pieces.is_empty() || chunked.element == element;
            if !is_same || chunk.view.shape().len() != 1 {
                return None;
            }
            chunked.element = element;
            match table.storage(chunk.view.storage()).place {
                Place::InFile(piece) => chunked.pieces.push(piece),
                _ => return None,
            }
        }
        Some(chunked)
    }

    fn tensor(self, table: &mut Table) -> Result<Node> {
        let size = self.pieces.iter().map(|piece| piece.len()).sum();
        let mut extents = self.shape.iter();
        let expected = extents.try_fold(self.element.width_bytes(), |size, extent| {
            size.checked_mul(*extent)
        });
        if expected != Some(size) {
            return Err(broken());
        }
        let start = self.pieces.first().map_or(0, |piece| piece.start);
        let name = format!("array at {start}");
        let storage = table.add_storage(Storage::new(name, Place::Pieces(self.pieces), size));
        let view = View::contiguous(storage, self.element, 0, self.shape)?;
        Ok(Node::Tensor(Box::new(Tensor::new(view))))
    }
}

/// The value of a key that is text.
fn find(table: &Table, pairs: &[(NodeId, NodeId)], wanted: &str) -> Option<NodeId> {
    let is_wanted = |key: NodeId| match &table.tree[key] {
        Node::Str(key) => key.as_str() == Some(wanted),
        _ => false,
    };
    let found = pairs.iter().find(|(key, _)| is_wanted(*key));
    found.map(|(_, value)| *value)
}

/// The values of a map whose keys are "0", "1", and so on.
fn numbered(table: &Table, id: NodeId) -> Option<Vec<NodeId>> {
    let Node::Dict(pairs) = &table.tree[id] else {
        return None;
    };
    let mut values = vec![None; pairs.len()];
    for (key, value) in pairs {
        let Node::Str(key) = &table.tree[*key] else {
            return None;
        };
        let number: usize = key.as_str()?.parse().ok()?;
        *values.get_mut(number)? = Some(*value);
    }
    values.into_iter().collect()
}
