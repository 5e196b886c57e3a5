//! What a tensor of bytes says of the blocks that it holds.

use super::Kind;
use crate::tree::{Node, NodeId, Tensor, Tree};

const KIND: &str = "ggml_type";
const SHAPE: &str = "shape";
const BLOCK_ELEMENTS: &str = "block_elements";
const BLOCK_BYTES: &str = "block_bytes";
const BIG_ENDIAN: &str = "big_endian";

/// The blocks of a quantized tensor, which a tree keeps as a tensor of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// The type of the blocks.
    pub kind: Kind,
    /// The shape of the numbers; the last dimension is the fastest, and whole blocks.
    pub shape: Vec<u64>,
    /// Whether the numbers in the blocks are big-endian.
    pub is_big_endian: bool,
}

impl Blocks {
    /// What the attributes of `tensor`, a tensor of a GGUF file, say of its bytes; `None` if they are numbers.
    #[must_use]
    pub fn of(tree: &Tree, tensor: &Tensor) -> Option<Blocks> {
        let Node::Dict(pairs) = &tree[tensor.attributes?] else {
            return None;
        };
        let attribute = |name: &str| {
            let is_it =
                |key: NodeId| matches!(&tree[key], Node::Str(text) if text.as_str() == Some(name));
            let found = pairs.iter().find(|(key, _)| is_it(*key));
            found.map(|(_, value)| &tree[*value])
        };
        let Node::Str(kind) = attribute(KIND)? else {
            return None;
        };
        let Node::Size(shape) = attribute(SHAPE)? else {
            return None;
        };
        Some(Blocks {
            kind: Kind::from_name(kind.as_str()?)?,
            shape: shape.clone(),
            is_big_endian: attribute(BIG_ENDIAN).is_some(),
        })
    }
}

/// Attributes from which [`Blocks::of`] makes the description.
pub(super) fn describe(kind: Kind, shape: &[u64], is_big_endian: bool, tree: &mut Tree) -> NodeId {
    let mut pairs = Vec::new();
    let mut add = |name: &str, node: Node| {
        let key = tree.push(Node::Str(name.into()));
        pairs.push((key, tree.push(node)));
    };
    add(KIND, Node::Str(kind.name().into()));
    add(SHAPE, Node::Size(shape.to_vec()));
    add(BLOCK_ELEMENTS, Node::Int(kind.block_elements() as i64));
    add(BLOCK_BYTES, Node::Int(kind.block_bytes() as i64));
    if is_big_endian {
        add(BIG_ENDIAN, Node::Bool(true));
    }
    tree.push(Node::Dict(pairs))
}
