//! The scale and the zero of a group.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::arithmetic::{Arithmetic, brain};
use super::{Code, Extremes, Scale};
use crate::cast;
use crate::codec::FloatCode;

/// The greatest numbers of E4M3 and of E2M1.
const GREATEST_E4M3: f32 = 448.0;
const GREATEST_E2M1: f32 = 6.0;

pub(super) fn scale(
    code: Code,
    arithmetic: Arithmetic,
    extremes: Extremes,
    global: f32,
) -> Result<Scale> {
    let magnitude = extremes.magnitude();
    let over =
        |greatest: f32| or_epsilon(arithmetic.round(magnitude / greatest), arithmetic.epsilon());
    let scale = match code {
        Code::Float(float) => plain(over(greatest(float))),
        Code::Power(float) => plain(power(magnitude, float)),
        Code::Nvfp4 => plain(of_nvfp4(arithmetic, magnitude, global)),
        Code::Int {
            bits,
            symmetric: true,
        } => Scale {
            value: over(range(bits) / 2.0),
            zero: 1 << (bits - 1),
        },
        Code::Int {
            bits,
            symmetric: false,
        } => asymmetric(bits, arithmetic, extremes),
    };
    match scale.value.is_finite() {
        true => Ok(scale),
        false => Err(too_large(extremes)),
    }
}

fn too_large(Extremes { least, greatest }: Extremes) -> Error {
    let message =
        format!("weights from {least} to {greatest} have a scale that is too large for its type");
    Error::new(ErrorKind::InvalidTensor, message).with_hint("F32 scales are wide enough")
}

pub(super) fn global(arithmetic: Arithmetic, extremes: Extremes) -> f32 {
    let magnitude = extremes.magnitude().max(f32::MIN_POSITIVE);
    let round = |value| match arithmetic {
        Arithmetic::Bf16 => brain(value),
        // F16 ends at 65504, which weights under 0.04 pass.
        Arithmetic::F16 | Arithmetic::F32 => value,
    };
    // A number over a tensor is the tensor's reciprocal times the number, in PyTorch.
    let rounded = round(GREATEST_E4M3 * GREATEST_E2M1 * round(1.0 / magnitude));
    match rounded.is_finite() {
        true => rounded,
        false => 1.0,
    }
}

fn plain(value: f32) -> Scale {
    Scale { value, zero: 0 }
}

fn or_epsilon(scale: f32, epsilon: f32) -> f32 {
    if scale == 0.0 { epsilon } else { scale }
}

/// The greatest finite number of a float.
pub(super) fn greatest(float: FloatCode) -> f32 {
    match float {
        FloatCode::E2m1 => GREATEST_E2M1,
        FloatCode::E5m2 => 57344.0,
        _ => GREATEST_E4M3,
    }
}

/// The difference of the greatest and the least integer.
fn range(bits: u32) -> f32 {
    ((1u32 << bits) - 1) as f32
}

fn asymmetric(bits: u32, arithmetic: Arithmetic, extremes: Extremes) -> Scale {
    let Extremes { least, greatest } = extremes;
    let scale = arithmetic.round(arithmetic.round(greatest - least) / range(bits));
    let lowest = -((1u32 << (bits - 1)) as f32);
    let highest = -lowest - 1.0;
    let zero = match scale == 0.0 {
        true => 0.0,
        false => arithmetic
            .round(lowest - arithmetic.round(least / scale))
            .clamp(lowest, highest),
    };
    Scale {
        value: or_epsilon(scale, arithmetic.epsilon()),
        zero: (zero.round_ties_even() - lowest) as u8,
    }
}

/// A power of two: that below the magnitude, or above it where it is 1.75 times that below, less those of the float's greatest.
fn power(magnitude: f32, float: FloatCode) -> f32 {
    let offset = match float {
        FloatCode::E2m1 => 2,
        _ => 8,
    };
    let exponent = (magnitude.to_bits() + (1 << 21)) >> 23;
    match exponent.saturating_sub(offset) {
        0 => f32::from_bits(1 << 22),
        _ if exponent == 255 => f32::INFINITY,
        exponent => f32::from_bits(exponent << 23),
    }
}

fn of_nvfp4(arithmetic: Arithmetic, magnitude: f32, global: f32) -> f32 {
    let scale = global * arithmetic.round(magnitude / GREATEST_E2M1);
    let (mut byte, mut rounded) = ([0], [0; 4]);
    let bytes = scale.min(GREATEST_E4M3).to_le_bytes();
    let there = cast(Dtype::F32, &bytes, Dtype::F8_E4M3, &mut byte);
    let back = there.and_then(|()| cast(Dtype::F8_E4M3, &byte, Dtype::F32, &mut rounded));
    back.expect("floats of one element each are cast");
    or_epsilon(f32::from_le_bytes(rounded), 0.125)
}
