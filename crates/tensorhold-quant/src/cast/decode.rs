//! From each float type to the bits of an F32.
//!
//! Nothing is lost but from F64, which rounds to nearest even. A NaN keeps its sign and the upper bits of its
//! payload and becomes quiet, but for BF16, whose bits are copied as they are.

use super::single;

/// A float type that elements can be read from.
pub(crate) trait Decode {
    /// One element, little-endian.
    type Bytes: Copy;

    /// The elements of `bytes`; a part of an element at the end is left out.
    fn elements(bytes: &[u8]) -> &[Self::Bytes];

    /// The bits of the F32 that `element` is.
    fn decode(element: Self::Bytes) -> u32;
}

/// Writes the elements of `bytes` into `into` as F32, as many as there are of both.
#[inline(always)]
pub(super) fn decode_all<T: Decode>(bytes: &[u8], into: &mut [[u8; 4]]) {
    for (element, into) in T::elements(bytes).iter().zip(into) {
        *into = T::decode(*element).to_le_bytes();
    }
}

/// Implements [`Decode`] for types of a known width, from what makes an F32 of their bits.
macro_rules! decoders {
    ($($(#[$doc:meta])* $name:ident: $bits:ty => $decode:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl Decode for $name {
            type Bytes = [u8; size_of::<$bits>()];

            #[inline(always)]
            fn elements(bytes: &[u8]) -> &[Self::Bytes] {
                bytes.as_chunks().0
            }

            #[inline(always)]
            fn decode(element: Self::Bytes) -> u32 {
                let decode: fn($bits) -> u32 = $decode;
                decode(<$bits>::from_le_bytes(element))
            }
        }
    )*};
}

decoders! {
    F64: u64 => narrow;
    F16: u16 => |bits| small::<10, 15, 0x7c00>(u32::from(bits), 15);
    Bf16: u16 => |bits| u32::from(bits) << 16;
    F8E4m3: u8 => |bits| small::<3, 7, 0x7f>(u32::from(bits), 7);
    F8E5m2: u8 => |bits| small::<2, 15, 0x7c>(u32::from(bits), 7);
    F8E4m3Fnuz: u8 => unsigned_zero::<3, 8>;
    F8E5m2Fnuz: u8 => unsigned_zero::<2, 16>;
    F8E8m0: u8 => power_of_two;
}

/// Rounds an F64, given as its bits.
///
/// What a NaN becomes is spelled out, since the language leaves it open.
#[inline(always)]
fn narrow(bits: u64) -> u32 {
    let value = f64::from_bits(bits);
    let sign = (bits >> 32) as u32 & single::SIGN;
    let payload = (bits >> 29) as u32 & single::MANTISSA;
    match value.is_nan() {
        true => sign | single::QUIET_NAN | payload,
        false => (value as f32).to_bits(),
    }
}

/// A float of fewer bits with `MANTISSA` bits of mantissa and an exponent biased by `BIAS`, whose sign is
/// bit `sign_bit` and whose magnitudes from `SPECIAL` on are infinity and NaN.
#[inline(always)]
fn small<const MANTISSA: u32, const BIAS: u32, const SPECIAL: u32>(
    bits: u32,
    sign_bit: u32,
) -> u32 {
    let magnitude = bits & ((1 << sign_bit) - 1);
    let sign = (bits >> sign_bit) << 31;
    let finite = finite::<MANTISSA, BIAS>(magnitude);
    let special = (magnitude << (23 - MANTISSA)) | single::INFINITY;
    let quiet = match special > single::INFINITY {
        true => special | single::QUIET_NAN,
        false => special,
    };
    sign | if magnitude < SPECIAL { finite } else { quiet }
}

/// An 8-bit float without infinities and with one zero and one NaN, which stands where -0 would be.
#[inline(always)]
fn unsigned_zero<const MANTISSA: u32, const BIAS: u32>(bits: u8) -> u32 {
    let bits = u32::from(bits);
    let value = ((bits >> 7) << 31) | finite::<MANTISSA, BIAS>(bits & 0x7f);
    if bits == 0x80 {
        single::SIGNALLING_NAN
    } else {
        value
    }
}

/// The F32 of a finite magnitude.
#[inline(always)]
pub(crate) fn finite<const MANTISSA: u32, const BIAS: u32>(magnitude: u32) -> u32 {
    let normal = (magnitude << (23 - MANTISSA)) + ((127 - BIAS) << 23);
    // A float whose last place is worth as much as that of the small type's subnormals: they are a count
    // of it. No subnormal F32 is computed with, which some processors do slowly.
    let unit = single::with_last_place(MANTISSA, BIAS);
    let subnormal = f32::from_bits(unit + magnitude) - f32::from_bits(unit);
    match magnitude < 1 << MANTISSA {
        true => subnormal.to_bits(),
        false => normal,
    }
}

/// Two to the power of `bits - 127`.
#[inline(always)]
fn power_of_two(bits: u8) -> u32 {
    match bits {
        // 2^-127 is subnormal.
        0 => 1 << 22,
        0xff => single::SIGNALLING_NAN,
        _ => u32::from(bits) << 23,
    }
}
