//! Writes the text of a tree whose tensors have their places.

use std::collections::{HashMap, HashSet};

use tensorhold_core::{Error, ErrorKind, MAX_HEADER_BYTES, Result};

use super::json::{decimal, push_base64, push_float, push_numbers, push_str, push_text};
use super::{MAX_DEPTH, too_deep};
use crate::finding::GlobalId;
use crate::foreign::Foreign;
use crate::tree::{
    BareStorage, Data, Meta, Ndarray, Nested, Node, NodeId, Opaque, Quantized, Scheme, Sparse,
    SparseLayout, Tensor,
};

/// The JSON text of the tree under `root`.
pub(super) fn text(
    foreign: &Foreign,
    root: NodeId,
    n_seen: &HashMap<NodeId, u32>,
    members: &HashMap<NodeId, String>,
) -> Result<String> {
    let mut writer = Writer {
        foreign,
        n_seen,
        members,
        shared: Vec::new(),
        n_shared_bytes: 0,
        numbers: HashMap::new(),
        open: HashSet::new(),
        depth: 0,
    };
    let mut text = String::from("{\"version\":1,\"root\":");
    writer.node(&mut text, root)?;
    if !writer.shared.is_empty() {
        text.push_str(&format!(",\"shared\":[{}]", writer.shared.join(",")));
    }
    text.push('}');
    Ok(text)
}

pub(super) fn quantized_parts(
    quantized: &Quantized,
) -> impl Iterator<Item = (&'static str, NodeId)> + use<> {
    let parts = match quantized.scheme {
        Scheme::PerTensor { .. } => [None, None],
        Scheme::PerChannel {
            scales,
            zero_points,
            ..
        } => [Some(("scales", scales)), Some(("zero_points", zero_points))],
    };
    parts.into_iter().flatten()
}

pub(super) fn nested_parts(nested: &Nested) -> [(&'static str, NodeId); 4] {
    [
        ("values", nested.values),
        ("sizes", nested.sizes),
        ("strides", nested.strides),
        ("offsets", nested.offsets),
    ]
}

struct Writer<'a> {
    foreign: &'a Foreign,
    n_seen: &'a HashMap<NodeId, u32>,
    members: &'a HashMap<NodeId, String>,
    /// The values that occur more than once.
    shared: Vec<String>,
    n_shared_bytes: usize,
    numbers: HashMap<NodeId, usize>,
    /// The values that are being written.
    open: HashSet<NodeId>,
    depth: usize,
}

