//! Headers are built byte for byte as crate `safetensors` 0.8.0 builds them, and read back the same.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use safetensors::tensor::{Dtype as TheirDtype, View};
use tensorhold_core::{
    ByteRange, Dtype, ErrorKind, Header, Layout, LayoutOptions, MAX_HEADER_BYTES, Order, Rules,
    TensorSpec, layout,
};

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
}

impl Tensor {
    fn spec(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            dtype: self.dtype,
            shape: &self.shape,
        }
    }

    fn size_bytes(&self) -> usize {
        let n_elements: u64 = self.shape.iter().product();
        (n_elements * u64::from(self.dtype.width_bits()) / 8) as usize
    }
}

/// The tensor for the reference, its data zeros.
struct Zeros {
    dtype: TheirDtype,
    shape: Vec<usize>,
    size_bytes: usize,
}

impl View for Zeros {
    fn dtype(&self) -> TheirDtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        vec![0; self.size_bytes].into()
    }

    fn data_len(&self) -> usize {
        self.size_bytes
    }
}

fn zeros(tensor: &Tensor) -> Zeros {
    let name = format!("\"{}\"", tensor.dtype);
    Zeros {
        dtype: serde_json::from_str(&name).expect("both know the same dtypes"),
        shape: tensor.shape.iter().map(|&size| size as usize).collect(),
        size_bytes: tensor.size_bytes(),
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-c]{1,2}\\.[0-9]{1,2}",
        1 => any::<String>(),
        1 => "[\u{0}-\u{1f}\"\\\\/\u{7f}\u{80}-\u{9f}é🙂]{0,5}",
    ]
    .prop_filter("the reserved name", |name| name != "__metadata__")
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let dtype = prop::sample::select(Dtype::ALL.to_vec());
    (name(), dtype, prop::collection::vec(0..5_u64, 0..4)).prop_map(|(name, dtype, mut shape)| {
        if dtype.width_bytes().is_none() {
            shape.push(4);
        }
        Tensor { name, dtype, shape }
    })
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    prop::collection::vec(tensor(), 0..8).prop_map(|mut tensors| {
        let mut names = HashSet::new();
        tensors.retain(|tensor| names.insert(tensor.name.clone()));
        tensors
    })
}

fn build(
    tensors: &[Tensor],
    metadata: Option<&[(&str, &str)]>,
    options: LayoutOptions,
) -> tensorhold_core::Result<Layout> {
    let specs: Vec<TensorSpec<'_>> = tensors.iter().map(Tensor::spec).collect();
    layout(&specs, metadata, &options)
}

fn whole(layout: &Layout) -> Vec<u8> {
    let mut file = layout.head.clone();
    file.resize(layout.file_size as usize, 0);
    file
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2048,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bytes_are_those_of_the_reference(
        tensors in tensors(),
        metadata in prop::option::of(prop::option::of((any::<String>(), any::<String>()))),
    ) {
        // The reference cannot write an empty map of metadata without tensors.
        prop_assume!(!(tensors.is_empty() && metadata == Some(None)));
        let pairs = metadata.as_ref().map(|pair| {
            pair.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>()
        });
        let ours = build(&tensors, pairs.as_deref(), LayoutOptions::default()).unwrap();
        let their_metadata: Option<HashMap<String, String>> =
            metadata.map(|pair| pair.into_iter().collect());
        let views = tensors.iter().map(|tensor| (&tensor.name, zeros(tensor)));
        let theirs = safetensors::serialize(views, their_metadata).unwrap();
        prop_assert_eq!(whole(&ours), theirs);
    }

    #[test]
    fn what_is_laid_out_is_read_back(
        tensors in tensors(),
        metadata in prop::option::of(prop::collection::btree_map(name(), name(), 0..4)),
        align in prop::option::of((3..16_u32).prop_map(|bits| 1 << bits)),
        order in prop::sample::select(vec![Order::Reference, Order::Given]),
    ) {
        let pairs: Option<Vec<(&str, &str)>> = metadata.as_ref().map(|pairs| {
            // Given in the wrong order, written in the right one.
            pairs.iter().rev().map(|(key, value)| (key.as_str(), value.as_str())).collect()
        });
        let layout = build(&tensors, pairs.as_deref(), LayoutOptions { align, order }).unwrap();
        let header = Header::parse_file(&whole(&layout), Rules::Compatible).unwrap();
        prop_assert_eq!(header.file_size(), layout.file_size);
        prop_assert_eq!(header.data_start(), layout.head.len() as u64);
        prop_assert_eq!(header.data_start() % u64::from(align.unwrap_or(8)), 0);
        prop_assert_eq!(header.len(), tensors.len());
        for (tensor, offsets) in tensors.iter().zip(&layout.offsets) {
            let info = header.tensor(&tensor.name).unwrap();
            prop_assert_eq!(info.name, &tensor.name);
            prop_assert_eq!(info.dtype, tensor.dtype);
            prop_assert_eq!(info.shape, &tensor.shape);
            prop_assert_eq!(info.offsets, *offsets);
            prop_assert_eq!(info.size_bytes(), tensor.size_bytes() as u64);
        }
        let starts: Vec<ByteRange> = layout.order.iter().map(|&index| layout.offsets[index]).collect();
        prop_assert!(starts.is_sorted());
        if order == Order::Given {
            prop_assert!(layout.order.is_sorted());
        }
        let read: Option<Vec<(&str, &str)>> = header.metadata().map(|pairs| pairs.iter().collect());
        let sorted = pairs.map(|mut pairs| { pairs.reverse(); pairs });
        prop_assert_eq!(read, sorted);
    }
}

