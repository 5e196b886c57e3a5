//! Any index on any shape: small tensors are sliced as a naive loop slices them, and the runs of
//! large ones stay within the tensor.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tensorhold_core::{Bounds, Dtype, Index, Selection, shape_size_bytes};
use tensorhold_fuzz::naive::{naive, pack};

#[derive(Debug, Arbitrary)]
enum Part {
    At(i8),
    Range(Option<i8>, Option<i8>, Option<i8>),
    FarAt(i64),
    FarRange(Option<i64>, Option<i64>, Option<i64>),
    All,
    Ellipsis,
    NewAxis,
}

#[derive(Debug, Arbitrary)]
struct Input {
    dtype: u8,
    small: Vec<u8>,
    large: Vec<u64>,
    index: Vec<Part>,
}

fuzz_target!(|input: Input| {
    let dtype = Dtype::ALL[usize::from(input.dtype) % Dtype::ALL.len()];
    let index: Vec<Index> = input.index.iter().map(part).collect();
    let shape: Vec<u64> = input.small.iter().map(|size| u64::from(size % 9)).collect();
    if shape.len() <= 8 && shape.iter().product::<u64>() <= 4096 {
        compare(dtype, &shape, &index);
    }
    stay_within(dtype, &input.large, &index);
});

fn part(part: &Part) -> Index {
    let wide = |bound: Option<i8>| bound.map(|bound| i64::from(bound % 12));
    match *part {
        Part::At(at) => Index::At(i64::from(at % 12)),
        Part::Range(start, stop, step) => Index::Range {
            start: wide(start),
            stop: wide(stop),
            step: wide(step),
        },
        Part::FarAt(at) => Index::At(at),
        Part::FarRange(start, stop, step) => Index::Range { start, stop, step },
        Part::All => Index::ALL,
        Part::Ellipsis => Index::Ellipsis,
        Part::NewAxis => Index::NewAxis,
    }
}

fn compare(dtype: Dtype, shape: &[u64], index: &[Index]) {
    let Ok(size_bytes) = shape_size_bytes(dtype, shape) else {
        assert!(Selection::resolve(dtype, shape, index, Bounds::Clamped).is_err());
        return;
    };
    let width_bits = u64::from(dtype.width_bits());
    let tensor: Vec<u8> = (0..size_bytes).map(|at| (at ^ at >> 8) as u8).collect();
    let selection = Selection::resolve(dtype, shape, index, Bounds::Clamped);
    let expected = naive(shape, index)
        .filter(|(_, elements)| (elements.len() as u64 * width_bits).is_multiple_of(8));
    let Some((expected_shape, elements)) = expected else {
        assert!(selection.is_err());
        assert!(Selection::resolve(dtype, shape, index, Bounds::Checked).is_err());
        return;
    };
    let selection = selection.expect("the naive loop accepts it");
    let expected = pack(&tensor, &elements, width_bits);
    assert_eq!(selection.shape(), expected_shape);
    let mut gathered = vec![0xAA; selection.size_bytes() as usize];
    selection.gather(&tensor, &mut gathered);
    assert_eq!(gathered, expected);

    let span = selection.span();
    selection.gather_span(
        &tensor[span.start as usize..span.end as usize],
        &mut gathered,
    );
    assert_eq!(gathered, expected);

    let bits: Vec<u64> = selection
        .bit_runs()
        .flat_map(|(start, n)| start..start + n)
        .collect();
    assert_eq!(pack(&tensor, &bits, 1), expected);
    if selection.is_byte_aligned() {
        let bytes = selection
            .runs()
            .flat_map(|run| run.start as usize..run.end as usize);
        assert!(bytes.map(|at| tensor[at]).eq(expected));
    }
    if let Ok(checked) = Selection::resolve(dtype, shape, index, Bounds::Checked) {
        assert_eq!(checked, selection);
    }
}

fn stay_within(dtype: Dtype, shape: &[u64], index: &[Index]) {
    let Ok(selection) = Selection::resolve(dtype, shape, index, Bounds::Clamped) else {
        return;
    };
    let size_bytes = shape_size_bytes(dtype, shape).expect("a selection has a size");
    let span = selection.span();
    assert!(span.end <= size_bytes && selection.size_bytes() <= span.len() + 7);
    let n_bits = selection.size_bytes() * 8;
    let mut n_seen = 0;
    for (start, length) in selection.bit_runs().take(64) {
        assert!(length > 0 && start >= span.start * 8 && start + length <= span.end * 8);
        n_seen += length;
    }
    assert!(n_seen <= n_bits && (n_seen == n_bits || selection.max_runs() > 64));
}
