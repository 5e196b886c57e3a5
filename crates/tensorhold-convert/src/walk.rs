//! The ways from a tree's root to its nodes.

use crate::tree::{Node, NodeId, Scheme, SparseLayout, Tree};

/// How one node is reached from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The value of a key of a dict.
    Value(NodeId),
    /// A key of a dict itself.
    Key(NodeId),
    /// An item of a list, tuple or set.
    Item(u32),
    /// A part that has a name.
    Part(&'static str),
}

/// Calls `visit` with every child of a node.
pub(crate) fn children(tree: &Tree, id: NodeId, visit: &mut dyn FnMut(Step, NodeId)) {
    let mut items = |items: &[NodeId]| {
        for (at, item) in items.iter().enumerate() {
            visit(Step::Item(at as u32), *item);
        }
    };
    match &tree[id] {
        Node::List(list) | Node::Tuple(list) | Node::Set(list) | Node::FrozenSet(list) => {
            items(list)
        }
        Node::Slice(list) | Node::Range(list) => items(list),
        Node::Dict(pairs) | Node::Counter(pairs) | Node::DefaultDict { pairs, .. } => {
            keyed(pairs, visit);
        }
        Node::OrderedDict { pairs, attributes } => {
            keyed(pairs, visit);
            part(*attributes, "__dict__", visit);
        }
        Node::Tensor(tensor) => part(tensor.attributes, "__dict__", visit),
        Node::Meta(meta) => part(meta.attributes, "__dict__", visit),
        Node::Scalar(_, value) => visit(Step::Part("value"), *value),
        Node::Object(object) => visit(Step::Part("__dict__"), object.state),
        Node::Opaque(_) => opaque_children(tree, id, visit),
        node => tensor_children(node, visit),
    }
}

fn keyed(pairs: &[(NodeId, NodeId)], visit: &mut dyn FnMut(Step, NodeId)) {
    for (key, value) in pairs {
        visit(Step::Key(*key), *key);
        visit(Step::Value(*key), *value);
    }
}

fn part(node: Option<NodeId>, name: &'static str, visit: &mut dyn FnMut(Step, NodeId)) {
    if let Some(node) = node {
        visit(Step::Part(name), node);
    }
}

fn tensor_children(node: &Node, visit: &mut dyn FnMut(Step, NodeId)) {
    let mut parts = |parts: &[(&'static str, NodeId)]| {
        for (name, node) in parts {
            visit(Step::Part(name), *node);
        }
    };
    match node {
        Node::Sparse(sparse) => {
            match sparse.layout {
                SparseLayout::Coo { indices, .. } => parts(&[("indices", indices)]),
                SparseLayout::Csr { compressed, plain }
                | SparseLayout::Csc { compressed, plain }
                | SparseLayout::Bsr { compressed, plain }
                | SparseLayout::Bsc { compressed, plain } => {
                    parts(&[("compressed", compressed), ("plain", plain)]);
                }
            }
            parts(&[("values", sparse.values)]);
        }
        Node::Quantized(quantized) => {
            if let Scheme::PerChannel {
                scales,
                zero_points,
                ..
            } = quantized.scheme
            {
                parts(&[("scales", scales), ("zero_points", zero_points)]);
            }
        }
        Node::Nested(nested) => parts(&[
            ("values", nested.values),
            ("sizes", nested.sizes),
            ("strides", nested.strides),
            ("offsets", nested.offsets),
        ]),
        _ => {}
    }
}

fn opaque_children(tree: &Tree, id: NodeId, visit: &mut dyn FnMut(Step, NodeId)) {
    let Node::Opaque(opaque) = &tree[id] else {
        return;
    };
    part(opaque.callee, "callee", visit);
    part(opaque.args, "args", visit);
    part(opaque.kwargs, "kwargs", visit);
    part(opaque.state, "__dict__", visit);
    for (at, item) in opaque.items.iter().enumerate() {
        visit(Step::Item(at as u32), *item);
    }
    keyed(&opaque.pairs, visit);
}

/// The first way to every node that can be reached.
pub(crate) struct Ways {
    /// For each node the one before it and the step from there; `None` where it is the root or is not reached.
    before: Vec<Option<(NodeId, Step)>>,
    /// The nodes that are reached, the nearest first.
    pub(crate) reached: Vec<NodeId>,
    root: NodeId,
}

/// Steps of a way that are shown; what is before them is left out.
const SHOWN_STEPS: usize = 40;

impl Ways {
    pub(crate) fn new(tree: &Tree) -> Ways {
        let root = tree.root();
        let mut before = vec![None; tree.n_nodes()];
        let mut reached = vec![root];
        let mut at = 0;
        while let Some(&id) = reached.get(at) {
            children(tree, id, &mut |step, child| {
                let slot = &mut before[child.0 as usize];
                if slot.is_none() && child != root {
                    *slot = Some((id, step));
                    reached.push(child);
                }
            });
            at += 1;
        }
        Ways {
            before,
            reached,
            root,
        }
    }

    /// The way to a node, such as `root["model"][0]`; `None` if nothing leads to it.
    pub(crate) fn path(&self, tree: &Tree, id: NodeId) -> Option<String> {
        let mut steps = Vec::new();
        let mut at = id;
        while let Some(&Some((before, step))) = self.before.get(at.0 as usize) {
            if steps.len() == SHOWN_STEPS {
                break;
            }
            steps.push(step);
            at = before;
        }
        let is_reached = at == self.root || !steps.is_empty();
        is_reached.then(|| {
            let start = if at == self.root { "root" } else { "root…" };
            let steps = steps.iter().rev().map(|step| step_text(tree, *step));
            steps.fold(start.to_owned(), |path, step| path + &step)
        })
    }
}

fn step_text(tree: &Tree, step: Step) -> String {
    match step {
        Step::Value(key) => format!("[{}]", key_text(tree, key)),
        Step::Key(key) => format!(".key({})", key_text(tree, key)),
        Step::Item(at) => format!("[{at}]"),
        Step::Part(name) => format!(".{name}"),
    }
}

/// A key as Python would write it, as long as it is short.
fn key_text(tree: &Tree, key: NodeId) -> String {
    match &tree[key] {
        Node::Str(text) => {
            let text = text.to_string_lossy();
            match text.char_indices().nth(80) {
                Some((end, _)) => format!("{:?}…", &text[..end]),
                None => format!("{text:?}"),
            }
        }
        Node::Int(number) => number.to_string(),
        Node::Bool(true) => "True".into(),
        Node::Bool(false) => "False".into(),
        Node::Float(number) => format!("{number:?}"),
        node => node.kind().into(),
    }
}
