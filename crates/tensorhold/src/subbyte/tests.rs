use proptest::prelude::*;
use tensorhold_core::{Header, LayoutOptions, Order, Rules, Selection, TensorSpec, layout};

use super::*;

fn narrow(name: &str, shape: &[u64]) -> NarrowTensor {
    NarrowTensor::new(NarrowInt::from_name(name).unwrap(), shape).unwrap()
}

/// A bit of a line, as the specification counts them.
fn bit(line: &[u8], at: u64) -> u8 {
    line[(at / 8) as usize] >> (at % 8) & 1
}

/// The integers of a packed tensor, bit by bit.
fn unpacked_slowly(tensor: &NarrowTensor, stored: &[u8]) -> Vec<u8> {
    let size = tensor.shape().last().copied().unwrap_or(1);
    let line_bytes = tensor.stored_shape()[tensor.stored_shape().len() - 1];
    let width = u64::from(tensor.dtype().width_bits());
    let mut values = Vec::new();
    for line in stored.chunks(line_bytes.max(1) as usize) {
        for at in 0..size {
            let bits = (0..width).map(|n| bit(line, at * width + n) << n);
            values.push(tensor.dtype().widened(bits.sum()));
        }
        let padding = size * width..line_bytes * 8;
        assert!(padding.into_iter().all(|at| bit(line, at) == 0));
    }
    values
}

/// The elements of an array of bytes that an index selects.
fn sliced(values: &[u8], shape: &[u64], index: &[Index]) -> (Vec<u64>, Vec<u8>) {
    let selection = Selection::resolve(Dtype::U8, shape, index, Bounds::Clamped).unwrap();
    let mut taken = vec![0; selection.size_bytes() as usize];
    selection.gather(values, &mut taken);
    (selection.shape().to_vec(), taken)
}

fn dtypes() -> impl Strategy<Value = NarrowInt> {
    (1u8..8, any::<bool>()).prop_map(|(width_bits, is_signed)| NarrowInt {
        width_bits,
        is_signed,
    })
}

fn tensors() -> impl Strategy<Value = (NarrowTensor, Vec<u8>)> {
    let shapes = prop::collection::vec(0u64..20, 0..4);
    (dtypes(), shapes).prop_flat_map(|(dtype, shape)| {
        let tensor = NarrowTensor::new(dtype, &shape).unwrap();
        let n_values = tensor.n_values() as usize;
        let values = prop::collection::vec(any::<u8>(), n_values);
        values.prop_map(move |values| {
            let mask = (1 << dtype.width_bits()) - 1;
            let values = values.iter().map(|value| dtype.widened(value & mask));
            (tensor.clone(), values.collect())
        })
    })
}

fn part() -> impl Strategy<Value = Index> {
    let bound = prop::option::of(-25i64..25);
    let step = prop_oneof![
        Just(None),
        (1i64..5).prop_map(Some),
        (-5i64..0).prop_map(Some)
    ];
    prop_oneof![
        3 => (bound.clone(), bound, step).prop_map(|(start, stop, step)| Index::Range { start, stop, step }),
        1 => (-20i64..20).prop_map(Index::At),
        1 => Just(Index::Ellipsis),
        1 => Just(Index::NewAxis),
    ]
}

proptest! {
    #[test]
    fn packed_integers_lie_as_the_specification_says((tensor, values) in tensors()) {
        let mut stored = vec![0xff; tensor.size_bytes() as usize];
        tensor.pack(&values, &mut stored).unwrap();
        prop_assert_eq!(unpacked_slowly(&tensor, &stored), values);
    }

    #[test]
    fn a_slice_of_packed_integers_is_the_slice_of_all(
        (tensor, values) in tensors(),
        index in prop::collection::vec(part(), 0..5),
    ) {
        let mut stored = vec![0; tensor.size_bytes() as usize];
        tensor.pack(&values, &mut stored).unwrap();
        let Ok(selection) = tensor.select(&index, Bounds::Clamped) else {
            prop_assert!(Selection::resolve(Dtype::U8, tensor.shape(), &index, Bounds::Clamped).is_err());
            return Ok(());
        };
        let mut bytes = vec![0; selection.stored().size_bytes() as usize];
        selection.stored().gather(&stored, &mut bytes);
        let mut taken = vec![0xee; selection.n_values() as usize];
        selection.unpack(&bytes, Widths::Values, &mut taken).unwrap();
        prop_assert_eq!((selection.shape().to_vec(), taken), sliced(&values, tensor.shape(), &index));
    }

    #[test]
    fn a_description_is_read_as_it_was_written((tensor, _) in tensors()) {
        let rank = tensor.stored_shape().len();
        prop_assert_eq!(NarrowTensor::parse(&tensor.description(), rank).unwrap(), tensor);
    }

    #[test]
    fn no_text_is_taken_for_a_description_by_chance(text in ".{0,80}", rank in 0usize..4) {
        prop_assert!(NarrowTensor::parse(&text, rank).is_err());
    }
}

#[test]
fn codes_and_values_are_both_taken() {
    let tensor = narrow("I4", &[4]);
    let mut stored = [0; 2];
    tensor
        .pack(&[0xff, 0x0f, 0x88 | 0xf0, 0x07], &mut stored)
        .unwrap();
    assert_eq!(stored, [0xff, 0x78]);
    let all = tensor.select(&[], Bounds::Clamped).unwrap();
    let mut values = [0; 4];
    all.unpack(&stored, Widths::Codes, &mut values).unwrap();
    assert_eq!(values, [0x0f, 0x0f, 0x08, 0x07]);
    all.unpack(&stored, Widths::Values, &mut values).unwrap();
    assert_eq!(values, [0xff, 0xff, 0xf8, 0x07]);
}

