//! Slices against a naive N-d loop, against NumPy, and against the reference's messages.

#![allow(clippy::unwrap_used)]

mod naive;
mod ranges;

use std::cell::RefCell;

use proptest::prelude::*;
use tensorhold_core::{Bounds, ByteRange, Dtype, Error, ErrorKind, Index, Selection};

use naive::{naive, pack};

const fn range(start: Option<i64>, stop: Option<i64>, step: Option<i64>) -> Index {
    Index::Range { start, stop, step }
}

fn resolve(shape: &[u64], index: &[Index]) -> Selection {
    Selection::resolve(Dtype::U8, shape, index, Bounds::Clamped).unwrap()
}

fn refused(shape: &[u64], index: &[Index], bounds: Bounds) -> Error {
    Selection::resolve(Dtype::U8, shape, index, bounds).unwrap_err()
}

fn runs(selection: &Selection) -> Vec<(u64, u64)> {
    selection.runs().map(|run| (run.start, run.end)).collect()
}

#[test]
fn a_whole_tensor_is_one_run() {
    for index in [
        &[][..],
        &[Index::Ellipsis],
        &[Index::ALL],
        &[Index::ALL, Index::ALL, Index::ALL],
        &[Index::NewAxis, Index::Ellipsis],
        &[range(Some(0), Some(99), Some(1))],
    ] {
        let selection = resolve(&[2, 3, 4], index);
        assert!(selection.is_whole(), "{index:?}");
        assert_eq!(runs(&selection), [(0, 24)], "{index:?}");
    }
    let scalar = Selection::whole(Dtype::F64, &[]).unwrap();
    assert_eq!((scalar.shape(), scalar.size_bytes()), (&[][..], 8));
    assert_eq!(runs(&scalar), [(0, 8)]);
}

#[test]
fn a_reversed_tensor_is_not_whole() {
    let selection = resolve(&[2, 2], &[range(None, None, Some(-1)); 2]);
    assert!(!selection.is_whole());
    assert_eq!(runs(&selection), [(3, 4), (2, 3), (1, 2), (0, 1)]);
}

#[test]
fn trailing_dimensions_are_joined() {
    let selection = resolve(&[4, 5, 6], &[range(Some(1), Some(3), None)]);
    assert_eq!(runs(&selection), [(30, 90)]);
    let selection = resolve(&[4, 5, 6], &[Index::ALL, range(Some(1), Some(3), None)]);
    assert_eq!(runs(&selection), [(6, 18), (36, 48), (66, 78), (96, 108)]);
    assert_eq!(selection.walks().next().unwrap().loops.len(), 1);
}

#[test]
fn columns_are_a_grid_and_what_goes_back_or_two_ways_is_none() {
    let grid = |shape: &[u64], index: &[Index]| {
        let grid = resolve(shape, index).grid()?;
        Some((grid.offset, grid.width, grid.pitch, grid.n_rows))
    };
    let columns = range(Some(1), Some(3), None);
    assert_eq!(grid(&[4, 5], &[Index::ALL, columns]), Some((1, 2, 5, 4)));
    // Dimensions that are whole are one, and what is side by side is a row.
    let expected = Some((1, 2, 5, 12));
    assert_eq!(grid(&[3, 4, 5], &[Index::Ellipsis, columns]), expected);
    assert_eq!(
        grid(&[3, 4, 5], &[Index::ALL, columns]),
        Some((5, 10, 20, 3))
    );
    assert_eq!(grid(&[4, 5], &[columns]), Some((5, 10, 10, 1)));
    assert_eq!(
        grid(&[9], &[range(None, None, Some(4))]),
        Some((0, 1, 4, 3))
    );
    for none in [
        &[Index::ALL, range(Some(3), Some(1), None)][..],
        &[range(None, None, Some(-1))],
        &[Index::ALL, range(None, None, Some(3))],
    ] {
        assert_eq!(grid(&[2, 4], none), None, "{none:?}");
    }
    let listed = |ranges: &[std::ops::Range<u64>]| {
        let selection = Selection::of_ranges(Dtype::U8, &[10], &[ranges.to_vec()]).unwrap();
        selection.grid().map(|grid| (grid.width, grid.pitch))
    };
    assert_eq!(listed(&[0..2, 4..6]), Some((2, 4)));
    assert_eq!(listed(&[0..4, 2..6]), None);
    assert_eq!(listed(&[0..2, 4..7]), None);
}

#[test]
fn runs_that_touch_across_rows_are_one() {
    let selection = resolve(&[2, 4], &[Index::ALL, range(None, None, Some(3))]);
    assert_eq!(runs(&selection), [(0, 1), (3, 5), (7, 8)]);
    assert_eq!(selection.max_runs(), 4);
}

