//! The values of a file, as an arena: what is the same object in the file is the same node.

use std::ops::Index;

use tensorhold_core::ByteRange;

use crate::element::Element;
use crate::finding::GlobalId;
use crate::storage::{StorageId, View};

/// The number of a node in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// Text of a file: as UTF-8, but that it may have lone surrogates, each as three bytes, as Python's may.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Box<[u8]>);

impl Text {
    /// The text of bytes that may have lone surrogates; `None` if they are not that.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Text> {
        is_generalized_utf8(&bytes).then(|| Text(bytes.into()))
    }

    /// The text, if it has no lone surrogates.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text, with `\u{fffd}` for each byte of a lone surrogate.
    #[must_use]
    pub fn to_string_lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The bytes: UTF-8, and three bytes for each lone surrogate.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.as_bytes().into())
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_string_lossy())
    }
}

/// Whether bytes are UTF-8 but for surrogates, which are taken as other characters are.
fn is_generalized_utf8(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Err(error) = std::str::from_utf8(rest) {
        let after = &rest[error.valid_up_to()..];
        let [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] = after else {
            return false;
        };
        rest = &after[3..];
    }
    true
}

/// Bytes as a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A few, kept here.
    Memory(Vec<u8>),
    /// Many: this whole storage.
    Storage(StorageId),
}

/// One value of a file. Children are named by their numbers: a value that occurs twice is one node, and a value
/// may contain itself.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "each is what its name says in Python, PyTorch or NumPy"
)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits: two's complement, least byte first.
    BigInt(Vec<u8>),
    Float(f64),
    Complex(f64, f64),
    Str(Text),
    Bytes(Data),
    ByteArray(Data),
    List(Vec<NodeId>),
    Tuple(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    OrderedDict {
        pairs: Vec<(NodeId, NodeId)>,
        /// Its `__dict__`: a dict.
        attributes: Option<NodeId>,
    },
    Counter(Vec<(NodeId, NodeId)>),
    DefaultDict {
        /// What makes values: a builtin type, or none.
        factory: Option<Factory>,
        pairs: Vec<(NodeId, NodeId)>,
    },
    Set(Vec<NodeId>),
    FrozenSet(Vec<NodeId>),
    Slice([NodeId; 3]),
    Range([NodeId; 3]),
    Ellipsis,
    Size(Vec<u64>),
    /// A `torch.dtype`.
    Dtype(Element),
    /// A `torch.device`, such as `cuda:0`.
    Device(String),
    /// A `torch.layout`, such as `strided`.
    Layout(&'static str),
    /// A `torch.memory_format`, such as `channels_last`.
    MemoryFormat(&'static str),
    /// A `torch.qscheme`, such as `per_tensor_affine`.
    Qscheme(&'static str),
    Storage(Box<BareStorage>),
    Tensor(Box<Tensor>),
    Meta(Box<Meta>),
    Sparse(Box<Sparse>),
    Quantized(Box<Quantized>),
    Nested(Box<Nested>),
    Ndarray(Box<Ndarray>),
    /// A NumPy scalar: NumPy's name of its type, such as `float32`, and a bool, int, float or complex node.
    Scalar(&'static str, NodeId),
    /// A `numpy.dtype`, as its `str`: `<f4`.
    NpDtype(String),
    Object(Box<Object>),
    Opaque(Box<Opaque>),
    /// A class or function that stands there as a value.
    Global(GlobalId),
}

/// The builtin types that a `defaultdict` makes values with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is a type of Python's")]
pub enum Factory {
    List,
    Dict,
    Int,
    Float,
    Set,
    Str,
    Tuple,
}

impl Factory {
    /// Python's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Factory::List => "list",
            Factory::Dict => "dict",
            Factory::Int => "int",
            Factory::Float => "float",
            Factory::Set => "set",
            Factory::Str => "str",
            Factory::Tuple => "tuple",
        }
    }
}

/// A storage of PyTorch's that stands for itself, not for a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BareStorage {
    /// Which storage.
    pub storage: StorageId,
    /// The type of its elements; `None` for a `torch.UntypedStorage`.
    pub element: Option<Element>,
    /// Its bytes in the storage.
    pub bytes: ByteRange,
}

/// A dense tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Which bytes are its elements.
    pub view: View,
    /// Whether it is a `torch.nn.Parameter`.
    pub is_parameter: bool,
    /// Whether it is a `torch.nn.Buffer`.
    pub is_buffer: bool,
    /// Whether gradients are kept for it.
    pub requires_grad: bool,
    /// Its values are the conjugates of what the bytes say.
    pub is_conj: bool,
    /// Its values are the negatives of what the bytes say.
    pub is_neg: bool,
    /// Its Python attributes: a dict.
    pub attributes: Option<NodeId>,
}

