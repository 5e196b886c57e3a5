//! What the parts of quantized weights mean: a recipe for each scheme, as data.
//!
//! A scheme is given the types and shapes of the [`Parts`] that a checkpoint has for one weight, and what its
//! configuration says. It holds them to each other and answers with a [`Recipe`], which says where codes,
//! scales and zeros lie, which of a part a [`Window`] of the weight needs, and where the weight may be cut.
//! It sees no bytes: [`dequantize`](crate::dequantize) follows the recipe.
//!
//! ```
//! use tensorhold_core::Dtype;
//! use tensorhold_quant::dequantize;
//! use tensorhold_quant::scheme::{Fp8, Parts, Scheme, Window};
//!
//! let parts = [
//!     ("weight", Dtype::F8_E4M3, &[3, 4][..]),
//!     ("weight_scale_inv", Dtype::F32, &[2, 2]),
//! ];
//! let parts: Parts<'_> = parts.into_iter().collect();
//! let recipe = Fp8 { block: Some([2, 2]) }.recipe(&parts)?;
//! assert_eq!(recipe.shape, [3, 4]);
//!
//! // The last row: 4 bytes of the weight and the second row of scales are all that it takes.
//! let window = Window { rows: 2..3, ..recipe.whole() };
//! let needs = recipe.needs(&window)?;
//! assert_eq!(needs[0].ranges, [0..1, 2..3, 0..4]);
//! assert_eq!(needs[1].ranges, [0..1, 1..2, 0..2]);
//!
//! let (codes, scales) = ([0x38, 0x40, 0x38, 0x40], [1.0f32, 0.5].map(f32::to_le_bytes));
//! let mut weights = [0; 16];
//! dequantize(&recipe, &window, &[&codes, scales.as_flattened()], Dtype::F32, &mut weights)?;
//! assert_eq!(weights, *[1.0f32, 2.0, 0.5, 1.0].map(f32::to_le_bytes).as_flattened());
//! # Ok::<(), tensorhold_core::Error>(())
//! ```
//!
//! Each scheme is a file with the names of its parts, the keys of its configuration and its recipe.

mod awq;
mod awq_gemv;
mod bitnet;
mod bitsandbytes;
mod flat;
mod fp8;
mod gptq;
mod hqq;
mod int8;
mod mlx;
mod modelopt;
mod mx;
mod numbers;
mod nvfp4;
mod pack;
mod parts;
mod piece;
mod quanto;
mod recipe;
mod sparse;
mod stored;
mod window;

pub use awq::AwqGemm;
pub use awq_gemv::{AwqGemv, AwqGemvFast};
pub use bitnet::{BitNet, BitNetScale};
pub use bitsandbytes::{Bitsandbytes4, Bitsandbytes8, NestedScales};
pub(crate) use flat::{Stretch, stretches};
pub use fp8::Fp8;
pub use gptq::{Gptq, GptqFormat};
pub use hqq::Hqq;
pub use int8::IntQuantized;
pub use mlx::{Mlx, MlxMode};
pub use modelopt::W4a16Awq;
pub use mx::{Mx, MxNames, ScaleOrder};
pub use numbers::{Change, Nested, Number, Numbers};
pub(crate) use numbers::{N_CODES, one_row};
pub use nvfp4::{Nvfp4, Nvfp4Names};
pub use pack::{PackOrder, PackQuantized};
pub use parts::{Part, Parts};
pub use quanto::QuantoBits;
pub use recipe::{Effect, Global, Groups, Recipe, Value, Zeros};
pub(crate) use sparse::Line;
pub use sparse::{Sparse, SparseBitmask};
pub use stored::{Axis, Entries, Packed, Stored};
pub(crate) use stored::{INTERLEAVED, RowRuns};
pub use window::{Need, Window};

use tensorhold_core::Result;

/// A way to write a quantized weight, as the configuration of a checkpoint describes it.
pub trait Scheme {
    /// What the names of the parts end in that it may have.
    const PARTS: &'static [&'static str];

    /// The keys of the configuration that say what a scheme's fields are.
    const CONFIG_KEYS: &'static [&'static str];

    /// What `parts` mean.
    ///
    /// # Errors
    /// `TensorNotFound` for a part that is missing; `InvalidTensor` for one whose type or shape does not suit
    /// the others, with what it is and what it must be; `InvalidArgument` for a field that no file can have;
    /// `Overflow` past 2^64 bits.
    fn recipe(&self, parts: &Parts<'_>) -> Result<Recipe>;
}