impl Writer<'_> {
    fn node(&mut self, out: &mut String, id: NodeId) -> Result<()> {
        if (out.len() + self.n_shared_bytes) as u64 > MAX_HEADER_BYTES {
            let message = format!("the text of the tree is over {MAX_HEADER_BYTES} bytes");
            return Err(Error::new(ErrorKind::Overflow, message));
        }
        if self.open.contains(&id) {
            out.push_str("{\"$opaque\":\"a value that contains itself\"}");
            return Ok(());
        }
        let is_shared =
            self.n_seen.get(&id).is_some_and(|&n| n > 1) && has_identity(&self.foreign.tree[id]);
        if !is_shared {
            return self.value(out, id);
        }
        let number = match self.numbers.get(&id) {
            Some(&number) => number,
            None => {
                let number = self.shared.len();
                self.shared.push(String::new());
                self.numbers.insert(id, number);
                let mut text = String::new();
                self.value(&mut text, id)?;
                self.n_shared_bytes += text.len();
                self.shared[number] = text;
                number
            }
        };
        out.push_str(&format!("{{\"$shared\":{number}}}"));
        Ok(())
    }

    fn value(&mut self, out: &mut String, id: NodeId) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(too_deep());
        }
        self.depth += 1;
        self.open.insert(id);
        let written = self.container(out, id);
        self.open.remove(&id);
        self.depth -= 1;
        written
    }

    fn container(&mut self, out: &mut String, id: NodeId) -> Result<()> {
        let foreign = self.foreign;
        if foreign.lacks_bytes_of(id) {
            out.push_str("{\"$opaque\":\"what the file lacks the bytes of\"}");
            return Ok(());
        }
        match &foreign.tree[id] {
            Node::List(items) => self.list(out, items),
            Node::Tuple(items) => self.tagged_list(out, "$tuple", items),
            Node::Set(items) => self.tagged_list(out, "$set", items),
            Node::FrozenSet(items) => self.tagged_list(out, "$frozenset", items),
            Node::Slice(items) => self.tagged_list(out, "$slice", items),
            Node::Range(items) => self.tagged_list(out, "$range", items),
            Node::Dict(pairs) => self.dict(out, pairs),
            Node::OrderedDict { pairs, attributes } => {
                out.push_str("{\"$ordered\":");
                self.dict(out, pairs)?;
                self.part(out, "attributes", *attributes)?;
                out.push('}');
                Ok(())
            }
            Node::Counter(pairs) => {
                out.push_str("{\"$counter\":");
                self.dict(out, pairs)?;
                out.push('}');
                Ok(())
            }
            Node::DefaultDict { factory, pairs } => {
                out.push_str("{\"$defaultdict\":");
                self.dict(out, pairs)?;
                let factory = factory.map(|factory| format!("\"{}\"", factory.name()));
                out.push_str(",\"factory\":");
                out.push_str(factory.as_deref().unwrap_or("null"));
                out.push('}');
                Ok(())
            }
            Node::Scalar(name, value) => {
                out.push_str(&format!("{{\"$scalar\":\"{name}\",\"value\":"));
                self.node(out, *value)?;
                out.push('}');
                Ok(())
            }
            Node::Object(object) => {
                self.opaque_name(out, object.class);
                self.part(out, "state", Some(object.state))?;
                out.push('}');
                Ok(())
            }
            Node::Opaque(opaque) => self.opaque(out, opaque),
            _ => self.tensor(out, id),
        }
    }

    fn tensor(&mut self, out: &mut String, id: NodeId) -> Result<()> {
        let foreign = self.foreign;
        match &foreign.tree[id] {
            Node::Tensor(tensor) => self.dense(out, id, tensor)?,
            Node::Meta(meta) => {
                push_meta(out, meta);
                self.part(out, "attributes", meta.attributes)?;
                out.push('}');
            }
            Node::Sparse(sparse) => self.sparse(out, sparse)?,
            Node::Quantized(quantized) => self.quantized(out, id, quantized)?,
            Node::Nested(nested) => {
                out.push_str("{\"$nested\":\"strided\"");
                for (name, part) in nested_parts(nested) {
                    self.part(out, name, Some(part))?;
                }
                out.push('}');
            }
            Node::Ndarray(array) => self.array(out, id, array),
            Node::Storage(bare) => {
                let BareStorage { element, .. } = **bare;
                let class = element.map_or("torch.UntypedStorage", |_| "torch.TypedStorage");
                out.push_str(&format!(
                    "{{\"$opaque\":\"{class}\",\"args\":[{{\"$tensor\":"
                ));
                out.push_str(&self.members[&id]);
                out.push_str("}]}");
            }
            leaf => self.leaf(out, id, leaf),
        }
        Ok(())
    }

    fn leaf(&self, out: &mut String, id: NodeId, node: &Node) {
        let mut tagged = |tag: &str, text: &str| {
            out.push_str(&format!("{{\"{tag}\":"));
            push_str(out, text);
            out.push('}');
        };
        match node {
            Node::BigInt(bytes) => tagged("$int", &decimal(bytes)),
            Node::Int(i64::MIN) => tagged("$int", &i64::MIN.to_string()),
            Node::Dtype(element) => tagged("$dtype", element.name()),
            Node::Device(name) => tagged("$device", name),
            Node::Layout(name) => tagged("$layout", name),
            Node::MemoryFormat(name) => tagged("$memory_format", name),
            Node::Qscheme(name) => tagged("$qscheme", name),
            Node::NpDtype(name) => tagged("$npdtype", name),
            Node::Global(global) => tagged("$opaque", &self.dotted(*global)),
            Node::Bool(value) => out.push_str(&value.to_string()),
            Node::Int(number) => out.push_str(&number.to_string()),
            Node::Float(number) => push_float(out, *number),
            Node::Str(text) => push_text(out, text),
            Node::Complex(real, imaginary) => {
                out.push_str("{\"$complex\":[");
                push_float(out, *real);
                out.push(',');
                push_float(out, *imaginary);
                out.push_str("]}");
            }
            Node::Bytes(data) => self.bytes(out, "$bytes", id, data),
            Node::ByteArray(data) => self.bytes(out, "$bytearray", id, data),
            Node::Size(sizes) => {
                out.push_str("{\"$size\":");
                push_numbers(out, sizes);
                out.push('}');
            }
            Node::Ellipsis => out.push_str("{\"$ellipsis\":true}"),
            // All others are written elsewhere.
            _ => out.push_str("null"),
        }
    }

    fn bytes(&self, out: &mut String, tag: &str, id: NodeId, data: &Data) {
        out.push_str(&format!("{{\"{tag}\":"));
        match data {
            Data::Memory(bytes) => {
                out.push('"');
                push_base64(out, bytes);
                out.push('"');
            }
            Data::Storage(_) => {
                out.push_str("{\"$tensor\":");
                push_str(out, &self.members[&id]);
                out.push('}');
            }
        }
        out.push('}');
    }

    fn list(&mut self, out: &mut String, items: &[NodeId]) -> Result<()> {
        out.push('[');
        for (n, &item) in items.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            self.node(out, item)?;
        }
        out.push(']');
        Ok(())
    }

    fn tagged_list(&mut self, out: &mut String, tag: &str, items: &[NodeId]) -> Result<()> {
        out.push_str(&format!("{{\"{tag}\":"));
        self.list(out, items)?;
        out.push('}');
        Ok(())
    }

    fn dict(&mut self, out: &mut String, pairs: &[(NodeId, NodeId)]) -> Result<()> {
        let tree = &self.foreign.tree;
        let plain = |id: NodeId| match &tree[id] {
            Node::Str(text) if !text.as_bytes().starts_with(b"$") => Some(text),
            _ => None,
        };
        let is_plain = pairs.iter().all(|&(key, _)| plain(key).is_some());
        out.push_str(if is_plain { "{" } else { "{\"$dict\":[" });
        for (n, &(key, value)) in pairs.iter().enumerate() {
            out.push_str(if n > 0 { "," } else { "" });
            match plain(key).filter(|_| is_plain) {
                Some(text) => {
                    push_text(out, text);
                    out.push(':');
                    self.node(out, value)?;
                }
                None => {
                    out.push('[');
                    self.node(out, key)?;
                    out.push(',');
                    self.node(out, value)?;
                    out.push(']');
                }
            }
        }
        out.push_str(if is_plain { "}" } else { "]}" });
        Ok(())
    }

    fn part(&mut self, out: &mut String, name: &str, part: Option<NodeId>) -> Result<()> {
        let Some(part) = part else {
            return Ok(());
        };
        out.push_str(&format!(",\"{name}\":"));
        self.node(out, part)
    }

    fn dense(&mut self, out: &mut String, id: NodeId, tensor: &Tensor) -> Result<()> {
        let storage = &self.foreign.storages[tensor.view.storage().0 as usize];
        out.push_str("{\"$tensor\":");
        out.push_str(&self.members[&id]);
        push_flags(out, tensor.is_parameter, tensor.requires_grad);
        let flags = [
            ("buffer", tensor.is_buffer),
            ("conj", tensor.is_conj),
            ("neg", tensor.is_neg),
        ];
        for (name, _) in flags.iter().filter(|(_, is_set)| *is_set) {
            out.push_str(&format!(",\"{name}\":true"));
        }
        if storage.device != "cpu" {
            out.push_str(",\"device\":");
            push_str(out, &storage.device);
        }
        self.part(out, "attributes", tensor.attributes)?;
        out.push('}');
        Ok(())
    }

    fn sparse(&mut self, out: &mut String, sparse: &Sparse) -> Result<()> {
        let (layout, first, plain) = match sparse.layout {
            SparseLayout::Coo { indices, .. } => ("coo", ("indices", indices), None),
            SparseLayout::Csr { compressed, plain } => {
                ("csr", ("compressed", compressed), Some(plain))
            }
            SparseLayout::Csc { compressed, plain } => {
                ("csc", ("compressed", compressed), Some(plain))
            }
            SparseLayout::Bsr { compressed, plain } => {
                ("bsr", ("compressed", compressed), Some(plain))
            }
            SparseLayout::Bsc { compressed, plain } => {
                ("bsc", ("compressed", compressed), Some(plain))
            }
        };
        out.push_str(&format!("{{\"$sparse\":\"{layout}\""));
        self.part(out, first.0, Some(first.1))?;
        self.part(out, "plain", plain)?;
        self.part(out, "values", Some(sparse.values))?;
        out.push_str(",\"shape\":");
        push_numbers(out, &sparse.shape);
        if let SparseLayout::Coo { is_coalesced, .. } = sparse.layout {
            out.push_str(&format!(",\"coalesced\":{is_coalesced}"));
        }
        push_flags(out, false, sparse.requires_grad);
        out.push('}');
        Ok(())
    }

    fn quantized(&mut self, out: &mut String, id: NodeId, quantized: &Quantized) -> Result<()> {
        let (Scheme::PerTensor { name, .. } | Scheme::PerChannel { name, .. }) = &quantized.scheme;
        let view = &quantized.ints;
        let element = view.element();
        out.push_str(&format!(
            "{{\"$quantized\":\"{name}\",\"ints\":{{\"$tensor\":"
        ));
        out.push_str(&self.members[&id]);
        out.push_str(&format!("}},\"dtype\":\"{}\"", element.name()));
        if matches!(element.name(), "quint4x2" | "quint2x4") {
            out.push_str(",\"shape\":");
            push_numbers(out, &quantized.shape);
            out.push_str(",\"stride\":");
            push_numbers(out, &quantized.strides);
        }
        for (name, part) in quantized_parts(quantized) {
            self.part(out, name, Some(part))?;
        }
        match quantized.scheme {
            Scheme::PerTensor {
                scale, zero_point, ..
            } => {
                out.push_str(",\"scale\":");
                push_float(out, scale);
                out.push_str(&format!(",\"zero_point\":{zero_point}"));
            }
            Scheme::PerChannel { axis, .. } => out.push_str(&format!(",\"axis\":{axis}")),
        }
        push_flags(out, quantized.is_parameter, quantized.requires_grad);
        out.push('}');
        Ok(())
    }

    fn array(&self, out: &mut String, id: NodeId, array: &Ndarray) {
        out.push_str("{\"$ndarray\":");
        push_str(out, &self.members[&id]);
        let element = array.view.element();
        let native = format!(
            "{}{}",
            if element.width_bytes() == 1 { "|" } else { "<" },
            kind(element.name())
        );
        if array.dtype != native || !element.is_native() {
            out.push_str(",\"dtype\":");
            push_str(out, &array.dtype);
        }
        if element.n_stored() > 1 {
            out.push_str(",\"shape\":");
            push_numbers(out, array.view.shape());
        }
        if array.is_fortran {
            out.push_str(",\"fortran\":true");
        }
        out.push('}');
    }

    fn opaque(&mut self, out: &mut String, opaque: &Opaque) -> Result<()> {
        match opaque.global {
            Some(global) => self.opaque_name(out, global),
            None => out.push_str("{\"$opaque\":\"the result of a call\""),
        }
        self.part(out, "callee", opaque.callee)?;
        if let Some(args) = opaque.args {
            out.push_str(",\"args\":");
            match &self.foreign.tree[args] {
                Node::Tuple(items) => self.list(out, items)?,
                _ => self.list(out, &[args])?,
            }
        }
        self.part(out, "kwargs", opaque.kwargs)?;
        self.part(out, "state", opaque.state)?;
        if !opaque.items.is_empty() {
            out.push_str(",\"items\":");
            self.list(out, &opaque.items)?;
        }
        if !opaque.pairs.is_empty() {
            out.push_str(",\"pairs\":[");
            for (n, &(key, value)) in opaque.pairs.iter().enumerate() {
                out.push_str(if n > 0 { "," } else { "" });
                self.list(out, &[key, value])?;
            }
            out.push(']');
        }
        out.push('}');
        Ok(())
    }

    fn opaque_name(&self, out: &mut String, global: GlobalId) {
        out.push_str("{\"$opaque\":");
        push_str(out, &self.dotted(global));
    }

    fn dotted(&self, global: GlobalId) -> String {
        self.foreign.globals[global.0 as usize].dotted()
    }
}