#[test]
fn what_has_more_bits_is_refused_with_its_place() {
    for (name, value) in [("I4", 0x18), ("U4", 0xff), ("I1", 0x02), ("U7", 0x80)] {
        let tensor = narrow(name, &[2, 3]);
        let mut stored = vec![0; tensor.size_bytes() as usize];
        let error = tensor
            .pack(&[0, 0, 0, 0, value, 0], &mut stored)
            .unwrap_err();
        let expected = format!("element 4 is the byte {value:#04x}, which is no {name}");
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::InvalidTensor, &expected[..])
        );
    }
}

#[test]
fn long_lines_are_packed_in_pieces() {
    for shape in [&[3, 70_001][..], &[2, 131_072]] {
        let tensor = narrow("U3", shape);
        let values: Vec<u8> = (0..tensor.n_values()).map(|n| (n * n % 7) as u8).collect();
        let mut stored = vec![0; tensor.size_bytes() as usize];
        tensor.pack(&values, &mut stored).unwrap();
        let mut all = vec![0; values.len()];
        let selection = tensor.select(&[], Bounds::Clamped).unwrap();
        selection.unpack(&stored, Widths::Codes, &mut all).unwrap();
        assert!(all == values);
    }
}

#[test]
fn a_part_of_a_line_needs_its_own_bytes_only() {
    let tensor = narrow("U3", &[5, 100]);
    let some = Index::Range {
        start: Some(10),
        stop: Some(14),
        step: Some(3),
    };
    let selection = tensor
        .select(&[Index::At(2), some], Bounds::Clamped)
        .unwrap();
    // Bits 30 to 42 of the third line of 38 bytes.
    let span = selection.stored().span();
    assert_eq!((span.start, span.end), (2 * 38 + 3, 2 * 38 + 6));
}

/// A header of one tensor `a`, and what is believed of it.
fn believed(dtype: Dtype, shape: &[u64], text: &str) -> (Option<NarrowTensor>, Option<Error>) {
    let spec = TensorSpec {
        name: "a",
        dtype,
        shape,
    };
    let options = LayoutOptions {
        align: None,
        order: Order::Given,
    };
    let metadata = [
        ("tensorhold.dtype.a", text),
        ("tensorhold.dtype.b", "of another shard"),
    ];
    let laid = layout(&[spec], Some(&metadata), &options).unwrap();
    let mut file = laid.head;
    file.resize(laid.file_size as usize, 0);
    let header = Header::parse_file(&file, Rules::Strict).unwrap();
    let found = NarrowTensors::of(&header).get(0).cloned();
    (found, check(&header).err())
}

#[test]
fn a_description_that_fits_is_believed() {
    for (shape, text) in [
        (&[4, 4][..], r#"{"dtype":"I4","shape":[4,8]}"#),
        (&[4, 4], r#"{"dtype":"U4","shape":[4,7]}"#),
        (&[1], r#"{"dtype":"I3","shape":[]}"#),
        (&[1], r#" {"shape" : [2], "dtype" : "I3"} "#),
        (&[0, 3], r#"{"dtype":"U1","shape":[0,24]}"#),
    ] {
        let (found, error) = believed(Dtype::U8, shape, text);
        assert!(found.is_some() && error.is_none(), "{text}: {error:?}");
    }
}

#[test]
fn any_other_description_is_as_good_as_none_and_named() {
    let deep = "[".repeat(60);
    let long = format!(r#"{{"dtype":"I4","shape":[4,{}8]}}"#, " ".repeat(1000));
    for text in [
        "",
        "I4",
        "null",
        "{}",
        &deep,
        &long,
        r#"{"dtype":"I4"}"#,
        r#"{"dtype":"I4","shape":[4,9]}"#,
        r#"{"dtype":"I4","shape":[32]}"#,
        r#"{"dtype":"I4","shape":[4,8],"order":"msb"}"#,
        r#"{"dtype":"I4","shape":[4,8.0]}"#,
        r#"{"dtype":"I4","shape":[4,-8]}"#,
        r#"{"dtype":"I4","shape":"4,8"}"#,
        r#"{"dtype":"I8","shape":[4,4]}"#,
        r#"{"dtype":"I0","shape":[4,4]}"#,
        r#"{"dtype":"B4","shape":[4,8]}"#,
        r#"{"dtype":"I44","shape":[4,8]}"#,
        r#"{"dtype":"I4","shape":[4,18446744073709551615]}"#,
        r#"{"dtype":"I4","shape":[4,18446744073709551616]}"#,
        r#"{"dtype":"I7","shape":[9223372036854775807,9223372036854775807]}"#,
    ] {
        let (found, error) = believed(Dtype::U8, &[4, 4], text);
        assert_eq!(
            (found, error.as_ref().and_then(Error::tensor)),
            (None, Some("a")),
            "{text}"
        );
    }
    let (found, error) = believed(Dtype::F32, &[4, 4], r#"{"dtype":"I4","shape":[4,8]}"#);
    assert!(found.is_none());
    assert_eq!(
        error.unwrap().message(),
        "the metadata says I4 of shape [4, 8], which is stored as U8 of [4, 4], but the tensor is F32 of [4, 4]"
    );
}
