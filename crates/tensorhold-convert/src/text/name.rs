//! Readable names for what is stored: the path in the tree.

use std::collections::{HashMap, HashSet};

use crate::tree::{Node, NodeId, Text, Tree};

/// One step of the way from the root to a value.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// One that names do not show.
    Silent,
    /// To the state of a module, whose tables of parameters, buffers and modules names do not show either.
    Module,
    /// To a part that always has this name.
    Name(&'static str),
    /// To an item of a list.
    Index(usize),
    /// To the value of a key.
    Key(String),
}

/// The names that are given, and the way to the value that one is for.
#[derive(Default)]
pub(super) struct Names {
    trail: Vec<Step>,
    taken: HashSet<String>,
    numbers: HashMap<String, u64>,
}

impl Names {
    pub fn enter(&mut self, step: Step) {
        self.trail.push(step);
    }

    pub fn leave(&mut self) {
        self.trail.pop();
    }

    /// The step to the value of a key of the value that is being visited.
    pub fn step_of_key(&self, tree: &Tree, key: NodeId) -> Step {
        let text = printed(tree, key, 0);
        let is_table = matches!(&text[..], "_parameters" | "_buffers" | "_modules");
        match self.trail.last() {
            Some(Step::Module) if is_table => Step::Silent,
            _ => Step::Key(text),
        }
    }

    /// A new name for the value that is being visited.
    pub fn take(&mut self) -> String {
        let parts = self.trail.iter().filter_map(|step| match step {
            Step::Silent | Step::Module => None,
            Step::Name(name) => Some((*name).to_owned()),
            Step::Index(index) => Some(index.to_string()),
            Step::Key(key) if key.is_empty() => Some("_".to_owned()),
            Step::Key(key) => Some(key.clone()),
        });
        let parts: Vec<String> = parts.collect();
        let first = match parts.is_empty() {
            true => "tensor".to_owned(),
            false => parts.join("."),
        };
        let first: String = first
            .chars()
            .map(|character| {
                if character.is_control() {
                    '_'
                } else {
                    character
                }
            })
            .collect();
        let mut name = first.clone();
        while name == "__metadata__" || self.taken.contains(&name) {
            let number = self.numbers.entry(first.clone()).or_insert(1);
            *number += 1;
            name = format!("{first}#{number}");
        }
        self.taken.insert(name.clone());
        name
    }
}

/// A key as Python prints it, or a string as it is.
fn printed(tree: &Tree, key: NodeId, depth: usize) -> String {
    match &tree[key] {
        Node::Str(text) if depth == 0 => clean(text),
        Node::Str(text) => format!("'{}'", clean(text)),
        Node::None => "None".into(),
        Node::Bool(true) => "True".into(),
        Node::Bool(false) => "False".into(),
        Node::Int(number) => number.to_string(),
        Node::Float(number) => format!("{number:?}"),
        Node::Tuple(items) if depth < 8 => {
            let items: Vec<String> = items
                .iter()
                .map(|&id| printed(tree, id, depth + 1))
                .collect();
            match &items[..] {
                [one] => format!("({one},)"),
                _ => format!("({})", items.join(", ")),
            }
        }
        _ => "key".into(),
    }
}

/// A text with `_` for each lone surrogate.
fn clean(text: &Text) -> String {
    let lossy = text.to_string_lossy();
    lossy.replace("\u{fffd}\u{fffd}\u{fffd}", "_")
}
