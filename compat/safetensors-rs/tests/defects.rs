//! What the published crate 0.8.0 does wrong, and this one does not.
#![allow(clippy::unwrap_used)]

mod common;

use std::borrow::Cow;
use std::collections::HashMap;

use common::{file, variant};
use safetensors::slice::{IndexOp, InvalidSlice, TensorIndexer, slice_byte_ranges};
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View, serialize, serialize_to_file};

fn bytes(name: &'static str, data: &'static [u8]) -> (&'static str, TensorView<'static>) {
    let view = TensorView::new(Dtype::U8, vec![data.len()], data).unwrap();
    (name, view)
}

fn refusal<T: std::fmt::Debug>(result: Result<T, SafeTensorError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_name_that_is_given_twice_is_an_error() {
    let error = refusal(serialize([bytes("x", &[1]), bytes("x", &[2, 3])], None));
    assert_eq!(error, "JSON error: the name `x` is given to two tensors");
    let info = |start, end| TensorInfo {
        dtype: Dtype::U8,
        shape: vec![end - start],
        data_offsets: (start, end),
    };
    let tensors = vec![("x".to_owned(), info(0, 1)), ("x".to_owned(), info(1, 3))];
    let error = refusal(Metadata::new(None, tensors));
    assert_eq!(error, "JSON error: the name `x` is given to two tensors");
}

#[test]
fn a_name_that_stands_twice_in_a_file_is_an_error() {
    let header = concat!(
        r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"#,
        r#""\u0078":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
    );
    let error = SafeTensors::deserialize(&file(header, 2)).unwrap_err();
    assert_eq!(variant(&error), "InvalidHeaderDeserialization");
    assert!(
        error.to_string().contains("the name `x` stands twice"),
        "{error}"
    );
}

#[test]
fn a_tensor_named_as_the_metadata_is_an_error() {
    let expected =
        "JSON error: no tensor can be named `__metadata__`: the header keeps the metadata there";
    let tensors = [bytes("__metadata__", &[1])];
    assert_eq!(refusal(serialize(tensors.clone(), None)), expected);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    assert_eq!(refusal(serialize_to_file(tensors, None, &path)), expected);
    let info = TensorInfo {
        dtype: Dtype::U8,
        shape: vec![1],
        data_offsets: (0, 1),
    };
    let made = Metadata::new(None, vec![("__metadata__".to_owned(), info)]);
    assert_eq!(refusal(made), expected);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

/// A tensor that promises another number of bytes than it gives.
#[derive(Debug)]
struct Liar {
    promised: usize,
    given: usize,
}

impl View for Liar {
    fn dtype(&self) -> Dtype {
        Dtype::U8
    }

    fn shape(&self) -> &[usize] {
        std::slice::from_ref(&self.promised)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        vec![7; self.given].into()
    }

    fn data_len(&self) -> usize {
        self.promised
    }
}

#[test]
fn a_tensor_that_gives_other_bytes_than_it_promised_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, b"the old file").unwrap();
    for (promised, given) in [(4, 3), (4, 5), (0, 1), (1 << 59, 2)] {
        let liar = || [("x", Liar { promised, given })];
        let expected =
            format!("tensor of type U8 and shape ({promised}) can't be created from {given} bytes");
        assert_eq!(refusal(serialize(liar(), None)), expected);
        let saved = serialize_to_file(liar(), None, &path);
        match promised {
            // No disk has room for so much, which shows before a byte is asked for.
            0x800_0000_0000_0000 => assert_eq!(variant(&saved.unwrap_err()), "IoError"),
            _ => assert_eq!(refusal(saved), expected),
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"the old file");
    assert_eq!(folder.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_shape_that_cannot_be_counted_is_an_error() {
    for shape in [
        vec![1 << 63, 2],
        vec![1 << 62, 4],
        vec![1 << 61],
        vec![usize::MAX; 3],
    ] {
        let error = TensorView::new(Dtype::U8, shape, &[]).unwrap_err();
        assert_eq!(variant(&error), "ValidationOverflow");
    }
    assert!(TensorView::new(Dtype::U8, vec![0, 1 << 63, 4], &[]).is_ok());
}

#[test]
fn data_at_the_end_of_the_numbers_is_an_error() {
    // The last byte is 2^64 - 8, so the size of the file cannot be counted.
    let size = (1u64 << 61) - 1;
    let tensors = (0..8).map(|n| {
        let (start, end) = (n * size, (n + 1) * size);
        format!(r#""{n}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    let error = SafeTensors::deserialize(&file(&header, 0)).unwrap_err();
    assert_eq!(variant(&error), "MetadataIncompleteBuffer");
}

#[test]
fn metadata_without_entries_and_tensors_can_be_read() {
    let none: [(&str, TensorView<'_>); 0] = [];
    let saved = serialize(none, Some(HashMap::new())).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&saved).unwrap();
    assert_eq!(metadata.metadata(), &Some(HashMap::new()));
    let text = serde_json::to_string(&metadata).unwrap();
    assert_eq!(text, r#"{"__metadata__":{}}"#);
    let again: Metadata = serde_json::from_str(&text).unwrap();
    assert_eq!(again.metadata(), &Some(HashMap::new()));
}

#[test]
fn equal_metadata_gives_equal_bytes() {
    let save = || {
        let entries = ('a'..='z').map(|key| (key.to_string(), "1".to_owned()));
        serialize([bytes("x", &[1])], Some(entries.collect())).unwrap()
    };
    assert!((0..8).all(|_| save() == save()));
    let (_, metadata) = SafeTensors::read_metadata(&save()).unwrap();
    let text = serde_json::to_string(&metadata).unwrap();
    assert!(save()[8..].starts_with(text.as_bytes()));
}

fn sliced(shape: Vec<usize>, slices: &[TensorIndexer]) -> (Vec<u8>, Vec<usize>) {
    let data: Vec<u8> = (0..shape.iter().product::<usize>() as u8).collect();
    let view = TensorView::new(Dtype::U8, shape, &data).unwrap();
    let pieces = view.sliced_data(slices).unwrap();
    let newshape = pieces.newshape();
    assert_eq!(
        pieces.remaining_byte_len(),
        newshape.iter().product::<usize>()
    );
    (pieces.collect::<Vec<_>>().concat(), newshape)
}

fn narrow(start: usize, stop: usize, step: usize) -> TensorIndexer {
    use std::ops::Bound::{Excluded, Included};
    TensorIndexer::Narrow(Included(start), Excluded(stop), step.try_into().unwrap())
}

#[test]
fn slices_that_select_nothing_are_empty() {
    assert_eq!(sliced(vec![4], &[narrow(0, 0, 2)]), (vec![], vec![0]));
    assert_eq!(sliced(vec![4], &[narrow(3, 1, 1)]), (vec![], vec![0]));
    assert_eq!(sliced(vec![4], &[narrow(3, 1, 2)]), (vec![], vec![0]));
    assert_eq!(sliced(vec![4], &[narrow(4, 4, 1)]), (vec![], vec![0]));
    assert_eq!(sliced(vec![4], &[(4..).into()]), (vec![], vec![0]));
    let columns = [narrow(0, 2, 1), narrow(2, 1, 1)];
    assert_eq!(sliced(vec![3, 4], &columns), (vec![], vec![2, 0]));
}

#[test]
fn dimensions_of_size_0_can_be_sliced() {
    assert_eq!(sliced(vec![0, 3], &[(..).into()]), (vec![], vec![0, 3]));
    let part = [narrow(0, 0, 1), narrow(1, 3, 1)];
    assert_eq!(sliced(vec![0, 3], &part), (vec![], vec![0, 2]));
    assert_eq!(sliced(vec![3, 0], &[1.into()]), (vec![], vec![0]));
    let view = TensorView::new(Dtype::U8, vec![0, 3], &[]).unwrap();
    let error = view.slice(0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "index 0 out of bounds for tensor dimension #0 of size 0"
    );
}

#[test]
fn an_empty_slice_is_one_empty_piece() {
    let empty = TensorView::new(Dtype::F32, vec![2, 0], &[]).unwrap();
    let pieces: Vec<&[u8]> = empty.slice(..).unwrap().collect();
    assert_eq!(pieces, [&[] as &[u8]]);
    let ranges = slice_byte_ranges(Dtype::F32, &[3], &[narrow(2, 1, 1)]);
    assert_eq!(ranges, Ok((vec![(0, 0)], vec![0])));
}

#[test]
fn bounds_at_the_end_of_the_numbers_are_out_of_range() {
    let view = TensorView::new(Dtype::U8, vec![2], &[1, 2]).unwrap();
    let out_of_range = Err(InvalidSlice::SliceOutOfRange {
        dim_index: 0,
        asked: usize::MAX,
        dim_size: 2,
    });
    assert_eq!(view.slice(usize::MAX), out_of_range);
    assert_eq!(view.slice(0..=usize::MAX), out_of_range);
    assert_eq!(view.slice(..=usize::MAX), out_of_range);
    assert!(view.slice(usize::MAX..).is_err());
}

#[test]
fn a_shape_that_cannot_be_counted_cannot_be_sliced() {
    for shape in [&[1 << 63, 4][..], &[usize::MAX], &[1 << 32, 1 << 32]] {
        for dtype in [Dtype::U8, Dtype::F4, Dtype::F64] {
            let slices = [narrow(0, 1, 1)];
            let error = slice_byte_ranges(dtype, shape, &slices).unwrap_err();
            assert!(matches!(
                error,
                InvalidSlice::SliceOutOfRange { dim_index: 0, .. }
            ));
        }
    }
}

#[test]
fn steps_may_be_as_long_as_numbers_are() {
    let first = [TensorIndexer::from(..), narrow(1, 4, usize::MAX)];
    assert_eq!(sliced(vec![2, 4], &first), (vec![1, 5], vec![2, 1]));
}