#[test]
fn empty_selections_have_a_shape_and_no_runs() {
    for (shape, index, expected) in [
        (&[10][..], range(Some(0), Some(0), Some(2)), &[0][..]),
        (&[10], range(Some(7), Some(3), None), &[0]),
        (&[10], range(Some(10), Some(10), None), &[0]),
        (&[10], range(Some(10), None, None), &[0]),
        (&[10], range(Some(3), Some(7), Some(-1)), &[0]),
        (&[0, 3], Index::ALL, &[0, 3]),
        (&[3, 0], Index::At(-1), &[0]),
        (
            &[0, 1 << 63, 4],
            range(None, None, Some(-2)),
            &[0, 1 << 63, 4],
        ),
        (&[0, 4, 1 << 63], Index::Ellipsis, &[0, 4, 1 << 63]),
    ] {
        for bounds in [Bounds::Clamped, Bounds::Checked] {
            let selection = Selection::resolve(Dtype::F32, shape, &[index], bounds).unwrap();
            assert_eq!(selection.shape(), expected, "{shape:?} {index:?}");
            assert_eq!(selection.size_bytes(), 0);
            assert_eq!(selection.runs().next(), None);
            assert_eq!(selection.max_runs(), 0);
            assert_eq!(selection.span(), ByteRange::default());
        }
    }
}

#[test]
fn huge_tensors_cost_no_more_than_small_ones() {
    let size = (1 << 58) - 1;
    let extremes = range(Some(i64::MAX), Some(i64::MIN), Some(-(1 << 57)));
    let selection = Selection::resolve(Dtype::F64, &[size], &[extremes], Bounds::Clamped).unwrap();
    let position = (size - 1) * 8;
    assert_eq!(
        runs(&selection),
        [
            (position, position + 8),
            (position - (1 << 60), position - (1 << 60) + 8)
        ]
    );
    let column = [Index::ALL, Index::At(-1)];
    let selection = Selection::resolve(Dtype::U8, &[1 << 40, 1 << 20], &column, Bounds::Clamped);
    let selection = selection.unwrap();
    assert_eq!(selection.max_runs(), 1 << 40);
    assert_eq!(
        selection.runs().next(),
        Some(ByteRange::new((1 << 20) - 1, 1 << 20))
    );
    for step in [i64::MIN, i64::MAX] {
        assert_eq!(resolve(&[9], &[range(None, None, Some(step))]).shape(), [1]);
    }
}

#[test]
fn positions_past_the_end_are_named_as_the_reference_names_them() {
    let shape = [10, 5];
    for bounds in [Bounds::Clamped, Bounds::Checked] {
        for (index, message) in [
            (
                [range(Some(2), None, None), Index::At(20)],
                "index 20 out of bounds for tensor dimension #1 of size 5",
            ),
            (
                [range(Some(2), None, None), Index::At(-6)],
                "Invalid index -6 for dimension 1 of size 5",
            ),
            (
                [Index::At(i64::MIN), Index::ALL],
                "Invalid index -9223372036854775808 for dimension 0 of size 10",
            ),
            (
                [Index::NewAxis, Index::At(10)],
                "index 10 out of bounds for tensor dimension #0 of size 10",
            ),
        ] {
            let error = refused(&shape, &index, bounds);
            assert_eq!(error.kind(), ErrorKind::InvalidSlice);
            assert_eq!(error.message(), message);
        }
    }
}

#[test]
fn checked_ranges_past_the_end_are_refused_as_by_the_reference() {
    let start = |start| range(Some(start), None, None);
    let stop = |stop| range(None, Some(stop), None);
    for (index, asked, dimension, size) in [
        (&[stop(20)][..], 19, 0, 10),
        (&[Index::ALL, stop(20)], 19, 1, 5),
        (&[stop(20), stop(6)], 5, 1, 5),
        (&[start(11)], 11, 0, 10),
        (&[range(Some(10), Some(20), None)], 10, 0, 10),
        (&[range(Some(20), Some(3), Some(-1))], 20, 0, 10),
        (&[Index::Ellipsis, stop(6)], 5, 1, 5),
    ] {
        assert_eq!(
            refused(&[10, 5], index, Bounds::Checked).message(),
            format!("index {asked} out of bounds for tensor dimension #{dimension} of size {size}")
        );
        resolve(&[10, 5], index);
    }
    for index in [stop(10), start(10), stop(-99), start(-99)] {
        Selection::resolve(Dtype::U8, &[10, 5], &[index], Bounds::Checked).unwrap();
    }
}

