//! Any tensors: what `layout` writes, `Header` reads again, and so does the reference.
#![no_main]

use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use safetensors::tensor::TensorView;
use tensorhold_core::{
    Dtype, Header, LENGTH_BYTES, Layout, LayoutOptions, Order, Rules, TensorSpec, layout,
};

#[derive(Debug, Arbitrary)]
struct Input {
    tensors: Vec<(String, u8, Vec<u8>, u64)>,
    metadata: Option<Vec<(String, String)>>,
    align: Option<u8>,
    is_given_order: bool,
}

fuzz_target!(|input: Input| {
    let shapes: Vec<Vec<u64>> = input.tensors.iter().map(shape).collect();
    let tensors: Vec<TensorSpec<'_>> = input
        .tensors
        .iter()
        .zip(&shapes)
        .map(|((name, dtype, ..), shape)| TensorSpec {
            name,
            dtype: Dtype::ALL[usize::from(*dtype) % Dtype::ALL.len()],
            shape,
        })
        .collect();
    let pairs: Option<Vec<(&str, &str)>> = input.metadata.as_ref().map(|pairs| {
        pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    });
    let options = LayoutOptions {
        align: input.align.map(|power| 1 << (power % 17)),
        order: if input.is_given_order {
            Order::Given
        } else {
            Order::Reference
        },
    };
    if let Ok(layout) = layout(&tensors, pairs.as_deref(), &options) {
        read_again(&tensors, pairs.as_deref(), &options, &layout);
        if layout.file_size < 1 << 16 && options == LayoutOptions::default() {
            compare_bytes(&tensors, pairs.as_deref(), &layout);
        }
    }
});

/// Small sizes, and now and then one that may pass every limit.
fn shape((_, _, sizes, last): &(String, u8, Vec<u8>, u64)) -> Vec<u64> {
    let mut shape: Vec<u64> = sizes.iter().map(|size| u64::from(size % 8)).collect();
    if last % 4 == 3 {
        shape.push(last >> (last % 64));
    }
    shape
}

fn read_again(
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &LayoutOptions,
    layout: &Layout,
) {
    let align = u64::from(options.align.unwrap_or(8));
    assert_eq!(layout.head.len() as u64 % align, 0);
    let text = layout.head[LENGTH_BYTES as usize..].to_vec();
    let strict = Header::parse(text.clone(), layout.file_size, Rules::Strict);
    let header = Header::parse(text, layout.file_size, Rules::Compatible)
        .expect("what is written can be read");
    let is_clean = tensors
        .iter()
        .all(|tensor| !tensor.name.is_empty() && !tensor.name.contains(char::is_control));
    assert_eq!(strict.is_ok(), is_clean, "{strict:?}");
    assert_eq!(header.len(), tensors.len());
    assert_eq!(header.data_start(), layout.head.len() as u64);
    for (index, tensor) in tensors.iter().enumerate() {
        let read = header.tensor(tensor.name).expect("the tensor is there");
        assert_eq!((read.dtype, read.shape), (tensor.dtype, tensor.shape));
        assert_eq!(read.offsets, layout.offsets[index]);
    }
    let in_order = layout.order.iter().map(|&index| layout.offsets[index]);
    assert!(in_order.eq(header.tensors().map(|tensor| tensor.offsets)));
    let mut pairs = metadata.map(<[_]>::to_vec);
    if let Some(pairs) = &mut pairs {
        pairs.sort_unstable();
    }
    assert_eq!(
        header.metadata().map(|metadata| metadata.iter().collect()),
        pairs
    );
}

/// With one entry of metadata at most, the reference's bytes are always the same.
fn compare_bytes(tensors: &[TensorSpec<'_>], metadata: Option<&[(&str, &str)]>, layout: &Layout) {
    if metadata.is_some_and(|pairs| pairs.len() > 1 || (pairs.is_empty() && tensors.is_empty())) {
        return;
    }
    let zeros = vec![0; layout.file_size as usize];
    let views = tensors.iter().enumerate().map(|(index, tensor)| {
        let dtype = serde_json::from_value(tensor.dtype.name().into()).expect("a dtype of both");
        let shape = tensor.shape.iter().map(|&size| size as usize).collect();
        let data = &zeros[..layout.offsets[index].len() as usize];
        let view = TensorView::new(dtype, shape, data).expect("a tensor of both");
        (tensor.name, view)
    });
    let metadata: Option<HashMap<String, String>> = metadata.map(|pairs| {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        pairs.iter().map(owned).collect()
    });
    let theirs = safetensors::serialize(views, metadata).expect("the reference writes it");
    assert_eq!(theirs[..layout.head.len()], layout.head);
    assert_eq!(theirs.len() as u64, layout.file_size);
}