/// Whether it matters that a value is the same as another one.
fn has_identity(node: &Node) -> bool {
    match node {
        Node::Tuple(items) => !items.is_empty(),
        Node::Bytes(Data::Storage(_)) | Node::ByteArray(_) | Node::List(_) | Node::Dict(_) => true,
        Node::OrderedDict { .. } | Node::Counter(_) | Node::DefaultDict { .. } => true,
        Node::Set(_) | Node::FrozenSet(_) | Node::Tensor(_) | Node::Meta(_) | Node::Sparse(_) => {
            true
        }
        Node::Quantized(_) | Node::Nested(_) | Node::Ndarray(_) | Node::Storage(_) => true,
        Node::Object(_) | Node::Opaque(_) => true,
        _ => false,
    }
}

/// NumPy's code of a type, without its byte order.
fn kind(name: &str) -> &'static str {
    match name {
        "bool" => "b1",
        "uint8" => "u1",
        "int8" => "i1",
        "uint16" => "u2",
        "int16" => "i2",
        "uint32" => "u4",
        "int32" => "i4",
        "uint64" => "u8",
        "int64" => "i8",
        "float16" => "f2",
        "float32" => "f4",
        "float64" => "f8",
        "complex64" => "c8",
        "complex128" => "c16",
        _ => "",
    }
}

fn push_flags(out: &mut String, is_parameter: bool, requires_grad: bool) {
    if is_parameter {
        out.push_str(",\"parameter\":true");
    }
    if requires_grad != is_parameter {
        out.push_str(&format!(",\"requires_grad\":{requires_grad}"));
    }
}

fn push_meta(out: &mut String, meta: &Meta) {
    out.push_str(&format!(
        "{{\"$meta\":\"{}\",\"shape\":",
        meta.element.name()
    ));
    push_numbers(out, &meta.shape);
    if crate::storage::row_major(&meta.shape).as_deref() != Some(&meta.strides[..]) {
        out.push_str(",\"stride\":");
        push_numbers(out, &meta.strides);
    }
    push_flags(out, meta.is_parameter, meta.requires_grad);
    if meta.is_buffer {
        out.push_str(",\"buffer\":true");
    }
}
