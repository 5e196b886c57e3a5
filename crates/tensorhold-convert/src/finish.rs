//! The last look over a file's values: what stands twice, what is opaque and where.

use std::collections::{HashMap, HashSet};

use tensorhold_core::Result;

use crate::builder::Builder;
use crate::finding::{Class, Finding, FindingKind, GlobalId};
use crate::foreign::{Foreign, Format};
use crate::torch::rebuild::settle;
use crate::tree::{Data, Node, NodeId, Tree};
use crate::walk::Ways;

/// Places of one name that are told.
const SHOWN_PLACES: usize = 8;

/// Opaque objects that are told one by one.
const SHOWN_OPAQUE: usize = 1000;

/// Puts together what was read.
///
/// # Errors
/// `Overflow` past a limit.
pub(crate) fn finish(mut builder: Builder<'_>, format: Format, root: NodeId) -> Result<Foreign> {
    builder.tree.set_root(root);
    settle(&mut builder);
    let ways = Ways::new(&builder.tree);
    for &id in &ways.reached {
        remove_doubles(&mut builder, id);
    }
    tell_opaque(&mut builder, &ways);
    crate::nested::scan(&mut builder, &ways)?;
    let tree = &builder.tree;
    let placed = builder.findings.into_iter().map(|(mut finding, node)| {
        let path = node.and_then(|node| ways.path(tree, node));
        finding.path = finding.path.or(path);
        finding
    });
    let findings = placed.collect();
    Ok(Foreign {
        format,
        findings,
        tree: builder.tree,
        storages: builder.storages,
        globals: builder.globals,
    })
}

/// What Python takes for the same key.
#[derive(PartialEq, Eq, Hash)]
enum KeyOf {
    None,
    Number(u64),
    Integer(Vec<u8>),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Itself(NodeId),
}

fn key_of(tree: &Tree, id: NodeId) -> KeyOf {
    let number = |number: f64| KeyOf::Number((number + 0.0).to_bits());
    match &tree[id] {
        Node::None => KeyOf::None,
        Node::Bool(truth) => number(f64::from(u8::from(*truth))),
        Node::Int(integer) if (*integer as f64) as i128 == i128::from(*integer) => {
            number(*integer as f64)
        }
        Node::Int(integer) => KeyOf::Integer(integer.to_le_bytes().to_vec()),
        Node::BigInt(bytes) => KeyOf::Integer(bytes.clone()),
        Node::Float(float) if !float.is_nan() => number(*float),
        Node::Str(text) => KeyOf::Text(text.as_bytes().to_vec()),
        Node::Bytes(Data::Memory(bytes)) => KeyOf::Bytes(bytes.clone()),
        _ => KeyOf::Itself(id),
    }
}

/// Keeps the last value of each key, at the place of its first, and each item of a set once.
fn remove_doubles(builder: &mut Builder<'_>, id: NodeId) {
    let tree = &builder.tree;
    let node = match &tree[id] {
        Node::Set(items) => unique(tree, items).map(Node::Set),
        Node::FrozenSet(items) => unique(tree, items).map(Node::FrozenSet),
        node => {
            let Some(pairs) = tree.pairs(id).and_then(|pairs| last_of_each(tree, pairs)) else {
                return;
            };
            let mut node = node.clone();
            if let Node::Dict(old)
            | Node::Counter(old)
            | Node::OrderedDict { pairs: old, .. }
            | Node::DefaultDict { pairs: old, .. } = &mut node
            {
                *old = pairs;
            }
            let message = "a key stands twice in a dict; the last value counts".into();
            builder.find(FindingKind::DuplicateKey, Class::Unknown, message, id);
            Some(node)
        }
    };
    if let Some(node) = node {
        builder.tree.replace(id, node);
    }
}

fn unique(tree: &Tree, items: &[NodeId]) -> Option<Vec<NodeId>> {
    let mut seen = HashSet::new();
    let kept: Vec<NodeId> = items
        .iter()
        .copied()
        .filter(|item| seen.insert(key_of(tree, *item)))
        .collect();
    (kept.len() < items.len()).then_some(kept)
}

fn last_of_each(tree: &Tree, pairs: &[(NodeId, NodeId)]) -> Option<Vec<(NodeId, NodeId)>> {
    let mut places = HashMap::with_capacity(pairs.len());
    let mut kept: Vec<(NodeId, NodeId)> = Vec::with_capacity(pairs.len());
    for &(key, value) in pairs {
        let place = *places.entry(key_of(tree, key)).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(pair) => pair.1 = value,
            None => kept.push((key, value)),
        }
    }
    (kept.len() < pairs.len()).then_some(kept)
}

/// Says of every opaque object what it is and where, and of every name where it is used.
fn tell_opaque(builder: &mut Builder<'_>, ways: &Ways) {
    let mut n_told = 0;
    for &id in &ways.reached {
        let (global, is_opaque) = match &builder.tree[id] {
            Node::Opaque(opaque) => (opaque.global, true),
            Node::Object(object) => (Some(object.class), false),
            Node::Global(global) => (Some(*global), false),
            _ => continue,
        };
        if let Some(global) = global {
            tell_place(builder, ways, global, id);
        }
        if is_opaque && n_told < SHOWN_OPAQUE {
            n_told += 1;
            let global = global.map(|global| &builder.globals[global.0 as usize]);
            let name = global.map_or("what is no name".into(), |global| {
                format!("`{}`", global.dotted())
            });
            let class = global.map_or(Class::Unknown, |global| global.class);
            let message = format!("an object of {name} is kept as its parts");
            builder.note(
                Finding::new(FindingKind::Opaque, class, message)
                    .with_path(ways.path(&builder.tree, id).unwrap_or_default()),
            );
        }
    }
}

fn tell_place(builder: &mut Builder<'_>, ways: &Ways, global: GlobalId, id: NodeId) {
    let at = global.0 as usize;
    if builder.globals[at].paths.len() < SHOWN_PLACES
        && let Some(path) = ways.path(&builder.tree, id)
    {
        builder.globals[at].paths.push(path);
    }
}
