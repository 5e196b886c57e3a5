//! What programs can name, derive and read: as in the published crate.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::ops::Bound;

use common::{DTYPES, file, published_dtype};
use safetensors::slice::{
    IndexOp, InvalidSlice, SliceByteRanges, SliceIterator, SlicedShape, TensorIndexer,
};
use safetensors::tensor::{self, Metadata, TensorInfo, TensorView, View};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[test]
fn types_have_the_traits_of_the_published_ones() {
    fn are<T: Send + Sync + Unpin + Debug>() {}
    fn is_data<T: Clone + Serialize + DeserializeOwned>() {}
    fn is_error<T: Error + 'static>() {}
    fn is_iterator<'data, T: Iterator<Item = &'data [u8]>>() {}
    fn outlives_panics<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    outlives_panics::<SafeTensors<'_>>();
    outlives_panics::<Metadata>();
    are::<SafeTensors<'_>>();
    are::<SafeTensorError>();
    are::<InvalidSlice>();
    are::<TensorIndexer>();
    are::<TensorView<'_>>();
    is_data::<Metadata>();
    is_data::<TensorInfo>();
    is_data::<Dtype>();
    is_error::<SafeTensorError>();
    is_error::<InvalidSlice>();
    is_iterator::<SliceIterator<'_>>();
    fn is_view<T: View>() {}
    is_view::<TensorView<'_>>();
    is_view::<&TensorView<'_>>();
    fn is_ordered<T: Copy + Ord + Display>() {}
    is_ordered::<Dtype>();
    fn is_comparable<T: Eq + Clone>() {}
    is_comparable::<TensorView<'_>>();
    fn is_cloneable<T: Clone + Display>() {}
    is_cloneable::<TensorIndexer>();
}

#[test]
#[allow(clippy::type_complexity)]
fn functions_have_the_signatures_of_the_published_ones() {
    type Tensors = HashMap<String, TensorView<'static>>;
    type Info = Option<HashMap<String, String>>;
    let _: fn(Tensors, Info) -> Result<Vec<u8>, SafeTensorError> =
        tensor::serialize::<String, TensorView<'static>, Tensors>;
    let _: fn(Tensors, Info, &std::path::Path) -> Result<(), SafeTensorError> =
        tensor::serialize_to_file::<String, TensorView<'static>, Tensors>;
    let _: fn(&'static [u8]) -> Result<(usize, Metadata), SafeTensorError> =
        SafeTensors::read_metadata;
    let _: fn(&'static [u8]) -> Result<SafeTensors<'static>, SafeTensorError> =
        SafeTensors::deserialize;
    let _: fn(Info, Vec<(String, TensorInfo)>) -> Result<Metadata, SafeTensorError> = Metadata::new;
    let _: for<'a> fn(&'a Metadata) -> HashMap<String, &'a TensorInfo> = Metadata::tensors;
    let _: fn(&Metadata) -> Vec<String> = Metadata::offset_keys;
    let _: fn(&Metadata) -> usize = Metadata::data_len;
    let _: for<'a> fn(&'a Metadata) -> &'a Info = Metadata::metadata;
    let _: fn(
        Dtype,
        &[usize],
        &[TensorIndexer],
    ) -> Result<(SliceByteRanges, SlicedShape), InvalidSlice> =
        safetensors::slice::slice_byte_ranges;
    let _: fn(std::io::Error) -> SafeTensorError = SafeTensorError::from;
    let _: fn(serde_json::Error) -> SafeTensorError = SafeTensorError::from;
}

#[test]
fn views_outlive_what_they_were_looked_up_in() {
    let file = file(
        r#"{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
        2,
    );
    let view = SafeTensors::deserialize(&file)
        .unwrap()
        .tensor("x")
        .unwrap();
    let data = { view.clone() }.data();
    assert_eq!(data, [0, 1]);
}

#[test]
fn dtypes_are_those_of_the_published_crate() {
    assert!(DTYPES.is_sorted());
    for dtype in DTYPES {
        let published = published_dtype(dtype);
        assert_eq!(dtype.to_string(), published.to_string());
        assert_eq!(dtype.bitsize(), published.bitsize());
        #[allow(deprecated)]
        let sizes = (dtype.size(), published.size());
        assert_eq!(sizes.0, sizes.1);
        let json = serde_json::to_string(&dtype).unwrap();
        assert_eq!(json, serde_json::to_string(&published).unwrap());
        assert_eq!(serde_json::from_str::<Dtype>(&json).unwrap(), dtype);
        for other in DTYPES {
            let order = published.cmp(&published_dtype(other));
            assert_eq!(dtype.cmp(&other), order);
        }
    }
}

