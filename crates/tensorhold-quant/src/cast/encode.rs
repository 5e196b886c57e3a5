//! From the bits of an F32 to each float type, rounded to nearest even.

use super::single;

/// A float type that elements can be written as.
pub(crate) trait Encode {
    /// One element, little-endian.
    type Bytes: Copy;

    /// The room for elements in `bytes`; a part of an element at the end is left out.
    fn elements(bytes: &mut [u8]) -> &mut [Self::Bytes];

    /// The element nearest to the F32 of these bits.
    fn encode(bits: u32) -> Self::Bytes;
}

/// Writes F32 `singles` into `into`, as many as there are of both.
#[inline(always)]
pub(super) fn encode_all<T: Encode>(singles: &[[u8; 4]], into: &mut [u8]) {
    for (single, into) in singles.iter().zip(T::elements(into)) {
        *into = T::encode(u32::from_le_bytes(*single));
    }
}

/// Implements [`Encode`] for types of a known width, from what makes their bits of an F32's.
macro_rules! encoders {
    ($($(#[$doc:meta])* $name:ident: $bits:ty => $encode:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl Encode for $name {
            type Bytes = [u8; size_of::<$bits>()];

            #[inline(always)]
            fn elements(bytes: &mut [u8]) -> &mut [Self::Bytes] {
                bytes.as_chunks_mut().0
            }

            #[inline(always)]
            fn encode(bits: u32) -> Self::Bytes {
                let encode: fn(u32) -> $bits = $encode;
                encode(bits).to_le_bytes()
            }
        }
    )*};
}

encoders! {
    F64: u64 => widen;
    F16: u16 => half;
    /// BF16 of what is an F32 or an F64: a NaN is all ones.
    Bf16OnesNan: u16 => brain::<0xffff>;
    /// BF16 of what is a smaller type: a NaN is the positive quiet one.
    Bf16QuietNan: u16 => brain::<0x7fc0>;
    F8E4m3: u8 => saturating::<3, 7, 0x7e>;
    F8E5m2: u8 => saturating::<2, 15, 0x7c>;
    F8E4m3Fnuz: u8 => unsigned_zero::<3, 8>;
    F8E5m2Fnuz: u8 => unsigned_zero::<2, 16>;
    F8E8m0: u8 => power_of_two;
}

/// What a NaN becomes is spelled out, since the language leaves it open.
#[inline(always)]
fn widen(bits: u32) -> u64 {
    let value = f32::from_bits(bits);
    let sign = u64::from(bits & single::SIGN) << 32;
    let payload = u64::from(bits & single::MANTISSA) << 29;
    match value.is_nan() {
        true => sign | 0x7ff8 << 48 | payload,
        false => f64::from(value).to_bits(),
    }
}

/// A NaN keeps its sign and the upper bits of its payload; what is too large is infinity.
#[inline(always)]
fn half(bits: u32) -> u16 {
    let magnitude = bits & !single::SIGN;
    let rounded = round::<10, 15>(magnitude).min(0x7c00);
    let nan = 0x7e00 | (magnitude >> 13) & 0x3ff;
    let value = if magnitude > single::INFINITY {
        nan
    } else {
        rounded
    };
    (value | (bits & single::SIGN) >> 16) as u16
}

#[inline(always)]
fn brain<const NAN: u16>(bits: u32) -> u16 {
    let half = 0x7fff + ((bits >> 16) & 1);
    let rounded = bits.wrapping_add(half) >> 16;
    match bits & !single::SIGN > single::INFINITY {
        true => NAN,
        false => rounded as u16,
    }
}

/// A signed 8-bit float; what is over `LIMIT`, infinity too, becomes `LIMIT`; a NaN keeps its sign.
#[inline(always)]
fn saturating<const MANTISSA: u32, const BIAS: u32, const LIMIT: u32>(bits: u32) -> u8 {
    let magnitude = bits & !single::SIGN;
    let rounded = round::<MANTISSA, BIAS>(magnitude).min(LIMIT);
    let value = if magnitude > single::INFINITY {
        0x7f
    } else {
        rounded
    };
    (value | (bits & single::SIGN) >> 24) as u8
}

/// An 8-bit float with one zero and one NaN; what is too large, infinity too, becomes the NaN.
#[inline(always)]
fn unsigned_zero<const MANTISSA: u32, const BIAS: u32>(bits: u32) -> u8 {
    const NAN: u32 = 0x80;
    let rounded = round::<MANTISSA, BIAS>(bits & !single::SIGN).min(NAN);
    let sign = if rounded == 0 {
        0
    } else {
        (bits & single::SIGN) >> 24
    };
    (rounded | sign) as u8
}

/// The sign is dropped; zero becomes 2^-127, the least there is; halfway between two powers is up, and
/// infinity is NaN.
#[inline(always)]
fn power_of_two(bits: u32) -> u8 {
    let exponent = (bits >> 23) & 0xff;
    let mantissa = bits & single::MANTISSA;
    // 1.5 times a power is a tie and goes up, as the implied bit of a normal number is odd; 2^-127 itself
    // is a subnormal F32 that stands for exactly the code 0.
    let up = mantissa >= 1 << 22 && (exponent > 0 || mantissa > 1 << 22);
    match exponent {
        0xff => 0xff,
        _ => (exponent + u32::from(up)) as u8,
    }
}

/// The magnitude of a small float nearest to that of an F32; it grows on past the largest of the type.
#[inline(always)]
fn round<const MANTISSA: u32, const BIAS: u32>(magnitude: u32) -> u32 {
    let shift = 23 - MANTISSA;
    let half = (1 << (shift - 1)) - 1 + ((magnitude >> shift) & 1);
    let rebias = half.wrapping_sub((127 - BIAS) << 23);
    let normal = magnitude.wrapping_add(rebias) >> shift;
    // The addition rounds to a multiple of the last place of `unit`, which is the least subnormal.
    let unit = single::with_last_place(MANTISSA, BIAS);
    let sum = f32::from_bits(magnitude) + f32::from_bits(unit);
    match magnitude < (128 - BIAS) << 23 {
        true => sum.to_bits() - unit,
        false => normal,
    }
}
