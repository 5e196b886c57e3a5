//! How much a shape holds.

use alloc::format;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// The number of elements in a tensor of `shape`, or `None` past 2^64. A shape without dimensions
/// holds one element.
///
/// The product is taken from the first dimension on, as the reference takes it: a zero helps only
/// the dimensions after it, so `[0, 2^63, 4]` holds nothing and `[2^63, 4, 0]` is too large.
#[must_use]
pub fn n_elements(shape: &[u64]) -> Option<u64> {
    shape
        .iter()
        .try_fold(1u64, |product, &size| product.checked_mul(size))
}

/// The bytes that a tensor of `shape` takes, its elements packed without gaps.
///
/// # Errors
/// `Overflow` if the number of elements or of bits passes 2^64, `Misaligned` if the last element
/// ends inside a byte.
pub fn shape_size_bytes(dtype: Dtype, shape: &[u64]) -> Result<u64> {
    let n_bits = n_elements(shape)
        .and_then(|n_elements| n_elements.checked_mul(u64::from(dtype.width_bits())))
        .ok_or_else(|| overflow(dtype, shape))?;
    if n_bits.is_multiple_of(8) {
        Ok(n_bits / 8)
    } else {
        Err(misaligned(dtype, shape, n_bits))
    }
}

fn overflow(dtype: Dtype, shape: &[u64]) -> Error {
    Error::new(
        ErrorKind::Overflow,
        format!("the size of shape {shape:?} in {dtype} passes 2^64 bits"),
    )
}

fn misaligned(dtype: Dtype, shape: &[u64], n_bits: u64) -> Error {
    Error::new(
        ErrorKind::Misaligned,
        format!(
            "shape {shape:?} in {dtype} takes {n_bits} bits, which is no whole number of bytes"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_holds_one_element() {
        assert_eq!(n_elements(&[]), Some(1));
        assert_eq!(shape_size_bytes(Dtype::C64, &[]).unwrap(), 8);
    }

    #[test]
    fn a_zero_helps_only_the_dimensions_after_it() {
        assert_eq!(shape_size_bytes(Dtype::U8, &[0, 1 << 63, 4]).unwrap(), 0);
        let error = shape_size_bytes(Dtype::U8, &[1 << 63, 4, 0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overflow);
        assert_eq!(
            error.message(),
            "the size of shape [9223372036854775808, 4, 0] in U8 passes 2^64 bits"
        );
    }

    #[test]
    fn the_limit_counts_bits() {
        assert_eq!(
            shape_size_bytes(Dtype::U8, &[(1 << 61) - 1]).unwrap(),
            (1 << 61) - 1
        );
        for dtype in Dtype::ALL {
            let error = shape_size_bytes(dtype, &[1 << 62]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overflow, "{dtype}");
        }
    }

    #[test]
    fn sub_byte_elements_must_fill_their_last_byte() {
        assert_eq!(shape_size_bytes(Dtype::F4, &[3, 2]).unwrap(), 3);
        assert_eq!(shape_size_bytes(Dtype::F6_E2M3, &[4]).unwrap(), 3);
        assert_eq!(shape_size_bytes(Dtype::F4, &[3, 0]).unwrap(), 0);
        let error = shape_size_bytes(Dtype::F6_E3M2, &[3]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misaligned);
        assert_eq!(
            error.message(),
            "shape [3] in F6_E3M2 takes 18 bits, which is no whole number of bytes"
        );
    }
}
