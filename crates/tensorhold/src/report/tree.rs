//! Names with dots as a tree, and which of its nodes have the same structure.
//!
//! Nodes lie in one list, parents before children, so that everything below a node is known when the list is walked
//! backwards: then a node's structure is its own dtype and shape and, for each child, label and structure. Equal
//! structures get equal numbers, by a table that compares them in full.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use tensorhold_core::Dtype;
use tensorhold_quant::detect::SchemeName;

use super::Totals;
use crate::subbyte::NarrowInt;

/// Names are cut into at most so many labels; the last keeps its dots. No model comes near, and a file cannot
/// bring a tree that is deeper than the stack.
const MAX_DEPTH: usize = 24;

/// A tree of names. Node 0 is the root, without a name.
pub(super) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    /// From parent and label to node.
    places: HashTable<u32>,
    seed: DefaultHashBuilder,
    /// The labels and nodes of the last name: the next one mostly shares its beginning.
    last: Vec<u32>,
}

struct Node<'a> {
    label: &'a str,
    parent: u32,
    tensor: Option<Entry<'a>>,
    children: Vec<u32>,
}

/// A tensor, or a quantized weight with all its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entry<'a> {
    pub dtype: Dtype,
    pub narrow: Option<NarrowInt>,
    /// None where it is a weight whose shape is not known.
    pub dims: Option<&'a [u64]>,
    pub scheme: Option<SchemeName>,
    pub totals: Totals,
}

impl Default for Tree<'_> {
    fn default() -> Self {
        let root = Node {
            label: "",
            parent: 0,
            tensor: None,
            children: Vec::new(),
        };
        Tree {
            nodes: vec![root],
            places: HashTable::new(),
            seed: DefaultHashBuilder::default(),
            last: Vec::new(),
        }
    }
}

impl<'a> Tree<'a> {
    pub fn insert(&mut self, name: &'a str, entry: Entry<'a>) {
        let mut node = 0;
        let mut follows_last = true;
        for (depth, label) in name.splitn(MAX_DEPTH, '.').enumerate() {
            follows_last = follows_last
                && self
                    .last
                    .get(depth)
                    .is_some_and(|&last| self.nodes[last as usize].label == label);
            if follows_last {
                node = self.last[depth];
                continue;
            }
            node = self.child(node, label);
            self.last.truncate(depth);
            self.last.push(node);
        }
        self.nodes[node as usize].tensor = Some(entry);
    }

    fn child(&mut self, parent: u32, label: &'a str) -> u32 {
        let Tree {
            nodes,
            places,
            seed,
            ..
        } = self;
        let hash = seed.hash_one((parent, label));
        let is_it = |&place: &u32| {
            let node = &nodes[place as usize];
            node.parent == parent && node.label == label
        };
        if let Some(&place) = places.find(hash, is_it) {
            return place;
        }
        let place =
            u32::try_from(nodes.len()).expect("headers have room for less than 2^32 labels");
        nodes[parent as usize].children.push(place);
        nodes.push(Node {
            label,
            parent,
            tensor: None,
            children: Vec::new(),
        });
        places.insert_unique(hash, place, |&other| {
            let node = &nodes[other as usize];
            seed.hash_one((node.parent, node.label))
        });
        place
    }

    /// The same tree, with children in natural order and the structure of each node known.
    pub fn structured(mut self) -> Structured<'a> {
        let mut structures = Structures {
            of_node: vec![0; self.nodes.len()],
            examples: Vec::new(),
            table: HashTable::new(),
            seed: self.seed.clone(),
        };
        for place in (0..self.nodes.len()).rev() {
            let mut children = std::mem::take(&mut self.nodes[place].children);
            children.sort_by(|&left, &right| {
                natural_order(
                    self.nodes[left as usize].label,
                    self.nodes[right as usize].label,
                )
            });
            self.nodes[place].children = children;
            structures.number(&self.nodes, place as u32);
        }
        Structured {
            nodes: self.nodes,
            of_node: structures.of_node,
            examples: structures.examples,
        }
    }
}

/// A tree whose nodes know their structure.
pub(super) struct Structured<'a> {
    nodes: Vec<Node<'a>>,
    of_node: Vec<u32>,
    examples: Vec<Example>,
}

/// What all nodes of one structure have in common.
struct Example {
    node: u32,
    totals: Totals,
    /// One bit for each dtype of what is not quantized.
    dtypes: u32,
    /// The schemes of what is, in order.
    schemes: Vec<SchemeName>,
}

impl<'a> Structured<'a> {
    pub const ROOT: u32 = 0;