macro_rules! errors {
    ($crate_name:ident) => {{
        use $crate_name::SafeTensorError::*;
        let json = || serde_json::from_str::<u8>("[").unwrap_err();
        let utf8 = String::from_utf8(vec![0xff]).unwrap_err().utf8_error();
        let io = std::io::Error::other("the disk is tired");
        let errors = [
            InvalidHeader(utf8),
            InvalidHeaderDeserialization(json()),
            HeaderTooLarge,
            HeaderTooSmall,
            InvalidHeaderLength,
            TensorNotFound("x".into()),
            TensorInvalidInfo,
            InvalidOffset("x".into()),
            io.into(),
            json().into(),
            InvalidTensorView($crate_name::Dtype::F4, vec![2, 3], 5),
            InvalidTensorView($crate_name::Dtype::F32, vec![], 5),
            MetadataIncompleteBuffer,
            ValidationOverflow,
            MisalignedSlice,
        ];
        let source = |error: &dyn Error| error.source().map(ToString::to_string);
        errors.map(|error| (format!("{error:?}"), error.to_string(), source(&error)))
    }};
}

#[test]
fn errors_print_as_those_of_the_published_crate() {
    assert_eq!(errors!(safetensors), errors!(published));
}

macro_rules! slice_errors {
    ($crate_name:ident) => {{
        use $crate_name::slice::InvalidSlice::*;
        let (dim_index, asked, dim_size) = (1, 7, 5);
        let out_of_range = SliceOutOfRange {
            dim_index,
            asked,
            dim_size,
        };
        [TooManySlices, out_of_range, MisalignedSlice]
            .map(|error| (format!("{error:?}"), error.to_string()))
    }};
}

#[test]
fn slice_errors_print_as_those_of_the_published_crate() {
    assert_eq!(slice_errors!(safetensors), slice_errors!(published));
}

macro_rules! indexers {
    ($crate_name:ident) => {{
        use $crate_name::slice::TensorIndexer as Indexer;
        let step = 3.try_into().unwrap();
        let indexers = [
            Indexer::from(3),
            Indexer::from(1..2),
            Indexer::from(1..),
            Indexer::from(..),
            Indexer::from(1..=2),
            Indexer::from(..2),
            Indexer::from(..=2),
            Indexer::Narrow(Bound::Excluded(1), Bound::Included(9), step),
        ];
        indexers.map(|indexer| (format!("{indexer:?}"), indexer.to_string()))
    }};
}

#[test]
fn indexers_print_as_those_of_the_published_crate() {
    assert_eq!(indexers!(safetensors), indexers!(published));
}

#[test]
fn tuples_up_to_three_index_a_tensor() {
    let data: Vec<u8> = (0..24).collect();
    let view = TensorView::new(Dtype::U8, vec![2, 3, 4], &data).unwrap();
    let read = |pieces: Result<SliceIterator<'_>, InvalidSlice>| {
        let pieces = pieces.unwrap();
        (pieces.newshape(), pieces.collect::<Vec<_>>().concat())
    };
    assert_eq!(read(view.slice(1)), (vec![3, 4], (12..24).collect()));
    assert_eq!(read(view.slice((1,))), read(view.slice(1)));
    assert_eq!(read(view.slice((1, 2))), (vec![4], (20..24).collect()));
    assert_eq!(
        read(view.slice((.., 0, ..2))),
        (vec![2, 2], vec![0, 1, 12, 13])
    );
}

macro_rules! json_of_metadata {
    ($crate_name:ident, $text:expr) => {{
        let read = serde_json::from_str::<$crate_name::tensor::Metadata>($text);
        let told = |metadata: $crate_name::tensor::Metadata| {
            let json = serde_json::to_string(&metadata).unwrap();
            (json, metadata.data_len(), metadata.offset_keys())
        };
        read.map(told).map_err(|error| error.to_string())
    }};
}

#[test]
fn metadata_is_json_as_in_the_published_crate() {
    for text in [
        "{}",
        r#"{"__metadata__":{"a":"b"}}"#,
        r#"{"__metadata__":null}"#,
        r#"{"y":{"dtype":"F4","shape":[2],"data_offsets":[4,5]},"__metadata__":{"k\n":""},"x":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#,
        r#"{"x":["F16",[2,1],[0,4]]}"#,
        r#"{"x":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#,
        r#"{"x":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}"#,
        r#"{"x":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}}"#,
        r#"{"x":{"dtype":"u8","shape":[3],"data_offsets":[0,3]}}"#,
        r#"{"__metadata__":{"a":1}}"#,
        "[]",
        "null",
    ] {
        assert_eq!(
            json_of_metadata!(safetensors, text),
            json_of_metadata!(published, text)
        );
    }
}

#[test]
fn debug_prints_no_data() {
    let file = file(
        r#"{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
        2,
    );
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let text = format!("{tensors:?}");
    assert!(
        text.contains("dtype: U8, shape: [2], data_offsets: (0, 2)"),
        "{text}"
    );
    assert!(text.ends_with("data_len: 2 }"), "{text}");
}