impl Tensor {
    /// A plain tensor.
    #[must_use]
    pub fn new(view: View) -> Tensor {
        Tensor {
            view,
            is_parameter: false,
            is_buffer: false,
            requires_grad: false,
            is_conj: false,
            is_neg: false,
            attributes: None,
        }
    }
}

/// A tensor on the meta device: a shape, and no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in `Tensor`")]
pub struct Meta {
    pub element: Element,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
    pub is_parameter: bool,
    pub is_buffer: bool,
    pub requires_grad: bool,
    pub attributes: Option<NodeId>,
}

/// How a sparse tensor's places are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in PyTorch")]
pub enum SparseLayout {
    Coo { indices: NodeId, is_coalesced: bool },
    Csr { compressed: NodeId, plain: NodeId },
    Csc { compressed: NodeId, plain: NodeId },
    Bsr { compressed: NodeId, plain: NodeId },
    Bsc { compressed: NodeId, plain: NodeId },
}

/// A sparse tensor; its parts are tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in `Tensor`")]
pub struct Sparse {
    pub layout: SparseLayout,
    pub values: NodeId,
    pub shape: Vec<u64>,
    pub is_parameter: bool,
    pub requires_grad: bool,
}

/// How a quantized tensor's integers become numbers.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as in PyTorch")]
pub enum Scheme {
    /// `per_tensor_affine` or `per_tensor_symmetric`.
    PerTensor {
        name: &'static str,
        scale: f64,
        zero_point: i64,
    },
    /// `per_channel_affine`, `per_channel_symmetric` or `per_channel_affine_float_qparams`; tensors.
    PerChannel {
        name: &'static str,
        scales: NodeId,
        zero_points: NodeId,
        axis: i64,
    },
}

/// A quantized tensor.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "as in `Tensor`")]
pub struct Quantized {
    /// The integers; the element is `quint8`, `qint8`, `qint32`, `quint4x2` or `quint2x4`.
    pub ints: View,
    /// The shape; `ints` has another where several elements share a byte, and is then a row of bytes.
    pub shape: Vec<u64>,
    /// The strides, in elements.
    pub strides: Vec<u64>,
    pub scheme: Scheme,
    pub is_parameter: bool,
    pub requires_grad: bool,
}

/// A nested tensor of the strided layout; its parts are tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in PyTorch")]
pub struct Nested {
    pub values: NodeId,
    pub sizes: NodeId,
    pub strides: NodeId,
    pub offsets: NodeId,
}

/// A NumPy array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ndarray {
    /// Which bytes are its elements. Storages say which bytes are to be turned around.
    pub view: View,
    /// NumPy's `str` of the type, such as `>f4`.
    pub dtype: String,
    /// Whether the first dimension is the fastest; the strides of the view say so too.
    pub is_fortran: bool,
}

/// An object of a class whose state is understood: a pickled `torch.nn.Module`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The class.
    pub class: GlobalId,
    /// Its `__dict__`: a dict.
    pub state: NodeId,
}

/// An object of a class, or the result of a function, that is on no list: its name and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque {
    /// The class or function; `None` where something was called that is no name.
    pub global: Option<GlobalId>,
    /// What was called, where that is no name.
    pub callee: Option<NodeId>,
    /// What it was called with: a tuple.
    pub args: Option<NodeId>,
    /// What it was called with by name: a dict.
    pub kwargs: Option<NodeId>,
    /// The state that it was given, the last one.
    pub state: Option<NodeId>,
    /// What was appended or added to it.
    pub items: Vec<NodeId>,
    /// What was set in it by key.
    pub pairs: Vec<(NodeId, NodeId)>,
}

/// The values of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    nodes: Vec<Node>,
    root: NodeId,
}

impl Tree {
    /// A tree that has only the value `None`.
    #[must_use]
    pub fn new() -> Tree {
        Tree {
            nodes: vec![Node::None],
            root: NodeId(0),
        }
    }

