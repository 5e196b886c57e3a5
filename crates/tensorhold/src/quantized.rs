//! Quantized weights of a checkpoint, read as numbers.

mod ahead;
mod crew;
mod dequantize;
mod located;
mod part;
mod stream;

pub use dequantize::Dequantize;
pub use stream::{DequantizeOptions, DequantizeProgress, Dequantized, dequantize_checkpoint};
