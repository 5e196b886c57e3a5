//! Lists of ranges against a naive loop over positions.

#![allow(
    clippy::single_range_in_vec_init,
    reason = "a dimension has a list of ranges, mostly of one"
)]

use std::ops::Range;

use proptest::prelude::*;
use tensorhold_core::{Dtype, ErrorKind, Selection};

/// The positions of elements that the ranges select, in order, by one loop for each dimension.
fn naive(shape: &[u64], ranges: &[Vec<Range<u64>>]) -> Vec<u64> {
    let mut positions = vec![0];
    for (&size, ranges) in shape.iter().zip(ranges) {
        let of_dim: Vec<u64> = ranges.iter().cloned().flatten().collect();
        positions = positions
            .iter()
            .flat_map(|&before| of_dim.iter().map(move |&at| before * size + at))
            .collect();
    }
    positions
}

/// A shape, and for each dimension ranges in any order, some of them equally long and equally far apart.
fn asked() -> impl Strategy<Value = (Vec<u64>, Vec<Vec<Range<u64>>>)> {
    prop::collection::vec(0u64..9, 0..4).prop_flat_map(|shape| {
        let ranges: Vec<_> = shape.iter().map(|&size| ranges_of(size).boxed()).collect();
        (Just(shape), ranges)
    })
}

fn ranges_of(size: u64) -> impl Strategy<Value = Vec<Range<u64>>> {
    let any = prop::collection::vec((0..=size, 0..=size), 0..4).prop_map(|pairs| {
        let ordered = pairs.into_iter().map(|(a, b)| a.min(b)..a.max(b));
        ordered.collect::<Vec<_>>()
    });
    let comb = (1..=size.max(1), 1..=size.max(1)).prop_map(move |(len, distance)| {
        let starts = (0..size).step_by(distance as usize);
        let teeth = starts.map(move |start| start..start + len);
        teeth.filter(|tooth| tooth.end <= size).collect()
    });
    prop_oneof![any, comb, Just(vec![0..size])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ranges_select_what_a_naive_loop_does((shape, ranges) in asked()) {
        let size: u64 = shape.iter().product();
        let tensor: Vec<u8> = (0..size * 2).map(|n| n as u8).collect();
        let expected: Vec<u8> = naive(&shape, &ranges)
            .iter()
            .flat_map(|&at| [tensor[at as usize * 2], tensor[at as usize * 2 + 1]])
            .collect();

        let selection = Selection::of_ranges(Dtype::BF16, &shape, &ranges).unwrap();
        prop_assert_eq!(selection.size_bytes(), expected.len() as u64);
        let result: u64 = selection.shape().iter().product();
        prop_assert_eq!(result * 2, selection.size_bytes());

        let mut gathered = vec![0; expected.len()];
        selection.gather(&tensor, &mut gathered);
        prop_assert_eq!(&gathered, &expected);

        let span = selection.span();
        let mut from_span = vec![0; expected.len()];
        selection.gather_span(&tensor[span.start as usize..span.end as usize], &mut from_span);
        prop_assert_eq!(&from_span, &expected);

        let by_runs: Vec<u8> = selection
            .runs()
            .flat_map(|run| tensor[run.start as usize..run.end as usize].to_vec())
            .collect();
        prop_assert_eq!(&by_runs, &expected);
        prop_assert_eq!(selection.is_whole(), expected == tensor && selection.max_runs() <= 1);
    }

    #[test]
    fn narrow_elements_are_packed_anew((mut shape, mut ranges) in asked()) {
        if shape.iter().product::<u64>() % 2 == 1 {
            shape.push(2);
            ranges.push(vec![1..2, 0..1]);
        }
        let size: u64 = shape.iter().product();
        let tensor: Vec<u8> = (0..size / 2).map(|n| (n * 37) as u8).collect();
        let nibble = |at: u64| tensor[at as usize / 2] >> (at % 2 * 4) & 0xF;
        let wanted = naive(&shape, &ranges);
        match Selection::of_ranges(Dtype::F4, &shape, &ranges) {
            Ok(selection) => {
                let mut gathered = vec![0; wanted.len() / 2];
                selection.gather(&tensor, &mut gathered);
                for (number, &at) in wanted.iter().enumerate() {
                    prop_assert_eq!(gathered[number / 2] >> (number % 2 * 4) & 0xF, nibble(at));
                }
            }
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Misaligned);
                prop_assert!(wanted.len() % 2 == 1);
            }
        }
    }
}

#[test]
fn equal_ranges_take_one_walk() {
    let halves = Selection::of_ranges(
        Dtype::F32,
        &[8, 16, 6],
        &[vec![0..8], vec![0..4, 8..12], vec![2..4]],
    );
    assert_eq!(halves.unwrap().walks().count(), 1);
    let uneven = Selection::of_ranges(Dtype::F32, &[16, 6], &[vec![0..4, 8..10], vec![2..4]]);
    assert_eq!(uneven.unwrap().walks().count(), 2);
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |shape: &[u64], ranges: &[Vec<Range<u64>>]| {
        let error = Selection::of_ranges(Dtype::F32, shape, ranges).unwrap_err();
        (error.kind(), error.message().to_owned())
    };
    assert_eq!(
        refused(&[4, 4], &[vec![0..4]]),
        (
            ErrorKind::InvalidSlice,
            "there are ranges for 1 dimensions, but the tensor has 2".into()
        )
    );
    assert_eq!(
        refused(&[4, 4], &[vec![0..4], vec![2..5]]),
        (
            ErrorKind::InvalidSlice,
            "positions 2..5 pass the end of dimension 1 of size 4".into()
        )
    );
    let uneven = vec![0..1, 2..4];
    assert_eq!(
        refused(&[1 << 21, 4], &[vec![0..1 << 21], uneven]),
        (
            ErrorKind::InvalidSlice,
            "the part takes over 1048576 walks".into()
        )
    );
}
