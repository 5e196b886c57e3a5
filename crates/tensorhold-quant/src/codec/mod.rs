//! How quantized weights are written: in which bits each code lies, and which number a code is.
//!
//! A [`BitOrder`] is a way to lay codes of 1 to 8 bits into bytes or words; it says which bytes hold which
//! codes, takes any of them out and puts them in. A [`FloatCode`], an [`E8m0`] or a [`FourBitTable`] is the number that
//! a code stands for. A [`BlockedScales`] is the order in which the scales of a matrix lie for cuBLAS.
//!
//! Codes are one byte each, in the low bits, whatever their width is in the file. One call is one run of codes:
//! a row whose end is filled up to a word, or a whole tensor where none is; or rows of a matrix whose columns are
//! the runs ([`BitOrder::unpack_rows`]).
//!
//! # Source
//! The programs that write each order are named with it. Where the bits of a number are an OCP format, it is the
//! Microscaling specification 1.0.

mod awq;
mod awq_fast;
mod blocked;
mod float;
mod high_first;
mod lsb;
mod order;
mod padded;
mod planar;
mod power;
mod rows;
mod strided;
mod table;
mod unit;

pub use blocked::BlockedScales;
pub use float::FloatCode;
pub(crate) use order::PairOrder;
pub use order::{BitOrder, PartOrder};
pub use power::{AllOnes, E8m0, Zero};
pub use table::FourBitTable;
