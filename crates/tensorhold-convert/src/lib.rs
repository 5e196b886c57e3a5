//! Reads the checkpoints of other formats without running anything that is in them.
//!
//! ```
//! use tensorhold_convert::{Foreign, Limits, Node};
//!
//! // What `pickle.dumps({"step": 3}, protocol=2)` gives.
//! let file = b"\x80\x02}q\x00X\x04\x00\x00\x00stepq\x01K\x03s.".as_slice();
//! let foreign = Foreign::read(&file, &Limits::default())?;
//! let step = foreign.tree.entry(foreign.tree.root(), "step").expect("it is a dict with this key");
//! assert_eq!(foreign.tree[step], Node::Int(3));
//! # Ok::<(), tensorhold_core::Error>(())
//! ```
//!
//! A file becomes a [`Tree`] of inert values, a table of the places where tensors' bytes lie ([`Storage`]), and
//! a report of what is odd about it ([`Finding`], [`Global`]). Names in a file are compared with a list; nothing is
//! imported, called or evaluated. No tensor's bytes are read.
//!
//! It opens no file: it reads through a [`tensorhold_core::Source`].
#![forbid(unsafe_code)]

mod builder;
pub mod container;
mod cursor;
mod element;
mod finding;
mod finish;
pub mod flax;
mod follow;
mod foreign;
pub mod gguf;
pub mod hdf5;
pub mod keras;
mod limits;
mod module;
mod nested;
pub mod npy;
pub mod npz;
mod numpy;
mod pickle;
mod storage;
mod table;
mod text;
mod torch;
mod tree;
mod walk;

pub use element::Element;
pub use finding::{Class, Finding, FindingKind, Global, GlobalId};
pub use foreign::{Broken, Foreign, Format};
pub use limits::Limits;
pub use pickle::first_import;
pub use storage::{Place, Storage, StorageId, View};
pub use text::{Laid, Lie, Stored};
pub use tree::{
    BareStorage, Data, Factory, Meta, Ndarray, Nested, Node, NodeId, Object, Opaque, Quantized,
    Scheme, Sparse, SparseLayout, Tensor, Text, Tree,
};