#[test]
fn an_index_that_no_tensor_could_have_says_why() {
    for (shape, index, message) in [
        (
            &[2, 3][..],
            &[Index::At(0); 3][..],
            "too many indices: tensor has 2 dimensions, but 3 were given",
        ),
        (
            &[],
            &[Index::ALL],
            "too many indices: tensor has 0 dimensions, but 1 was given",
        ),
        (
            &[2, 3],
            &[Index::Ellipsis, Index::Ellipsis],
            "Only one ellipsis (...) is allowed in slice index",
        ),
        (
            &[2],
            &[range(None, None, Some(0))],
            "slice step cannot be zero",
        ),
    ] {
        let error = refused(shape, index, Bounds::Clamped);
        assert_eq!(error.kind(), ErrorKind::InvalidSlice);
        assert_eq!(error.message(), message);
    }
}

#[test]
fn sub_byte_elements_are_taken_by_their_logical_index() {
    // The elements 0, 1, … 7.
    let tensor = [0x10, 0x32, 0x54, 0x76];
    let gather = |index: &[Index]| {
        let selection = Selection::resolve(Dtype::F4, &[8], index, Bounds::Clamped).unwrap();
        let mut into = vec![0; selection.size_bytes() as usize];
        selection.gather(&tensor, &mut into);
        (selection.is_byte_aligned(), into)
    };
    assert_eq!(
        gather(&[range(Some(2), Some(6), None)]),
        (true, vec![0x32, 0x54])
    );
    assert_eq!(
        gather(&[range(Some(1), Some(7), None)]),
        (false, vec![0x21, 0x43, 0x65])
    );
    assert_eq!(
        gather(&[range(None, None, Some(2))]),
        (false, vec![0x20, 0x64])
    );
    assert_eq!(
        gather(&[range(None, None, Some(-1))]),
        (false, vec![0x67, 0x45, 0x23, 0x01])
    );
    let error = Selection::resolve(
        Dtype::F4,
        &[8],
        &[range(Some(1), Some(4), None)],
        Bounds::Clamped,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misaligned);
    assert_eq!(
        error.message(),
        "shape [3] in F4 takes 12 bits, which is no whole number of bytes"
    );
}

#[test]
#[should_panic(expected = "begins inside a byte")]
fn runs_of_bytes_are_not_given_for_parts_of_bytes() {
    let index = [range(Some(1), Some(3), None)];
    let selection = Selection::resolve(Dtype::F4, &[4], &index, Bounds::Clamped).unwrap();
    let _ = selection.runs();
}

/// A part of an index as `testdata/slices.json` writes it.
fn index_part(part: &serde_json::Value) -> Index {
    match part {
        serde_json::Value::Null => Index::NewAxis,
        serde_json::Value::String(dots) if dots == "..." => Index::Ellipsis,
        serde_json::Value::Array(bounds) => {
            range(bounds[0].as_i64(), bounds[1].as_i64(), bounds[2].as_i64())
        }
        at => Index::At(at.as_i64().unwrap()),
    }
}

fn numbers(list: &serde_json::Value) -> Vec<u64> {
    let list = list.as_array().unwrap();
    list.iter().map(|number| number.as_u64().unwrap()).collect()
}

#[test]
fn numpy_selects_the_same_elements() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/slices.json");
    let cases: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() >= 400, "only {} cases", cases.len());
    for case in cases {
        let shape = numbers(&case["shape"]);
        let index: Vec<Index> = case["index"]
            .as_array()
            .unwrap()
            .iter()
            .map(index_part)
            .collect();
        let tensor: Vec<u8> = (0..shape.iter().product::<u64>() as u32)
            .flat_map(u32::to_le_bytes)
            .collect();
        let selection = Selection::resolve(Dtype::U32, &shape, &index, Bounds::Clamped);
        let Some(expected) = case.get("result") else {
            assert_eq!(
                selection.unwrap_err().kind(),
                ErrorKind::InvalidSlice,
                "{case}"
            );
            continue;
        };
        let selection = selection.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(selection.shape(), numbers(&expected["shape"]), "{case}");
        let mut into = vec![0; selection.size_bytes() as usize];
        selection.gather(&tensor, &mut into);
        let elements: Vec<u64> = into
            .chunks(4)
            .map(|bytes| u64::from(u32::from_le_bytes(bytes.try_into().unwrap())))
            .collect();
        assert_eq!(elements, numbers(&expected["elements"]), "{case}");
    }
}

