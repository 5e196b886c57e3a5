//! Weights whose zeros are left out, found in files as compressed-tensors wrote them, and read as numbers.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};
use tensorhold::{
    Backend, Bounds, Checkpoint, Dequantize, DequantizeOptions, Dtype, Error, ErrorKind, Index,
    OpenOptions, QuantLayout, RewriteOptions, Rules, SaveOptions, Selection, TensorSpec,
    VerifyEvent, dequantize_checkpoint,
};
use tensorhold_quant::cast;
use tensorhold_quant::detect::SchemeName;

/// How zeros are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Bitmask,
    TwoOfFour,
}

use Format::{Bitmask, TwoOfFour};

/// Parts of a weight by name, type and shape, and all its elements.
struct Made {
    parts: Vec<(&'static str, Dtype, Vec<u64>, Vec<u8>)>,
    dense: Vec<u8>,
    dtype: Dtype,
    shape: [u64; 2],
    scales: Option<Vec<f32>>,
}

fn noise(seed: u64) -> u64 {
    let mixed = (seed ^ 0x5851).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
}

/// Whether an element is there: two of each four, or some, and none in row 3.
fn is_there(format: Format, row: u64, column: u64, columns: u64) -> bool {
    match format {
        Bitmask => row != 3 && noise(row * columns + column).is_multiple_of(3),
        TwoOfFour => {
            let pair = noise(row * columns + column / 4) % 3;
            [[0, 1], [1, 3], [0, 2]][pair as usize].contains(&(column % 4))
        }
    }
}

fn made(format: Format, dtype: Dtype, [rows, columns]: [u64; 2]) -> Made {
    let width = dtype.width_bytes().unwrap() as usize;
    let (mut dense, mut values, mut bits, mut offsets) = (vec![], vec![], vec![], vec![]);
    for row in 0..rows {
        offsets.extend((values.len() as i64 / width as i64).to_le_bytes());
        let mut line = vec![0; columns.div_ceil(8) as usize];
        for column in 0..columns {
            // Bytes of which no float is made that is not a number.
            let value = noise(row * 7 + column + 1)
                .to_le_bytes()
                .map(|byte| byte & 0x3f | 1);
            let there = is_there(format, row, column, columns);
            line[column as usize / 8] |= u8::from(there) << (column % 8);
            if there {
                values.extend(&value[..width]);
            }
            let value = if there { value } else { [0; 8] };
            dense.extend(&value[..width]);
        }
        bits.extend(line);
    }
    let n_values = (values.len() / width) as u64;
    let (n_values, shape) = match format {
        Bitmask => (vec![n_values], vec![2]),
        TwoOfFour => (vec![rows, columns / 2], vec![2, 1]),
    };
    let sizes = [rows as i64, columns as i64].map(i64::to_le_bytes).concat();
    let mut parts = vec![
        ("up.compressed", dtype, n_values, values),
        (
            "up.bitmask",
            Dtype::U8,
            vec![rows, columns.div_ceil(8)],
            bits,
        ),
        ("up.shape", Dtype::I64, shape, sizes),
    ];
    if format == Bitmask {
        parts.push(("up.row_offsets", Dtype::I64, vec![rows], offsets));
    }
    let is_scaled = dtype == Dtype::F8_E4M3;
    let scales = (0..rows).map(|row| 0.5 + (noise(row) % 64) as f32 / 64.0);
    let scales: Option<Vec<f32>> = is_scaled.then(|| scales.collect());
    if let Some(scales) = &scales {
        let bytes = scales
            .iter()
            .flat_map(|scale| scale.to_le_bytes())
            .collect();
        parts.push(("up.weight_scale", Dtype::F32, vec![rows, 1], bytes));
    }
    Made {
        parts,
        dense,
        dtype,
        shape: [rows, columns],
        scales,
    }
}

impl Made {
    /// The whole weight as `dtype`, by its elements and scales alone.
    fn whole(&self, dtype: Dtype) -> Vec<u8> {
        let n_elements = (self.shape[0] * self.shape[1]) as usize;
        let mut into = vec![0; n_elements * dtype.width_bytes().unwrap() as usize];
        let Some(scales) = &self.scales else {
            cast(self.dtype, &self.dense, dtype, &mut into).unwrap();
            return into;
        };
        let mut singles = vec![0; n_elements * 4];
        cast(self.dtype, &self.dense, Dtype::F32, &mut singles).unwrap();
        let each = singles.as_chunks_mut::<4>().0.iter_mut().enumerate();
        for (place, single) in each {
            let scale = scales[place / self.shape[1] as usize];
            *single = (f32::from_le_bytes(*single) * scale).to_le_bytes();
        }
        cast(Dtype::F32, &singles, dtype, &mut into).unwrap();
        into
    }

