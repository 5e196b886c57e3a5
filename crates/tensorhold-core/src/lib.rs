//! What the bytes of a checkpoint mean, and which bytes go where.
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
    Header, LENGTH_BYTES, Layout, LayoutOptions, MAX_HEADER_BYTES, Metadata, Order, Rules,
    TensorInfo, TensorSpec, header_length, layout,
};
pub use index::ShardIndex;
pub use shape::{n_elements, shape_size_bytes};
pub use slice::{BitRuns, Bounds, Index, Loop, Runs, Selection, Strided};
pub use sniff::{Foreign, sniff};
pub use storage::{Sink, Source};
