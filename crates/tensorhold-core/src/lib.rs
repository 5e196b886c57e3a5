//! What the bytes of a checkpoint mean, and which bytes go where.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod dtype;
mod error;
mod extent;
mod shape;
mod slice;
mod storage;

pub use dtype::{Dtype, UnknownDtype};
pub use error::{Error, ErrorKind, Result};
pub use extent::{ByteRange, Extent};
pub use shape::{n_elements, shape_size_bytes};
pub use slice::{BitRuns, Bounds, Index, Loop, Runs, Selection, Strided};
pub use storage::{Sink, Source};