    fn part(&mut self, name: &str) -> &mut Vec<u8> {
        let mut parts = self.parts.iter_mut();
        &mut parts.find(|part| part.0 == name).unwrap().3
    }

    fn save(&self) -> (TempDir, PathBuf) {
        let folder = tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let specs = self.parts.iter().map(|(name, dtype, shape, _)| TensorSpec {
            name,
            dtype: *dtype,
            shape,
        });
        let specs: Vec<TensorSpec<'_>> = specs.collect();
        let options = SaveOptions::default();
        tensorhold::save_file(&path, &specs, None, &options, |index| {
            Ok((&self.parts[index].3).into())
        })
        .unwrap();
        (folder, path)
    }
}

fn open(path: &PathBuf, backend: Backend) -> Checkpoint {
    let options = OpenOptions {
        backend,
        ..OpenOptions::default()
    };
    Checkpoint::open(path, &options).unwrap()
}

/// What is wrong with the quantized weights of a file.
fn wrong(path: &PathBuf) -> Vec<Error> {
    let mut wrong = Vec::new();
    tensorhold::verify(path, Rules::Strict, &mut |event| {
        if let VerifyEvent::Proven(proof) = event {
            wrong.extend(proof.wrong);
        }
    });
    wrong
}

const CASES: [(Format, Dtype); 6] = [
    (Bitmask, Dtype::BF16),
    (Bitmask, Dtype::F32),
    (Bitmask, Dtype::F8_E4M3),
    (TwoOfFour, Dtype::BF16),
    (TwoOfFour, Dtype::F16),
    (TwoOfFour, Dtype::F8_E4M3),
];

#[test]
fn weights_are_the_same_by_every_backend_and_any_number_of_threads() {
    for (format, dtype) in CASES {
        // Large enough for several strips and threads.
        let made = made(format, dtype, [600, 2052]);
        let (_folder, path) = made.save();
        for backend in [
            Backend::Auto,
            Backend::Mmap,
            Backend::Pread,
            Backend::Direct,
        ] {
            let checkpoint = open(&path, backend);
            let quantization = checkpoint.quantization().unwrap();
            let weight = quantization.find("up.weight").unwrap();
            let wanted = [Dequantize::whole(weight).cast(Dtype::F32)];
            let found = checkpoint.dequantize_all(&wanted, vec![], Some(3), &mut |_| Ok(()));
            let is_same = *found.unwrap()[0] == made.whole(Dtype::F32)[..];
            assert!(is_same, "{format:?} of {dtype} by {backend:?}");
        }
        assert!(wrong(&path).is_empty());
    }
}

#[test]
fn a_weight_without_its_zeros_has_the_type_and_shape_of_the_weight() {
    for (format, dtype) in CASES {
        let (_folder, path) = made(format, dtype, [12, 44]).save();
        let checkpoint = open(&path, Backend::Pread);
        let logical = checkpoint.logical("up.weight").unwrap();
        let scheme = match format {
            Bitmask => SchemeName::SparseBitmask,
            TwoOfFour => SchemeName::Sparse24Bitmask,
        };
        let of_values = if dtype == Dtype::F8_E4M3 {
            Dtype::F32
        } else {
            dtype
        };
        assert_eq!((logical.scheme, logical.dtype), (Some(scheme), of_values));
        assert_eq!(logical.shape, [12, 44]);
        assert_eq!(
            checkpoint.logical_names().unwrap(),
            [("up.weight".to_owned(), true)]
        );
    }
}

fn index() -> impl Strategy<Value = Index> {
    let end = || proptest::option::of(-60i64..60);
    let step = prop_oneof![
        Just(None),
        (1i64..5).prop_map(Some),
        (-5i64..-1).prop_map(Some)
    ];
    prop_oneof![
        4 => (end(), end(), step).prop_map(|(start, stop, step)| Index::Range { start, stop, step }),
        1 => (-12i64..12).prop_map(Index::At),
        1 => Just(Index::ALL),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_slice_is_the_slice_of_the_whole(
        (format, stored) in prop::sample::select(CASES.to_vec()),
        index in prop::collection::vec(index(), 0..3),
        dtype in prop::sample::select(vec![Dtype::BF16, Dtype::F32, Dtype::F64]),
    ) {
        let made = made(format, stored, [12, 44]);
        let (_folder, path) = made.save();
        let checkpoint = open(&path, Backend::Pread);
        let quantization = checkpoint.quantization().unwrap();
        let wanted = Dequantize::whole(quantization.find("up.weight").unwrap());
        let wanted = wanted.cast(dtype).part(&index);
        let selection = Selection::resolve(dtype, &made.shape, &index, Bounds::Clamped).unwrap();
        let mut expected = vec![0; selection.size_bytes() as usize];
        selection.gather(&made.whole(dtype), &mut expected);
        prop_assert_eq!(wanted.shape().unwrap(), selection.shape());
        prop_assert!(*checkpoint.dequantize(&wanted).unwrap() == expected[..]);
    }
}

#[test]
fn rows_of_halves_need_half_of_their_bytes_and_their_bits() {
    let (_folder, path) = made(TwoOfFour, Dtype::BF16, [64, 128]).save();
    let checkpoint = open(&path, Backend::Pread);
    let quantization = checkpoint.quantization().unwrap();
    let weight = quantization.find("up.weight").unwrap();
    let rows = Index::Range {
        start: Some(8),
        stop: Some(24),
        step: None,
    };
    let needed = Dequantize::whole(weight).part(&[rows]).needed_bytes();
    assert_eq!(needed.unwrap(), 16 * (64 * 2 + 16));
}

#[test]
fn a_checkpoint_is_written_with_its_zeros() {
    for (format, dtype) in CASES {
        let made = made(format, dtype, [40, 64]);
        let (folder, path) = made.save();
        let source = open(&path, Backend::Auto);
        let quantization = source.quantization().unwrap();
        let target = folder.path().join("numbers.safetensors");
        let options = DequantizeOptions {
            dtype: Some(Dtype::BF16),
            rewrite: RewriteOptions {
                verify: true,
                ..RewriteOptions::default()
            },
            ..DequantizeOptions::default()
        };
        dequantize_checkpoint(
            &source,
            &quantization.weights,
            &target,
            &options,
            &mut |_, _| Ok(()),
        )
        .unwrap();
        let written = open(&target, Backend::Pread);
        assert_eq!(written.tensors().count(), 1);
        let found = written.tensor("up.weight").unwrap().read().unwrap();
        assert!(found == made.whole(Dtype::BF16));
    }
}

/// A weight whose part `name` is changed.
fn damaged(name: &str, damage: impl Fn(&mut Vec<u8>)) -> (TempDir, PathBuf) {
    let mut made = made(Bitmask, Dtype::BF16, [12, 44]);
    damage(made.part(name));
    made.save()
}

#[test]
fn parts_that_do_not_suit_each_other_are_refused() {
    let offset = |row: usize, to: i64| {
        let (at, to) = (row * 8, to.to_le_bytes());
        damaged("up.row_offsets", move |part| {
            part[at..at + 8].copy_from_slice(&to)
        })
    };
    let cases = [
        (
            offset(0, 1),
            "part `row_offsets`: row 0 begins at 1 and ends at ",
        ),
        (offset(5, -1), "part `row_offsets`: row 4 begins at "),
        (offset(5, 0), "part `row_offsets`: row 4 begins at "),
        (offset(7, 1 << 40), "part `row_offsets`: row 6 begins at "),
        (
            damaged("up.bitmask", |part| part[4 * 6] ^= 1),
            "part `bitmask`: row 4 has ",
        ),
        (
            damaged("up.bitmask", |part| part[2 * 6 + 5] |= 0x80),
            "part `bitmask`: row 2 has bits past its 44 columns",
        ),
    ];
    for ((_folder, path), expected) in cases {
        let checkpoint = open(&path, Backend::Pread);
        let quantization = checkpoint.quantization().unwrap();
        let weight = quantization.find("up.weight").unwrap();
        let error = checkpoint
            .dequantize(&Dequantize::whole(weight))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidTensor);
        assert_eq!(error.tensor(), Some("up.weight"));
        assert!(error.message().starts_with(expected), "{}", error.message());
        let [proven] = &wrong(&path)[..] else {
            panic!("{expected}");
        };
        assert_eq!(proven.message(), error.message());
    }
}

#[test]
fn a_shape_that_no_file_holds_is_refused_before_memory_is_taken() {
    for sizes in [[1i64 << 40, 1 << 40], [-1, 44], [1 << 30, 44], [0, 0]] {
        let bytes = sizes.map(i64::to_le_bytes).concat();
        let (_folder, path) = damaged("up.shape", |part| part.clone_from(&bytes));
        let checkpoint = open(&path, Backend::Pread);
        let quantization = checkpoint.quantization().unwrap();
        let weight = quantization.find("up.weight").unwrap();
        assert!(matches!(weight.layout, QuantLayout::Broken(_)), "{sizes:?}");
        assert_eq!(wrong(&path).len(), 1);
    }
}

#[test]
fn packed_bytes_of_a_weight_without_its_zeros_are_not_to_be_had() {
    let (_folder, path) = made(Bitmask, Dtype::BF16, [12, 44]).save();
    let quantization = open(&path, Backend::Pread).quantization().unwrap();
    let error = quantization.weights[0].recipe().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.hint(), Some("take it as numbers: `dequantize=True`"));
}