fn any_bound() -> impl Strategy<Value = Option<i64>> {
    proptest::option::weighted(0.7, -8i64..9)
}

fn any_index() -> impl Strategy<Value = Vec<Index>> {
    let step =
        proptest::option::weighted(0.6, prop_oneof![12 => 1i64..4, 8 => -3i64..0, 1 => Just(0)]);
    let part = prop_oneof![
        4 => (-5i64..5).prop_map(Index::At),
        10 => (any_bound(), any_bound(), step)
            .prop_map(|(start, stop, step)| Index::Range { start, stop, step }),
        2 => Just(Index::Ellipsis),
        2 => Just(Index::NewAxis),
        3 => Just(Index::ALL),
    ];
    proptest::collection::vec(part, 0..6)
}

/// A tensor of any type; where elements are narrower than a byte, mostly one that can be stored.
fn any_tensor() -> impl Strategy<Value = (Dtype, Vec<u64>, Vec<u8>)> {
    let dtype = prop_oneof![
        proptest::sample::select(&Dtype::ALL[..]),
        proptest::sample::select(&[Dtype::F4, Dtype::F6_E2M3][..])
    ];
    (dtype, proptest::collection::vec(0u64..6, 0..6), 1u64..5)
        .prop_map(|(dtype, mut shape, factor)| {
            if dtype.width_bytes().is_none()
                && let Some(last) = shape.last_mut()
            {
                *last *= if factor == 1 { 1 } else { 4 };
            }
            (dtype, shape)
        })
        .prop_flat_map(|(dtype, shape)| {
            let n_bits = shape.iter().product::<u64>() * u64::from(dtype.width_bits());
            let bytes = proptest::collection::vec(any::<u8>(), n_bits.div_ceil(8) as usize);
            (Just(dtype), Just(shape), bytes)
        })
}