    pub fn label(&self, node: u32) -> &'a str {
        self.nodes[node as usize].label
    }

    pub fn tensor(&self, node: u32) -> Option<&Entry<'a>> {
        self.nodes[node as usize].tensor.as_ref()
    }

    pub fn children(&self, node: u32) -> &[u32] {
        &self.nodes[node as usize].children
    }

    pub fn structure(&self, node: u32) -> u32 {
        self.of_node[node as usize]
    }

    pub fn totals(&self, node: u32) -> Totals {
        self.example(node).totals
    }

    pub fn dtypes(&self, node: u32) -> impl Iterator<Item = Dtype> {
        let dtypes = self.example(node).dtypes;
        let has = move |dtype: &Dtype| dtypes & (1 << *dtype as u32) != 0;
        Dtype::ALL.into_iter().rev().filter(has)
    }

    pub fn schemes(&self, node: u32) -> &[SchemeName] {
        &self.example(node).schemes
    }

    fn example(&self, node: u32) -> &Example {
        &self.examples[self.structure(node) as usize]
    }
}

struct Structures {
    of_node: Vec<u32>,
    examples: Vec<Example>,
    table: HashTable<u32>,
    seed: DefaultHashBuilder,
}

impl Structures {
    /// Finds or gives the number of a node's structure, those of its children being known.
    fn number(&mut self, nodes: &[Node<'_>], place: u32) {
        let hash = self.hash(nodes, place);
        let found = self.table.find(hash, |&structure| {
            let example = self.examples[structure as usize].node;
            self.is_same(nodes, example, place)
        });
        self.of_node[place as usize] = match found {
            Some(&structure) => structure,
            None => self.add(nodes, place, hash),
        };
    }

    fn add(&mut self, nodes: &[Node<'_>], place: u32, hash: u64) -> u32 {
        let structure = self.examples.len() as u32;
        let example = self.sum_up(nodes, place);
        self.examples.push(example);
        let Structures {
            table,
            seed,
            of_node,
            examples,
        } = self;
        table.insert_unique(hash, structure, |&other| {
            hash_of(seed, of_node, nodes, examples[other as usize].node)
        });
        structure
    }

    fn sum_up(&self, nodes: &[Node<'_>], place: u32) -> Example {
        let node = &nodes[place as usize];
        let (mut totals, mut dtypes, mut schemes) = (Totals::default(), 0, Vec::new());
        if let Some(entry) = &node.tensor {
            totals.add(entry.totals, 1);
            match entry.scheme {
                None => dtypes |= 1 << entry.dtype as u32,
                Some(scheme) => schemes.push(scheme),
            }
        }
        for &child in &node.children {
            let below = &self.examples[self.of_node[child as usize] as usize];
            totals.add(below.totals, 1);
            dtypes |= below.dtypes;
            schemes.extend_from_slice(&below.schemes);
        }
        schemes.sort_unstable();
        schemes.dedup();
        Example {
            node: place,
            totals,
            dtypes,
            schemes,
        }
    }

    fn hash(&self, nodes: &[Node<'_>], place: u32) -> u64 {
        hash_of(&self.seed, &self.of_node, nodes, place)
    }

    fn is_same(&self, nodes: &[Node<'_>], left: u32, right: u32) -> bool {
        let (left, right) = (&nodes[left as usize], &nodes[right as usize]);
        let is_same_child = |(&left, &right): (&u32, &u32)| {
            self.of_node[left as usize] == self.of_node[right as usize]
                && nodes[left as usize].label == nodes[right as usize].label
        };
        left.children.len() == right.children.len()
            && left.tensor == right.tensor
            && left.children.iter().zip(&right.children).all(is_same_child)
    }
}

fn hash_of(seed: &DefaultHashBuilder, of_node: &[u32], nodes: &[Node<'_>], place: u32) -> u64 {
    let node = &nodes[place as usize];
    let mut hasher = seed.build_hasher();
    node.tensor.hash(&mut hasher);
    for &child in &node.children {
        nodes[child as usize].label.hash(&mut hasher);
        of_node[child as usize].hash(&mut hasher);
    }
    hasher.finish()
}

/// The number that a label is, if it is one as a program would write it.
pub(super) fn number(label: &str) -> Option<u64> {
    let is_plain = label.bytes().all(|byte| byte.is_ascii_digit())
        && (label == "0" || !label.starts_with('0'));
    is_plain.then(|| label.parse().ok()).flatten()
}

/// Numbers by their value and before words.
fn natural_order(left: &str, right: &str) -> Ordering {
    match (number(left), number(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => left.cmp(right),
    }
}