    /// Adds a value, and gives its number.
    ///
    /// # Panics
    /// At 2^32 nodes; [`crate::Limits::nodes`] ends every reader long before.
    pub fn push(&mut self, node: Node) -> NodeId {
        let id = u32::try_from(self.nodes.len()).expect("the limit of nodes is below 2^32");
        self.nodes.push(node);
        NodeId(id)
    }

    /// Puts another value in a node's place.
    ///
    /// # Panics
    /// If the tree has no such node.
    pub fn replace(&mut self, id: NodeId, node: Node) -> Node {
        std::mem::replace(&mut self.nodes[id.0 as usize], node)
    }

    /// The node, to change it.
    ///
    /// # Panics
    /// If the tree has no such node.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// The file's outermost value.
    #[must_use]
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// Makes a node the outermost one.
    pub fn set_root(&mut self, root: NodeId) {
        self.root = root;
    }

    /// How many nodes there are, those that nothing leads to included.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.nodes.len()
    }
}

impl Tree {
    /// The pairs of a dict of any kind; `None` for other values.
    #[must_use]
    pub fn pairs(&self, id: NodeId) -> Option<&[(NodeId, NodeId)]> {
        match &self[id] {
            Node::Dict(pairs)
            | Node::Counter(pairs)
            | Node::OrderedDict { pairs, .. }
            | Node::DefaultDict { pairs, .. } => Some(pairs),
            _ => None,
        }
    }

    /// The value of a key that is a text; the last one, where there are several.
    #[must_use]
    pub fn entry(&self, id: NodeId, key: &str) -> Option<NodeId> {
        let is_key = |pair: &&(NodeId, NodeId)| self.text(pair.0) == Some(key);
        self.pairs(id)?.iter().rev().find(is_key).map(|pair| pair.1)
    }

    /// The items of a list or tuple; `None` for other values.
    #[must_use]
    pub fn items(&self, id: NodeId) -> Option<&[NodeId]> {
        match &self[id] {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The text that a node is; `None` for other values, and for text with lone surrogates.
    #[must_use]
    pub fn text(&self, id: NodeId) -> Option<&str> {
        match &self[id] {
            Node::Str(text) => text.as_str(),
            _ => None,
        }
    }

    /// The integer that a node is; `None` for other values, and past 64 bits.
    #[must_use]
    pub fn integer(&self, id: NodeId) -> Option<i64> {
        match self[id] {
            Node::Int(number) => Some(number),
            _ => None,
        }
    }
}

impl Node {
    /// What it is, in words: `a dict`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Node::None => "None",
            Node::Bool(_) => "a bool",
            Node::Int(_) | Node::BigInt(_) => "an integer",
            Node::Float(_) => "a float",
            Node::Complex(..) => "a complex number",
            Node::Str(_) => "a text",
            Node::Bytes(_) | Node::ByteArray(_) => "bytes",
            Node::List(_) => "a list",
            Node::Tuple(_) => "a tuple",
            Node::Dict(_) | Node::Counter(_) | Node::DefaultDict { .. } => "a dict",
            Node::OrderedDict { .. } => "an ordered dict",
            Node::Set(_) | Node::FrozenSet(_) => "a set",
            Node::Slice(_) => "a slice",
            Node::Range(_) => "a range",
            Node::Ellipsis => "an ellipsis",
            Node::Size(_) => "a size",
            Node::Dtype(_) | Node::NpDtype(_) => "an element type",
            Node::Device(_) => "a device",
            Node::Layout(_) => "a layout",
            Node::MemoryFormat(_) => "a memory format",
            Node::Qscheme(_) => "a quantization scheme",
            Node::Storage(_) => "a storage",
            Node::Tensor(_) | Node::Meta(_) => "a tensor",
            Node::Sparse(_) => "a sparse tensor",
            Node::Quantized(_) => "a quantized tensor",
            Node::Nested(_) => "a nested tensor",
            Node::Ndarray(_) => "an array",
            Node::Scalar(..) => "a scalar",
            Node::Object(_) | Node::Opaque(_) => "an object",
            Node::Global(_) => "a class or function",
        }
    }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Index<NodeId> for Tree {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_takes_little_memory() {
        assert!(size_of::<Node>() <= 40, "{}", size_of::<Node>());
    }
}
