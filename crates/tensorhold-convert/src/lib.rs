//! Reads the checkpoints of other formats without running anything that is in them.
//!
//! ```
//! use tensorhold_convert::{Foreign, Limits};
//! use tensorhold_core::ErrorKind;
//!
//! let refused = Foreign::read(&b"no checkpoint".as_slice(), &Limits::default()).unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::ForeignFormat);
//! ```
//!
//! A file becomes a [`Tree`] of inert values, a table of the places where tensors' bytes lie ([`Storage`]), and
//! a report of what is odd about it ([`Finding`], [`Global`]). Names in a file are compared with a list; nothing is
//! imported, called or evaluated. No tensor's bytes are read.
//!
//! It opens no file: it reads through a [`tensorhold_core::Source`].
#![forbid(unsafe_code)]

pub mod container;
mod cursor;
mod element;
mod finding;
pub mod flax;
mod foreign;
pub mod gguf;
mod limits;
pub mod npy;
pub mod npz;
mod storage;
mod table;
mod text;
mod tree;

pub use element::Element;
pub use finding::{Class, Finding, FindingKind, Global, GlobalId};
pub use foreign::{Foreign, Format};
pub use limits::Limits;
pub use storage::{Place, Storage, StorageId, View};
pub use text::{Laid, Lie, Stored};
pub use tree::{
    BareStorage, Data, Factory, Meta, Ndarray, Nested, Node, NodeId, Object, Opaque, Quantized,
    Scheme, Sparse, SparseLayout, Tensor, Text, Tree,
};
