//! What of a checkpoint is quantized, and in what.

mod name;
mod weight;

pub use name::SchemeName;
pub use weight::{
    DtypeFrom, Layout, QuantFinding, QuantFindingKind, Quantization, QuantizedWeight,
};
