//! The interface of crate `safetensors` 0.8, answered by tensorhold.
//!
//! Programs that use `safetensors` build on this crate unchanged, once `[patch.crates-io]` names it; the README says how.
//!
//! ```
//! use safetensors::tensor::TensorView;
//! use safetensors::{Dtype, SafeTensors, serialize};
//!
//! let bytes = [1.0f32, 2.0, 3.0].map(f32::to_le_bytes).concat();
//! let bias = TensorView::new(Dtype::F32, vec![3], &bytes)?;
//! let file = serialize([("bias", bias)], None)?;
//!
//! let tensors = SafeTensors::deserialize(&file)?;
//! assert_eq!(tensors.tensor("bias")?.shape(), [3]);
//! # Ok::<(), safetensors::SafeTensorError>(())
//! ```
//!
//! It decides nothing itself: `tensorhold-core` reads and lays out files and resolves slices, `tensorhold` puts files on the disk.
//! This crate turns their types and errors into those that programs know. The README lists where it differs from the
//! published crate.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod slice;
pub mod tensor;

#[cfg(feature = "std")]
pub use tensor::serialize_to_file;
pub use tensor::{Dtype, SafeTensorError, SafeTensors, View, serialize};

#[cfg(not(feature = "std"))]
use hashbrown::{HashMap, hash_map};
#[cfg(feature = "std")]
use std::collections::{HashMap, hash_map};
