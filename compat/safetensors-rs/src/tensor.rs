//! Tensors, files of tensors, and what can be wrong with them.

mod dtype;
mod error;
mod info;
mod metadata;
mod safetensors;
mod serialize;
mod view;

pub use dtype::Dtype;
pub use error::SafeTensorError;
pub use info::TensorInfo;
pub(crate) use info::shape_to_core;
pub use metadata::Metadata;
pub use safetensors::SafeTensors;
pub use serialize::serialize;
#[cfg(feature = "std")]
pub use serialize::serialize_to_file;
pub use view::{TensorView, View};
