//! The parts of an F32.

pub(super) const SIGN: u32 = 1 << 31;
pub(super) const INFINITY: u32 = 0xff << 23;
pub(super) const MANTISSA: u32 = (1 << 23) - 1;
pub(super) const QUIET_NAN: u32 = INFINITY | 1 << 22;
/// What PyTorch reads the one NaN of a type without infinities as.
pub(super) const SIGNALLING_NAN: u32 = INFINITY | 1;

/// The bits of the power of two whose last place is worth the least subnormal of a float with `mantissa`
/// bits of mantissa and an exponent biased by `bias`.
#[inline(always)]
pub(super) const fn with_last_place(mantissa: u32, bias: u32) -> u32 {
    (127 + 23 + 1 - bias - mantissa) << 23
}
