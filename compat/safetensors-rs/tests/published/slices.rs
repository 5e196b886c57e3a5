//! What slices select.

use std::ops::Bound;

use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::slice::slice_byte_ranges;
use safetensors::tensor::TensorView;

use crate::common::{Part, our_indexers, published_dtype, published_indexers};
use crate::generator::{shapes, size_bits};

fn bounds(size: usize) -> impl Strategy<Value = Bound<usize>> {
    prop_oneof![
        Just(Bound::Unbounded),
        (0..=size + 1).prop_map(Bound::Included),
        (0..=size + 1).prop_map(Bound::Excluded),
    ]
}

fn parts(shape: &[usize]) -> impl Strategy<Value = Vec<Part>> + use<> {
    let part = |&size: &usize| {
        prop_oneof![
            (0..=size).prop_map(Part::At),
            (bounds(size), bounds(size), 1..4usize)
                .prop_map(|(start, stop, step)| Part::Range(start, stop, step)),
        ]
    };
    let every: Vec<_> = shape.iter().chain([&2]).map(part).collect();
    (every, 0..=shape.len() + 1).prop_map(|(mut parts, n)| {
        parts.truncate(n);
        parts
    })
}

fn slices() -> impl Strategy<Value = (Dtype, Vec<usize>, Vec<Part>)> {
    shapes().prop_flat_map(|(dtype, shape)| {
        let parts = parts(&shape);
        (Just(dtype), Just(shape), parts)
    })
}

/// The positions that each dimension gives, and whether it stays; `None` where a part does not fit.
fn positions(shape: &[usize], parts: &[Part]) -> Option<Vec<(Vec<usize>, bool)>> {
    let whole = Part::Range(Bound::Unbounded, Bound::Unbounded, 1);
    let padded = parts.iter().chain(std::iter::repeat(&whole));
    let each = |(&size, part): (&usize, &Part)| match *part {
        Part::At(position) => (position < size).then(|| (vec![position], false)),
        Part::Range(start, stop, step) => {
            let start = match start {
                Bound::Unbounded => 0,
                Bound::Included(start) => start,
                Bound::Excluded(before) => before + 1,
            };
            let stop = match stop {
                Bound::Unbounded => size,
                Bound::Included(last) => last + 1,
                Bound::Excluded(stop) => stop,
            };
            (start <= size && stop <= size).then(|| ((start..stop).step_by(step).collect(), true))
        }
    };
    (parts.len() <= shape.len()).then(|| shape.iter().zip(padded).map(each).collect())?
}

/// The elements that `parts` select, by going through all of them one by one.
fn elements(shape: &[usize], positions: &[(Vec<usize>, bool)]) -> Vec<usize> {
    let mut elements = vec![0];
    for (&size, (positions, _)) in shape.iter().zip(positions) {
        elements = elements
            .iter()
            .flat_map(|element| {
                positions
                    .iter()
                    .map(move |position| element * size + position)
            })
            .collect();
    }
    elements
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn slices_are_those_of_a_plain_loop((dtype, shape, parts) in slices()) {
        let found = slice_byte_ranges(dtype, &shape, &our_indexers(&parts));
        let Some(positions) = positions(&shape, &parts) else {
            prop_assert!(found.is_err());
            return Ok(());
        };
        let elements = elements(&shape, &positions);
        let newshape: Vec<usize> = positions
            .iter()
            .filter_map(|(positions, stays)| stays.then_some(positions.len()))
            .collect();
        let Ok((ranges, found_shape)) = found else {
            // Refused only where a piece would begin or end inside a byte.
            prop_assert!(dtype.bitsize() < 8 && !elements.is_empty());
            return Ok(());
        };
        prop_assert_eq!(found_shape, newshape);
        let width = dtype.bitsize();
        let wanted: Vec<usize> = elements.iter().flat_map(|n| n * width..(n + 1) * width).collect();
        let read: Vec<usize> = ranges.iter().flat_map(|(start, end)| start * 8..end * 8).collect();
        prop_assert_eq!(read, wanted);
        let data: Vec<u8> = (0..size_bits(dtype, &shape) / 8).map(|n| n as u8).collect();
        let view = TensorView::new(dtype, shape, &data).unwrap();
        let indexers = our_indexers(&parts);
        let mut pieces = view.sliced_data(&indexers).unwrap();
        for &(start, end) in &ranges {
            let left = pieces.remaining_byte_len();
            prop_assert_eq!(pieces.next(), Some(&data[start..end]));
            prop_assert_eq!(pieces.remaining_byte_len(), left - (end - start));
        }
        prop_assert_eq!(pieces.next(), None);
    }

    #[test]
    fn slices_are_those_of_the_published_crate((dtype, shape, parts) in slices()) {
        // Empty ranges and dimensions are among its defects.
        let Some(positions) = positions(&shape, &parts) else {
            return compare_refusals(dtype, &shape, &parts);
        };
        if shape.contains(&0) || positions.iter().any(|(positions, _)| positions.is_empty()) {
            return Ok(());
        }
        let ours = slice_byte_ranges(dtype, &shape, &our_indexers(&parts));
        let theirs = published::slice::slice_byte_ranges(
            published_dtype(dtype), &shape, &published_indexers(&parts));
        match (ours, theirs) {
            (Ok((ranges, newshape)), Ok((their_ranges, their_shape))) => {
                prop_assert_eq!(newshape, their_shape);
                prop_assert_eq!(joined(&ranges), joined(&their_ranges));
            }
            (Err(ours), Err(theirs)) => prop_assert_eq!(format!("{ours:?} {ours}"), format!("{theirs:?} {theirs}")),
            // Pieces that begin inside a byte but follow each other are one piece here.
            (Ok(_), Err(published::slice::InvalidSlice::MisalignedSlice)) => prop_assert!(dtype.bitsize() < 8),
            (ours, theirs) => prop_assert!(false, "{:?} but {:?}", ours, theirs),
        }
    }
}

/// The refusal of parts that do not fit, where the published crate does not stumble over an empty range first.
fn compare_refusals(dtype: Dtype, shape: &[usize], parts: &[Part]) -> Result<(), TestCaseError> {
    let ours = slice_byte_ranges(dtype, shape, &our_indexers(parts)).unwrap_err();
    let is_empty = |(&size, part): (&usize, &Part)| {
        let positions = positions(&[size], std::slice::from_ref(part));
        positions.is_some_and(|positions| positions[0].0.is_empty())
    };
    let stumbles = shape.contains(&0) || shape.iter().zip(parts).any(is_empty);
    if stumbles || dtype.bitsize() < 8 {
        return Ok(());
    }
    let theirs = published::slice::slice_byte_ranges(
        published_dtype(dtype),
        shape,
        &published_indexers(parts),
    );
    let theirs = theirs.unwrap_err();
    prop_assert_eq!(format!("{ours:?} {ours}"), format!("{theirs:?} {theirs}"));
    Ok(())
}

/// Ranges that touch as one.
fn joined(ranges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut joined: Vec<(usize, usize)> = Vec::new();
    for &(start, end) in ranges {
        match joined.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => joined.push((start, end)),
        }
    }
    joined
}
