//! Tensors of all kinds.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::Dtype;

use crate::common::DTYPES;

/// Name, dtype, shape.
pub type Described = (String, Dtype, Vec<usize>);

pub fn size_bits(dtype: Dtype, shape: &[usize]) -> usize {
    shape.iter().product::<usize>() * dtype.bitsize()
}

pub fn shapes() -> impl Strategy<Value = (Dtype, Vec<usize>)> {
    (select(&DTYPES[..]), vec(0..6usize, 0..4)).prop_map(|(dtype, mut shape)| {
        // What ends inside a byte is refused by both, which the verdicts show.
        if !size_bits(dtype, &shape).is_multiple_of(8) {
            shape.push(4);
        }
        (dtype, shape)
    })
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-c.0-2]{1,4}",
        1 => ".{0,6}",
        1 => Just("__METADATA__".to_owned()),
        1 => r#"[\x00-\x1f"\\/\x7f]{1,3}"#,
    ]
}

pub fn tensors(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Described>> {
    btree_map(names(), shapes(), n).prop_map(|tensors| {
        let flat = tensors.into_iter();
        flat.map(|(name, (dtype, shape))| (name, dtype, shape))
            .collect()
    })
}