fn spec<'a>(name: &'a str, dtype: Dtype, shape: &'a [u64]) -> TensorSpec<'a> {
    TensorSpec { name, dtype, shape }
}

fn refused(
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    align: Option<u32>,
) -> (ErrorKind, String) {
    let options = LayoutOptions {
        align,
        order: Order::Reference,
    };
    let error = layout(tensors, metadata, &options).expect_err("they are refused");
    (error.kind(), error.to_string())
}

#[test]
fn what_no_reader_could_read_is_refused() {
    use Dtype::*;
    for (tensors, expected) in [
        (
            vec![spec("a", U8, &[]), spec("b", U8, &[]), spec("a", F32, &[])],
            (
                ErrorKind::DuplicateTensor,
                "the name `a` is given to two tensors",
            ),
        ),
        (
            vec![spec("__metadata__", U8, &[])],
            (
                ErrorKind::InvalidTensor,
                "no tensor can be named `__metadata__`: the header keeps the metadata there",
            ),
        ),
        (
            vec![spec("a", U8, &[1 << 63, 4, 0])],
            (
                ErrorKind::Overflow,
                "the size of shape [9223372036854775808, 4, 0] in U8 passes 2^64 bits (tensor `a`)",
            ),
        ),
        (
            vec![spec("a", F4, &[3])],
            (
                ErrorKind::Misaligned,
                "shape [3] in F4 takes 12 bits, which is no whole number of bytes (tensor `a`)",
            ),
        ),
    ] {
        let (kind, message) = refused(&tensors, None, None);
        assert_eq!((kind, message.as_str()), expected);
    }
    let huge = [(1 << 61) - 1];
    let names: Vec<String> = (0..9).map(|index| index.to_string()).collect();
    let tensors: Vec<_> = names.iter().map(|name| spec(name, U8, &huge)).collect();
    assert_eq!(refused(&tensors, None, None).0, ErrorKind::Overflow);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for align in [0, 1, 4, 12, 4097] {
        let expected = format!("alignment {align} is no power of two from 8 on");
        assert_eq!(
            refused(&[], None, Some(align)),
            (ErrorKind::InvalidArgument, expected)
        );
    }
    let (kind, message) = refused(&[], Some(&[("k", "1"), ("a", ""), ("k", "2")]), None);
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert_eq!(message, "the metadata key `k` is given twice");
}

#[test]
fn a_header_over_the_limit_is_refused() {
    let value = "x".repeat(MAX_HEADER_BYTES as usize);
    let (kind, message) = refused(&[], Some(&[("k", &value)]), None);
    assert_eq!(kind, ErrorKind::HeaderTooLarge);
    assert!(
        message.starts_with("the header takes 100000032 bytes, over the limit of 100000000\nhint:"),
        "{message}"
    );
    let fits = "x".repeat(MAX_HEADER_BYTES as usize - "{\"__metadata__\":{\"k\":\"\"}}".len());
    let layout = layout(&[], Some(&[("k", &fits)]), &LayoutOptions::default()).unwrap();
    assert!(Header::parse_file(&layout.head, Rules::Strict).is_ok());
}

#[test]
fn no_file_begins_as_a_zip_archive() {
    const ZIP_MAGIC: usize = 0x0403_4B50;
    let empty = "{\"__metadata__\":{\"k\":\"\"}}".len();
    for missing in [0, 7] {
        let value = "x".repeat(ZIP_MAGIC - empty - missing);
        let layout = layout(&[], Some(&[("k", &value)]), &LayoutOptions::default()).unwrap();
        assert_eq!(layout.head.len(), 8 + ZIP_MAGIC + 8);
        assert_eq!(&layout.head[layout.head.len() - 8..], b"        ");
        assert!(Header::parse_file(&layout.head, Rules::Strict).is_ok());
    }
}

#[test]
fn empty_metadata_without_tensors_can_be_read() {
    let layout = layout(&[], Some(&[]), &LayoutOptions::default()).unwrap();
    assert_eq!(&layout.head[8..], b"{\"__metadata__\":{}}     ");
    let header = Header::parse_file(&layout.head, Rules::Strict).unwrap();
    assert_eq!(header.metadata().map(|metadata| metadata.len()), Some(0));
    let none = build(&[], None, LayoutOptions::default()).unwrap();
    assert!(
        Header::parse_file(&none.head, Rules::Strict)
            .unwrap()
            .metadata()
            .is_none()
    );
}
