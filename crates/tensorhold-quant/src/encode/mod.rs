//! Scales and codes of weights: each rounded to the nearest, with ties to even.
//!
//! ```text
//! for each group: the least and the greatest of its weights and 0       (`Coding::observe`)
//! its scale and its zero, of these two                                  (`Coding::scale`)
//! for each weight: code <- round(clamp(weight / scale + zero))          (`Coding::encode`)
//! ```
//!
//! Everything is computed in the type that the scales are stored in: after each step a number is rounded to it, as a
//! program does whose tensors have that type. So codes and scales are those of compressed-tensors for weights of this type.
//!
//! ```
//! use tensorhold_core::Dtype;
//! use tensorhold_quant::encode::{Code, Coding, Extremes};
//! use tensorhold_quant::scheme::Groups;
//!
//! let coding = Coding::new(Code::Int { bits: 4, symmetric: true }, Dtype::F32)?;
//! let (weights, row) = ([7.5f32, -1.0, 0.4, 15.0, 0.0, -15.0], Groups { rows: 1, columns: 3 });
//! let mut extremes = [Extremes::default(); 2];
//! coding.observe(&weights, 3, row, &mut extremes)?;
//! let scales = [coding.scale(extremes[0], 1.0)?, coding.scale(extremes[1], 1.0)?];
//! assert_eq!((scales[0].value, scales[1].value), (1.0, 2.0));
//!
//! let mut codes = [0; 6];
//! coding.encode(&weights, 3, row, &scales, 1.0, &mut codes)?;
//! assert_eq!(codes, [15, 7, 8, 15, 8, 0]);
//! # Ok::<(), tensorhold_core::Error>(())
//! ```
//!
//! # Source
//! compressed-tensors 0.20.0 on a CPU: `calculate_qparams`, `generate_gparam` and `quantize`, bit for bit, as
//! `tests/encode_golden.py` checks, but for two things that its F16 is too narrow for: the scale of a whole matrix (NVFP4) and
//! powers of two (MX) are computed in F32 there.

mod arithmetic;
mod rows;
mod scale;

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use crate::codec::FloatCode;
use crate::scheme::Groups;
use arithmetic::Arithmetic;

/// What weights become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Floats of 8 bits, E4M3 or E5M2; the greatest weight of a group becomes the greatest finite number.
    Float(FloatCode),
    /// Integers of 2 to 8 bits, counted from the least one on.
    Int {
        /// The width of a code.
        bits: u32,
        /// Whether the zero is half of the range, and not a number of each group.
        symmetric: bool,
    },
    /// Floats, E2M1 or E4M3, whose scale is a power of two (MXFP4, MXFP8).
    Power(FloatCode),
    /// E2M1 whose scale is an E4M3, divided by a scale of the whole matrix.
    Nvfp4,
}

/// What weights become, and the type that this is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Coding {
    code: Code,
    arithmetic: Arithmetic,
}

/// The least and the greatest of some weights and 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Extremes {
    /// The least, at most 0.
    pub least: f32,
    /// The greatest, at least 0.
    pub greatest: f32,
}

/// What a group of codes is multiplied by and counted from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The scale, a number of the type that it is stored in: E4M3 for NVFP4, else that of the arithmetic.
    pub value: f32,
    /// The code of 0 where codes are integers, and else 0.
    pub zero: u8,
}

impl Extremes {
    /// Those of the weights of both.
    #[must_use]
    pub fn joined(self, other: Extremes) -> Extremes {
        Extremes {
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
        }
    }

    /// The greatest magnitude.
    #[must_use]
    pub fn magnitude(self) -> f32 {
        self.greatest.max(-self.least)
    }
}

impl Coding {
    /// Codes whose scales have type `scales`, F32, BF16 or F16. The scales of MX and NVFP4 are stored otherwise; what is
    /// computed before is so too.
    ///
    /// # Errors
    /// `InvalidArgument` for another type, integers of another width, and floats that are not of that kind of code.
    pub fn new(code: Code, scales: Dtype) -> Result<Coding> {
        let is_fine = match code {
            Code::Float(float) => matches!(float, FloatCode::E4m3 | FloatCode::E5m2),
            Code::Int { bits, .. } => matches!(bits, 2..=8),
            Code::Power(float) => matches!(float, FloatCode::E2m1 | FloatCode::E4m3),
            Code::Nvfp4 => true,
        };
        match (is_fine, Arithmetic::of(scales)) {
            (true, Some(arithmetic)) => Ok(Coding { code, arithmetic }),
            (false, _) => Err(invalid(format!("weights do not become {code:?}"))),
            (_, None) => Err(invalid(format!(
                "scales of type `{scales}`: they are F32, BF16 or F16"
            ))),
        }
    }

    /// What weights become.
    #[must_use]
    pub fn code(self) -> Code {
        self.code
    }

    /// Joins the extremes of the weights of every group into what `into` has of it.
    ///
    /// # Shapes
    /// `weights` is rows of `n_columns`, numbers of the type of the arithmetic, from the first row and column of a group on.
    /// `into` is a row of groups for each `groups.rows` of them.
    ///
    /// # Errors
    /// `InvalidTensor` where a weight is NaN or infinite, with its place; `InvalidArgument` when the lengths are not so.
    pub fn observe(
        self,
        weights: &[f32],
        n_columns: usize,
        groups: Groups,
        into: &mut [Extremes],
    ) -> Result<()> {
        let grid = rows::Grid::of(weights.len(), n_columns, groups, into.len())?;
        rows::observe(weights, grid, into)
    }

    /// The scale and the zero of a group with these extremes. `global` is [`Coding::global`] for NVFP4, and else 1.
    ///
    /// A group of zeros has the scale that compressed-tensors gives it, which is not 0.
    ///
    /// # Errors
    /// `InvalidTensor` where the scale is too large for its type.
    pub fn scale(self, extremes: Extremes, global: f32) -> Result<Scale> {
        scale::scale(self.code, self.arithmetic, extremes, global)
    }

    /// What the scales of a matrix with these extremes are divided by: 1 but for NVFP4.
    #[must_use]
    pub fn global(self, extremes: Extremes) -> f32 {
        match self.code {
            Code::Nvfp4 => scale::global(self.arithmetic, extremes),
            _ => 1.0,
        }
    }

    /// Writes the codes of `weights` into `into`, each in the low bits of its byte.
    ///
    /// # Shapes
    /// `weights` and `scales` are as in [`Coding::observe`]; `into` has a byte for each weight.
    ///
    /// # Errors
    /// `InvalidArgument` when the lengths are not so.
    pub fn encode(
        self,
        weights: &[f32],
        n_columns: usize,
        groups: Groups,
        scales: &[Scale],
        global: f32,
        into: &mut [u8],
    ) -> Result<()> {
        let grid = rows::Grid::of(weights.len(), n_columns, groups, scales.len())?;
        if into.len() != weights.len() {
            return Err(invalid(format!(
                "{} weights become as many codes, but there is room for {}",
                weights.len(),
                into.len()
            )));
        }
        rows::encode(self, weights, grid, scales, global, into)
    }
}

/// The byte that stands for `scale`, a power of two of F32.
#[must_use]
pub fn power_code(scale: f32) -> u8 {
    (scale.to_bits() >> 23) as u8
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
