//! What a pickle puts into values that it has made.

use tensorhold_core::{Error, ErrorKind, Result};

use super::globals::{Call, Known};
use super::machine::Machine;
use crate::builder::Builder;
use crate::finding::{Class, FindingKind};
use crate::numpy;
use crate::tree::{Node, NodeId, Object};

/// Appends values to a list, or to an object that may be one.
///
/// # Errors
/// `ForeignFormat` where the target takes none.
pub(crate) fn append(builder: &mut Builder<'_>, target: NodeId, values: Vec<NodeId>) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    match builder.tree.node_mut(target) {
        Node::List(items) => items.extend(values),
        Node::Opaque(opaque) => opaque.items.extend(values),
        Node::ByteArray(_) => leave_out(builder, target, "items of a bytearray are left out"),
        node => return Err(takes_none(node, "items are appended to")),
    }
    Ok(())
}

/// Adds values to a set, or to an object that may be one.
///
/// # Errors
/// `ForeignFormat` where the target takes none.
pub(crate) fn add(builder: &mut Builder<'_>, target: NodeId, values: Vec<NodeId>) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    match builder.tree.node_mut(target) {
        Node::Set(items) => items.extend(values),
        Node::Opaque(opaque) => opaque.items.extend(values),
        node => return Err(takes_none(node, "items are added to")),
    }
    Ok(())
}

/// Sets values by key, in a dict or in an object that may be one.
///
/// # Errors
/// `ForeignFormat` where the target takes none.
pub(crate) fn set_items(
    builder: &mut Builder<'_>,
    target: NodeId,
    values: Vec<(NodeId, NodeId)>,
) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    match builder.tree.node_mut(target) {
        Node::Dict(pairs)
        | Node::Counter(pairs)
        | Node::OrderedDict { pairs, .. }
        | Node::DefaultDict { pairs, .. } => pairs.extend(values),
        Node::Opaque(opaque) => opaque.pairs.extend(values),
        Node::List(_) | Node::ByteArray(_) => {
            leave_out(
                builder,
                target,
                "items that are set by their numbers are left out",
            );
        }
        node => return Err(takes_none(node, "keys are set in")),
    }
    Ok(())
}

fn takes_none(node: &Node, what: &str) -> Error {
    Error::new(ErrorKind::ForeignFormat, format!("{what} {}", node.kind()))
}

/// Gives a value its state, as `BUILD` does.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn build(machine: &mut Machine<'_, '_>, target: NodeId, state: NodeId) -> Result<()> {
    let builder = &mut *machine.builder;
    match builder.tree[target].built() {
        Built::Opaque(global) => {
            let known = global.map(|global| builder.known(global));
            let is_array = known == Some(Known::Call(Call::NpReconstruct));
            if is_array && numpy::fill_array(builder, target, state)? {
                return Ok(());
            }
            give_state(builder, target, state)?;
        }
        Built::Dtype => numpy::fill_dtype(builder, target, state)?,
        Built::Ordered | Built::Tensor => attach(builder, target, state)?,
        Built::Global(global) => {
            let message = format!(
                "a pickle changes the class or function `{}` itself",
                builder.globals[global.0 as usize].dotted()
            );
            builder.find(FindingKind::Pickle, Class::Dangerous, message, target);
        }
        Built::Other => {
            let message = format!(
                "{} is given a state, which is left out",
                builder.tree[target].kind()
            );
            builder.find(FindingKind::LeftOut, Class::Unknown, message, target);
        }
    }
    Ok(())
}

/// What has to be known of a node to give it a state.
enum Built {
    Opaque(Option<crate::finding::GlobalId>),
    Global(crate::finding::GlobalId),
    Dtype,
    Ordered,
    Tensor,
    Other,
}

impl Node {
    fn built(&self) -> Built {
        match self {
            Node::Opaque(opaque) => Built::Opaque(opaque.global),
            Node::Object(object) => Built::Opaque(Some(object.class)),
            Node::Global(global) => Built::Global(*global),
            Node::NpDtype(_) => Built::Dtype,
            Node::OrderedDict { .. } => Built::Ordered,
            Node::Tensor(_) => Built::Tensor,
            _ => Built::Other,
        }
    }
}

fn give_state(builder: &mut Builder<'_>, target: NodeId, state: NodeId) -> Result<()> {
    let class = match &builder.tree[target] {
        Node::Opaque(opaque) => opaque.global.map(|global| builder.known(global)),
        _ => None,
    };
    let is_script = class == Some(Known::Script) && builder.tree.pairs(state).is_some();
    let is_module = is_script || has_parts_of_module(builder, state)?;
    match builder.tree.node_mut(target) {
        Node::Object(object) => object.state = state,
        Node::Opaque(opaque) => {
            opaque.state = Some(state);
            let is_plain = opaque.items.is_empty() && opaque.pairs.is_empty();
            if let (Some(class), true, true) = (opaque.global, is_module, is_plain) {
                *builder.tree.node_mut(target) = Node::Object(Box::new(Object { class, state }));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a state is that of a `torch.nn.Module`.
fn has_parts_of_module(builder: &mut Builder<'_>, state: NodeId) -> Result<bool> {
    for name in ["_parameters", "_buffers", "_modules"] {
        let value = builder.entry(state, name)?.map(|id| &builder.tree[id]);
        if !matches!(value, Some(Node::Dict(_) | Node::OrderedDict { .. })) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a tensor or an ordered dict its attributes.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn attach(builder: &mut Builder<'_>, target: NodeId, state: NodeId) -> Result<()> {
    let attributes = match attributes_of(builder, state) {
        Attributes::None => return Ok(()),
        Attributes::Odd => {
            leave_out(builder, target, "attributes that are no dict are left out");
            return Ok(());
        }
        Attributes::Dict(attributes) => attributes,
    };
    let is_buffer = builder.entry(attributes, "_is_buffer")?;
    let is_buffer = is_buffer.is_some_and(|id| builder.tree[id] == Node::Bool(true));
    match builder.tree.node_mut(target) {
        Node::OrderedDict {
            attributes: slot, ..
        } => *slot = Some(attributes),
        Node::Tensor(tensor) => {
            tensor.is_buffer = is_buffer;
            tensor.attributes = Some(attributes);
        }
        Node::Meta(meta) => {
            meta.is_buffer = is_buffer;
            meta.attributes = Some(attributes);
        }
        _ => leave_out(builder, target, "attributes are left out"),
    }
    Ok(())
}

/// What a state has for the `__dict__` of a value.
enum Attributes {
    None,
    Dict(NodeId),
    Odd,
}

/// A state is `None`, a dict, or a pair of these: the `__dict__` and the slots.
fn attributes_of(builder: &Builder<'_>, state: NodeId) -> Attributes {
    let tree = &builder.tree;
    let (attributes, slots) = match &tree[state] {
        Node::Tuple(parts) if parts.len() == 2 => (parts[0], Some(parts[1])),
        _ => (state, None),
    };
    let slots = slots
        .and_then(|slots| tree.pairs(slots))
        .unwrap_or_default();
    match tree.pairs(attributes) {
        _ if !slots.is_empty() => Attributes::Odd,
        Some([]) => Attributes::None,
        Some(_) => Attributes::Dict(attributes),
        None if tree[attributes] == Node::None => Attributes::None,
        None => Attributes::Odd,
    }
}

fn leave_out(builder: &mut Builder<'_>, target: NodeId, message: &str) {
    builder.find(FindingKind::LeftOut, Class::Unknown, message.into(), target);
}
