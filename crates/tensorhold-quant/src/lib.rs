//! What the numbers in a tensor's bytes are worth, and the same numbers in another format: [`cast`] for floats,
//! [`codec`] for the parts that quantized weights are made of, [`scheme`] for what these parts mean together,
//! [`detect`] for which of a checkpoint's tensors are such parts, and [`dequantize`] for the weights.
//!
//! ```
//! use tensorhold_core::Dtype;
//!
//! let halves = [0x3f80u16, 0xc000].map(u16::to_le_bytes).concat();
//! let mut singles = [0; 8];
//! tensorhold_quant::cast(Dtype::BF16, &halves, Dtype::F32, &mut singles)?;
//! assert_eq!(singles, *[1.0f32, -2.0].map(f32::to_le_bytes).as_flattened());
//! # Ok::<(), tensorhold_core::Error>(())
//! ```
//!
//! It reads no file and starts no thread: bytes in, bytes out. Of shapes, [`scheme`] and [`detect`] alone know.

mod cast;
pub mod codec;
mod dequant;
pub mod detect;
pub mod encode;
pub mod scheme;

pub use cast::{can_cast, cast};
pub use dequant::{PartBytes, Store, dequantize, dequantize_parts, dequantize_sparse, unpack};