#[test]
fn what_lies_far_apart_is_announced_before_it_is_copied() {
    let tensor: Vec<u8> = (0..90_u32 * 5000).map(|at| (at / 3) as u8).collect();
    for (width, step) in [(1, 1), (700, 1), (5000, 7)] {
        let index = [
            range(None, None, Some(step)),
            range(Some(40), Some(40 + width), None),
        ];
        let selection = resolve(&[90, 5000], &index);
        let mut expected = vec![0; selection.size_bytes() as usize];
        selection.gather(&tensor, &mut expected);

        let span = selection.span();
        let span = &tensor[span.start as usize..span.end as usize];
        let announced = RefCell::new(Vec::new());
        let mut into = vec![0; expected.len()];
        selection.gather_span_announced(span, &mut into, |bytes| {
            announced.borrow_mut().extend_from_slice(bytes);
        });
        assert!(into == expected);
        let announced = announced.into_inner();
        assert!(!announced.is_empty() && expected.ends_with(&announced));
    }
    let near = resolve(&[90, 5000], &[Index::ALL, range(None, None, Some(2))]);
    let span = near.span();
    let span = &tensor[span.start as usize..span.end as usize];
    let mut into = vec![0; near.size_bytes() as usize];
    near.gather_span_announced(span, &mut into, |_| panic!("the processor knows"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_selection_is_what_a_naive_loop_selects(
        (dtype, shape, tensor) in any_tensor(),
        index in any_index(),
    ) {
        let width_bits = u64::from(dtype.width_bits());
        let selection = Selection::resolve(dtype, &shape, &index, Bounds::Clamped);
        if !(shape.iter().product::<u64>() * width_bits).is_multiple_of(8) {
            prop_assert_eq!(selection.unwrap_err().kind(), ErrorKind::Misaligned);
            return Ok(());
        }
        let Some((expected_shape, elements)) = naive(&shape, &index) else {
            prop_assert_eq!(selection.unwrap_err().kind(), ErrorKind::InvalidSlice);
            return Ok(());
        };
        if !(elements.len() as u64 * width_bits).is_multiple_of(8) {
            prop_assert_eq!(selection.unwrap_err().kind(), ErrorKind::Misaligned);
            return Ok(());
        }
        let selection = selection.unwrap();
        prop_assert_eq!(selection.shape(), &expected_shape);
        let expected = pack(&tensor, &elements, width_bits);
        prop_assert_eq!(selection.size_bytes(), expected.len() as u64);

        let mut into = vec![0xAA; expected.len()];
        selection.gather(&tensor, &mut into);
        prop_assert_eq!(&into, &expected);

        let span = selection.span();
        into.fill(0xAA);
        selection.gather_span(&tensor[span.start as usize..span.end as usize], &mut into);
        prop_assert_eq!(&into, &expected);
        prop_assert_eq!(selection.is_whole(), elements.iter().copied().eq(0..shape.iter().product()));
    }

    #[test]
    fn a_view_by_strides_is_what_a_naive_loop_selects(
        dtype in proptest::sample::select(vec![Dtype::U8, Dtype::F16, Dtype::F4]),
        dims in proptest::collection::vec((0u64..5, 0u64..9), 0..5),
        start in 0u64..9,
        n_elements in (0u64..100).prop_map(|n| n * 2),
    ) {
        let (shape, strides): (Vec<u64>, Vec<u64>) = dims.iter().copied().unzip();
        let mut elements = vec![start];
        for &(count, stride) in &dims {
            elements = elements.iter().flat_map(|at| (0..count).map(move |n| at + n * stride)).collect();
        }
        let width_bits = u64::from(dtype.width_bits());
        let selection = Selection::of_strides(dtype, n_elements, start, &shape, &strides);
        if !(elements.len() as u64 * width_bits).is_multiple_of(8) {
            prop_assert_eq!(selection.unwrap_err().kind(), ErrorKind::Misaligned);
            return Ok(());
        }
        if elements.iter().any(|&at| at >= n_elements) {
            prop_assert_eq!(selection.unwrap_err().kind(), ErrorKind::InvalidSlice);
            return Ok(());
        }
        let selection = selection.unwrap();
        let tensor: Vec<u8> = (0..n_elements * width_bits / 8).map(|n| (n * 37) as u8).collect();
        let expected = pack(&tensor, &elements, width_bits);
        let mut into = vec![0xAA; expected.len()];
        selection.gather(&tensor, &mut into);
        prop_assert_eq!(&into, &expected);
        let span = selection.span();
        into.fill(0xAA);
        selection.gather_span(&tensor[span.start as usize..span.end as usize], &mut into);
        prop_assert_eq!(&into, &expected);
    }

    #[test]
    fn a_grid_has_the_runs_of_its_selection(
        (dtype, shape, _) in any_tensor(),
        index in any_index(),
    ) {
        let Ok(selection) = Selection::resolve(dtype, &shape, &index, Bounds::Clamped) else {
            return Ok(());
        };
        let Some(grid) = selection.grid() else {
            return Ok(());
        };
        let row = |row: u64| {
            let start = grid.offset + row * grid.pitch;
            (start, start + grid.width)
        };
        let rows: Vec<(u64, u64)> = (0..grid.n_rows).map(row).collect();
        prop_assert_eq!(rows, runs(&selection));
        prop_assert_eq!(grid.offset, selection.span().start);
    }

    #[test]
    fn runs_laid_end_to_end_are_the_result(
        (dtype, shape, tensor) in any_tensor(),
        index in any_index(),
    ) {
        let Ok(selection) = Selection::resolve(dtype, &shape, &index, Bounds::Clamped) else {
            return Ok(());
        };
        let mut gathered = vec![0; selection.size_bytes() as usize];
        selection.gather(&tensor, &mut gathered);

        let bits: Vec<u64> = selection.bit_runs().flat_map(|(start, n)| start..start + n).collect();
        prop_assert_eq!(pack(&tensor, &bits, 1), &gathered[..]);
        let bit_runs: Vec<(u64, u64)> = selection.bit_runs().collect();
        prop_assert!(bit_runs.iter().all(|(_, n_bits)| *n_bits > 0));
        prop_assert!(bit_runs.windows(2).all(|pair| pair[0].0 + pair[0].1 != pair[1].0));
        prop_assert!(bit_runs.len() as u64 <= selection.max_runs());
        if selection.is_byte_aligned() {
            let bytes: Vec<u8> = selection
                .runs()
                .flat_map(|run| &tensor[run.start as usize..run.end as usize])
                .copied()
                .collect();
            prop_assert_eq!(bytes, gathered);
        }
    }

    #[test]
    fn checked_bounds_only_refuse_more(
        (dtype, shape, _) in any_tensor(),
        index in any_index(),
    ) {
        let clamped = Selection::resolve(dtype, &shape, &index, Bounds::Clamped);
        let checked = Selection::resolve(dtype, &shape, &index, Bounds::Checked);
        match (clamped, checked) {
            (Ok(clamped), Ok(checked)) => prop_assert_eq!(clamped, checked),
            (Err(_), Ok(_)) => prop_assert!(false, "only the checked one was accepted"),
            (_, Err(error)) => prop_assert!(matches!(
                error.kind(),
                ErrorKind::InvalidSlice | ErrorKind::Misaligned
            )),
        }
    }
}
