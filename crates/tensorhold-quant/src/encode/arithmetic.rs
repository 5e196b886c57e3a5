//! Numbers of narrower types, held as F32.

use tensorhold_core::Dtype;

/// The type that numbers are rounded to after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arithmetic {
    F32,
    Bf16,
    F16,
}

impl Arithmetic {
    pub(super) fn of(dtype: Dtype) -> Option<Arithmetic> {
        Some(match dtype {
            Dtype::F32 => Arithmetic::F32,
            Dtype::BF16 => Arithmetic::Bf16,
            Dtype::F16 => Arithmetic::F16,
            _ => return None,
        })
    }

    /// The number of this type nearest to one that is no NaN.
    #[inline(always)]
    pub(super) fn round(self, value: f32) -> f32 {
        match self {
            Arithmetic::F32 => value,
            Arithmetic::Bf16 => brain(value),
            Arithmetic::F16 => half(value),
        }
    }

    /// One to the next number of the type: what stands for a scale of 0.
    pub(super) fn epsilon(self) -> f32 {
        match self {
            Arithmetic::F32 => f32::EPSILON,
            Arithmetic::Bf16 => 1.0 / 128.0,
            Arithmetic::F16 => 1.0 / 1024.0,
        }
    }
}

#[inline(always)]
pub(super) fn brain(value: f32) -> f32 {
    let bits = value.to_bits();
    let half = 0x7fff + ((bits >> 16) & 1);
    f32::from_bits(bits.wrapping_add(half) & 0xffff_0000)
}

#[inline(always)]
pub(super) fn half(value: f32) -> f32 {
    const LEAST_NORMAL: u32 = 113 << 23;
    const PAST_ALL: u32 = 143 << 23;
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let normal = (magnitude + 0xfff + ((magnitude >> 13) & 1)) & !0x1fff;
    let normal = if normal >= PAST_ALL {
        255 << 23
    } else {
        normal
    };
    // The last place of numbers from 0.5 to 1 is that of the subnormal ones of F16.
    let subnormal = (f32::from_bits(magnitude) + 0.5) - 0.5;
    let rounded = if magnitude < LEAST_NORMAL {
        subnormal.to_bits()
    } else {
        normal
    };
    f32::from_bits(rounded | bits & 0x8000_0000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast;

    #[test]
    fn numbers_are_rounded_as_a_cast_does() {
        let all = (0..=0xffff_u32).flat_map(|high| {
            [0, 1, 0x0fff, 0x1000, 0x1001, 0x3000, 0x7fff, 0x8000, 0x8001]
                .map(|low| high << 16 | low)
        });
        let values: Vec<f32> = all
            .map(f32::from_bits)
            .filter(|value| !value.is_nan())
            .collect();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        for (dtype, arithmetic) in [
            (Dtype::BF16, Arithmetic::Bf16),
            (Dtype::F16, Arithmetic::F16),
        ] {
            let mut narrow = vec![0; values.len() * 2];
            cast(Dtype::F32, &bytes, dtype, &mut narrow).expect("both are floats");
            let mut again = vec![0; bytes.len()];
            cast(dtype, &narrow, Dtype::F32, &mut again).expect("both are floats");
            let rounded = values
                .iter()
                .map(|value| arithmetic.round(*value).to_bits().to_le_bytes());
            assert!(rounded.eq(again.as_chunks().0.iter().copied()), "{dtype}");
        }
    }
}
