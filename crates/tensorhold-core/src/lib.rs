//! What the bytes of a checkpoint mean, and which bytes go where.
//!
//! ```
//! use tensorhold_core::{Dtype, Header, LayoutOptions, Rules, TensorSpec, layout};
//!
//! let weight = TensorSpec { name: "weight", dtype: Dtype::F32, shape: &[2, 3] };
//! let layout = layout(&[weight], Some(&[("format", "pt")]), &LayoutOptions::default())?;
//! let mut file = layout.head;
//! file.resize(layout.file_size as usize, 0);
//!
//! let header = Header::parse_file(&file, Rules::Strict)?;
//! let weight = header.tensor("weight").expect("it has just been written");
//! assert_eq!((weight.dtype, weight.shape, weight.size_bytes()), (Dtype::F32, &[2, 3][..], 24));
//! # Ok::<(), tensorhold_core::Error>(())
//! ```
//!
//! It opens no file, starts no thread and has no unsafe code; it needs `alloc` and not `std`. Where
//! bytes come from and go to is behind [`Source`] and [`Sink`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod conformance;
mod dtype;
mod error;
mod escape;
mod extent;
mod header;
mod index;
mod mesh;
mod plan;
mod shape;
mod slice;
mod sniff;
mod storage;

pub use conformance::reference_message;
pub use dtype::{Dtype, UnknownDtype};
pub use error::{Error, ErrorKind, Result};
pub use escape::Escaped;
pub use extent::{ByteRange, Extent};
pub use header::{
    Header, LENGTH_BYTES, Layout, LayoutOptions, MAX_HEADER_BYTES, Metadata, Order, PlacedTensor,
    Rules, TensorInfo, TensorSpec, header_length, layout,
};
pub use index::ShardIndex;
pub use mesh::{
    BoundRules, DeviceMesh, FusedPart, Granularity, Held, MeshAxis, ParallelRules, Pattern,
    Placement, Share, Style, Unmatched,
};
pub use plan::{
    Cut, LoadPlan, Origin, Packer, Packing, Piece, Place, Request, SavePart, SavePlan, Task, Tasks,
};
pub use shape::{n_elements, shape_size_bytes};
pub use slice::{BitRuns, Bounds, Grid, Index, Loop, Runs, Selection, Strided};
pub use sniff::{Foreign, sniff};
pub use storage::{Sink, Source};
