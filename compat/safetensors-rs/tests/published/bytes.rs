//! What is written.

use std::collections::HashMap;

use proptest::option;
use proptest::prelude::*;

use crate::common::{published_dtype, verdict_of_ours, verdict_of_published};
use crate::generator::{size_bits, tensors};

macro_rules! serialize_with {
    ($crate_name:ident, $tensors:expr, $dtype:expr, $metadata:expr) => {{
        let data: Vec<Vec<u8>> = $tensors
            .iter()
            .zip(1u8..)
            .map(|(tensor, fill)| vec![fill; size_bits(tensor.1, &tensor.2) / 8])
            .collect();
        let views: HashMap<String, $crate_name::tensor::TensorView<'_>> = $tensors
            .iter()
            .zip(&data)
            .map(|((name, dtype, shape), data)| {
                let view =
                    $crate_name::tensor::TensorView::new($dtype(*dtype), shape.clone(), data);
                (name.clone(), view.unwrap())
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        $crate_name::serialize_to_file(&views, $metadata.clone(), &path).unwrap();
        let bytes = $crate_name::serialize(&views, $metadata).unwrap();
        assert!(
            std::fs::read(&path).unwrap() == bytes,
            "serialize and serialize_to_file differ"
        );
        bytes
    }};
}

proptest! {
    #[test]
    fn the_same_bytes_are_written(
        tensors in tensors(0..8),
        entry in option::of((".{0,4}", ".{0,4}")),
    ) {
        // The order of several entries is random in the published crate.
        let metadata: Option<HashMap<String, String>> = entry.map(|entry| HashMap::from([entry]));
        let ours = serialize_with!(safetensors, tensors, |dtype| dtype, metadata.clone());
        // A header without entries that the published crate closes too early is among its defects.
        let theirs = serialize_with!(published, tensors, published_dtype, metadata);
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(verdict_of_ours(&ours), verdict_of_published(&theirs));
    }
}
