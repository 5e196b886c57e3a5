//! Quantized weights read as numbers, as a user of the facade sees it.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use tempfile::{TempDir, tempdir};
use tensorhold::{
    Backend, Bounds, Checkpoint, Dequantize, DequantizeOptions, Dtype, Error, ErrorKind, Index,
    OpenOptions, QuantLayout, QuantizedWeight, RewriteOptions, SaveOptions, Selection, TensorSpec,
    dequantize_checkpoint, shape_size_bytes,
};
use tensorhold_quant::dequantize;
use tensorhold_quant::detect::{DtypeFrom, SchemeName};
use tensorhold_quant::scheme::{Fp8, Gptq, GptqFormat, PackQuantized, Parts, Recipe, Scheme};

/// The parts of one weight: what they are called, their types and shapes.
type Table = Vec<(&'static str, Dtype, Vec<u64>)>;

/// A checkpoint of some weights, with the bytes of their parts, and a tensor that is not quantized.
struct Made {
    folder: TempDir,
    weights: Vec<QuantizedWeight>,
    bytes: BTreeMap<String, Vec<u8>>,
}

fn fp8(rows: u64, columns: u64) -> (Table, Recipe) {
    let grid = vec![rows.div_ceil(128), columns.div_ceil(128)];
    let table = vec![
        ("weight", Dtype::F8_E4M3, vec![rows, columns]),
        ("weight_scale_inv", Dtype::F32, grid),
    ];
    let block = Some([128, 128]);
    let recipe = Fp8 { block }.recipe(&parts(&table)).unwrap();
    (table, recipe)
}

fn gptq(rows: u64, columns: u64) -> (Table, Recipe) {
    let n_groups = columns / 32;
    let table = vec![
        ("qweight", Dtype::I32, vec![columns / 8, rows]),
        ("qzeros", Dtype::I32, vec![n_groups, rows / 8]),
        ("scales", Dtype::F16, vec![n_groups, rows]),
    ];
    let gptq = Gptq {
        bits: 4,
        group_size: Some(32),
        format: GptqFormat::V2,
    };
    let recipe = gptq.recipe(&parts(&table)).unwrap();
    (table, recipe)
}

fn packed(rows: u64, columns: u64) -> (Table, Recipe) {
    let table = vec![
        ("weight_packed", Dtype::I32, vec![rows, columns / 8]),
        ("weight_scale", Dtype::BF16, vec![rows, columns / 64]),
    ];
    let pack = PackQuantized {
        bits: 4,
        group_size: Some(64),
        shape: [rows, columns],
        order: None,
    };
    let recipe = pack.recipe(&parts(&table)).unwrap();
    (table, recipe)
}

fn parts(table: &Table) -> Parts<'_> {
    let rows = table.iter();
    rows.map(|(name, dtype, shape)| (*name, *dtype, &shape[..]))
        .collect()
}

/// Bytes that depend on their place; scales are small numbers.
fn noise(dtype: Dtype, size: u64) -> Vec<u8> {
    let byte = |place: u64| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    let scale = |place: u64| 0.5 + f32::from(byte(place)) / 256.0;
    match dtype {
        Dtype::F32 => (0..size / 4).flat_map(|n| scale(n).to_le_bytes()).collect(),
        Dtype::BF16 => (0..size / 2)
            .flat_map(|n| ((scale(n).to_bits() >> 16) as u16).to_le_bytes())
            .collect(),
        Dtype::F16 => (0..size / 2)
            .flat_map(|n| (0x3800 | u16::from(byte(n)) << 2).to_le_bytes())
            .collect(),
        _ => (0..size).map(byte).collect(),
    }
}

fn made(all: Vec<(Table, Recipe)>) -> Made {
    let folder = tempdir().unwrap();
    let (mut weights, mut rows, mut bytes) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (number, (table, recipe)) in all.into_iter().enumerate() {
        let mut names = BTreeMap::new();
        for (part, dtype, shape) in table {
            let name = format!("layer.{number}.{part}_");
            let size = shape_size_bytes(dtype, &shape).unwrap();
            bytes.insert(name.clone(), noise(dtype, size));
            names.insert(part.to_owned(), name.clone());
            rows.push((name, dtype, shape));
        }
        weights.push(QuantizedWeight {
            name: format!("layer.{number}.weight"),
            scheme: SchemeName::Unknown,
            dtype: Dtype::BF16,
            dtype_from: DtypeFrom::Nowhere,
            layout: QuantLayout::Known(recipe),
            parts: names,
            findings: Vec::new(),
        });
    }
    bytes.insert("norm".to_owned(), noise(Dtype::BF16, 20));
    rows.push(("norm".to_owned(), Dtype::BF16, vec![10]));
    let specs: Vec<TensorSpec<'_>> = rows
        .iter()
        .map(|(name, dtype, shape)| TensorSpec {
            name,
            dtype: *dtype,
            shape,
        })
        .collect();
    let path = folder.path().join("model.safetensors");
    let options = SaveOptions::default();
    let metadata = [("format", "pt")];
    tensorhold::save_file(path, &specs, Some(&metadata), &options, |index| {
        Ok((&bytes[specs[index].name]).into())
    })
    .unwrap();
    Made {
        folder,
        weights,
        bytes,
    }
}

impl Made {
    fn open(&self, backend: Backend) -> Checkpoint {
        let path = self.folder.path().join("model.safetensors");
        let options = OpenOptions {
            backend,
            ..OpenOptions::default()
        };
        Checkpoint::open(path, &options).unwrap()
    }

    /// The whole weight, from all bytes of its parts.
    fn whole(&self, number: usize, dtype: Dtype) -> Vec<u8> {
        let weight = &self.weights[number];
        let recipe = weight.recipe().unwrap();
        let needs = recipe.needs(&recipe.whole()).unwrap();
        let parts = needs
            .iter()
            .map(|need| &self.bytes[&weight.parts[need.part]]);
        let parts: Vec<&[u8]> = parts.map(|bytes| &bytes[..]).collect();
        let mut whole = vec![0; shape_size_bytes(dtype, &recipe.shape).unwrap() as usize];
        dequantize(recipe, &recipe.whole(), &parts, dtype, &mut whole).unwrap();
        whole
    }
}

const BACKENDS: [Backend; 4] = [
    Backend::Auto,
    Backend::Mmap,
    Backend::Pread,
    Backend::Direct,
];

#[test]
fn weights_are_the_same_by_every_backend_and_any_number_of_threads() {
    // Large enough for several strips and threads.
    let made = made(vec![fp8(1100, 2100), gptq(1024, 2048), packed(1200, 2048)]);
    for backend in BACKENDS {
        let checkpoint = made.open(backend);
        for n_threads in [Some(3), None] {
            let wanted: Vec<Dequantize<'_>> = made.weights.iter().map(Dequantize::whole).collect();
            let mut told = 0;
            let mut progress = |n_bytes| {
                told = n_bytes;
                Ok(())
            };
            let found = checkpoint
                .dequantize_all(&wanted, Vec::new(), n_threads, &mut progress)
                .unwrap();
            assert_eq!(
                told,
                found.iter().map(|buffer| buffer.len() as u64).sum::<u64>()
            );
            for (number, found) in found.iter().enumerate() {
                let is_same = **found == made.whole(number, Dtype::BF16)[..];
                assert!(is_same, "weight {number} by {backend:?} of {n_threads:?}");
            }
        }
    }
}

fn index() -> impl Strategy<Value = Index> {
    let end = || proptest::option::of(-160i64..160);
    let step = prop_oneof![
        Just(None),
        (1i64..5).prop_map(Some),
        (-5i64..-1).prop_map(Some)
    ];
    prop_oneof![
        4 => (end(), end(), step).prop_map(|(start, stop, step)| Index::Range { start, stop, step }),
        1 => (-100i64..100).prop_map(Index::At),
        1 => Just(Index::ALL),
        1 => Just(Index::NewAxis),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_slice_is_the_slice_of_the_whole(
        kind in 0usize..3,
        index in prop::collection::vec(index(), 0..3),
        dtype in prop::sample::select(vec![Dtype::BF16, Dtype::F32, Dtype::F16]),
    ) {
        let weight = match kind {
            0 => fp8(150, 140),
            1 => gptq(152, 128),
            _ => packed(131, 128),
        };
        let made = made(vec![weight]);
        let shape = made.weights[0].shape().unwrap().to_vec();
        let checkpoint = made.open(Backend::Pread);
        let wanted = Dequantize::whole(&made.weights[0]).cast(dtype).part(&index);
        let selection = Selection::resolve(dtype, &shape, &index, Bounds::Clamped);
        match selection {
            Ok(selection) => {
                let mut expected = vec![0; selection.size_bytes() as usize];
                selection.gather(&made.whole(0, dtype), &mut expected);
                prop_assert_eq!(wanted.shape().unwrap(), selection.shape());
                let found = checkpoint.dequantize(&wanted).unwrap();
                prop_assert!(*found == expected[..]);
            }
            Err(expected) => {
                let found = checkpoint.dequantize(&wanted).unwrap_err();
                prop_assert_eq!(found.kind(), expected.kind());
            }
        }
    }
}

#[test]
fn a_slice_needs_its_share_of_the_bytes() {
    let made = made(vec![fp8(1024, 1024), packed(1024, 1024)]);
    let rows = |start, stop| Index::Range {
        start: Some(start),
        stop: Some(stop),
        step: None,
    };
    let needed = |number: usize, index: &[Index]| {
        let wanted = Dequantize::whole(&made.weights[number]).part(index);
        wanted.needed_bytes().unwrap()
    };
    // A quarter of the rows: 256 of codes, and 2 rows of scales.
    assert_eq!(needed(0, &[rows(256, 512)]), 256 * 1024 + 2 * 8 * 4);
    // A quarter of the columns: 128 bytes of each row of codes, and 4 of its scales.
    assert_eq!(
        needed(1, &[Index::ALL, rows(256, 512)]),
        1024 * (128 + 4 * 2)
    );
    assert_eq!(needed(1, &[rows(3, 3)]), 0);
}

#[test]
fn given_memory_is_filled() {
    let made = made(vec![fp8(300, 300), packed(64, 64)]);
    let checkpoint = made.open(Backend::Auto);
    let wanted: Vec<Dequantize<'_>> = made.weights.iter().map(Dequantize::whole).collect();
    let memory = tensorhold::Buffer::allocate(64 * 64 * 2).unwrap();
    let place = memory.as_ptr();
    let found = checkpoint
        .dequantize_all(&wanted, vec![(1, memory)], None, &mut |_| Ok(()))
        .unwrap();
    assert_eq!(found[1].as_ptr(), place);
    assert!(*found[1] == made.whole(1, Dtype::BF16)[..]);
    assert!(*found[0] == made.whole(0, Dtype::BF16)[..]);
}

#[test]
fn weights_that_are_not_read_are_named_together() {
    let mut made = made((0..8).map(|_| packed(64, 64)).collect());
    for weight in &mut made.weights[1..] {
        weight.layout = QuantLayout::Opaque("its order is that of a kernel".to_owned());
    }
    let checkpoint = made.open(Backend::Auto);
    let wanted: Vec<Dequantize<'_>> = made.weights.iter().map(Dequantize::whole).collect();
    let error = checkpoint
        .dequantize_all(&wanted, Vec::new(), None, &mut |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let start = "7 weights cannot be read as numbers: `layer.1.weight`, `layer.2.weight`, \
        `layer.3.weight`, `layer.4.weight`, `layer.5.weight` and 2 more; the first: ";
    assert!(error.message().starts_with(start), "{}", error.message());
    assert!(checkpoint.dequantize(&wanted[0]).is_ok());
}

#[test]
fn a_part_of_another_size_is_refused() {
    let mut made = made(vec![packed(64, 64), packed(64, 128)]);
    let other = made.weights[1].parts["weight_packed"].clone();
    made.weights[0]
        .parts
        .insert("weight_packed".to_owned(), other.clone());
    let checkpoint = made.open(Backend::Auto);
    let wanted = Dequantize::whole(&made.weights[0]);
    let error = checkpoint.dequantize(&wanted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTensor);
    assert_eq!(error.tensor(), Some(&other[..]));
    assert_eq!(
        error.message(),
        "part `weight_packed` of `layer.0.weight` takes 2048 bytes, but the tensor has 4096"
    );
}

#[test]
fn progress_ends_the_work_by_an_error() {
    let made = made(vec![fp8(2048, 2048)]);
    let checkpoint = made.open(Backend::Auto);
    let wanted = [Dequantize::whole(&made.weights[0])];
    let mut end = |_| Err(Error::new(ErrorKind::Interrupted, "enough"));
    let error = checkpoint.dequantize_all(&wanted, Vec::new(), Some(2), &mut end);
    assert_eq!(error.unwrap_err().message(), "enough");
}

fn written(made: &Made, target: &Path, options: &DequantizeOptions) -> (u64, Checkpoint) {
    let source = made.open(Backend::Auto);
    let (mut total, mut done) = (0, 0);
    let mut progress = |all, now| {
        (total, done) = (all, now);
        Ok(())
    };
    let found =
        dequantize_checkpoint(&source, &made.weights, target, options, &mut progress).unwrap();
    assert_eq!((total, found.n_weights), (done, made.weights.len()));
    let last = found.paths.last().unwrap();
    (
        total,
        Checkpoint::open(last, &OpenOptions::default()).unwrap(),
    )
}

#[test]
fn a_checkpoint_is_written_as_numbers() {
    let made = made(vec![fp8(1100, 2100), gptq(1024, 2048), packed(1200, 2048)]);
    for max_shard_bytes in [None, Some(4_000_000)] {
        let folder = tempdir().unwrap();
        let target = folder.path().join("numbers.safetensors");
        let options = DequantizeOptions {
            rewrite: RewriteOptions {
                max_shard_bytes,
                verify: true,
                ..RewriteOptions::default()
            },
            ..DequantizeOptions::default()
        };
        let (_, found) = written(&made, &target, &options);
        let mut names: Vec<&str> = found.tensors().map(|tensor| tensor.info().name).collect();
        names.sort_unstable();
        let weights = made.weights.iter().map(|weight| &weight.name[..]);
        assert_eq!(names, weights.chain(["norm"]).collect::<Vec<_>>());
        for (number, weight) in made.weights.iter().enumerate() {
            let tensor = found.tensor(&weight.name).unwrap();
            assert_eq!(tensor.info().dtype, Dtype::BF16);
            assert_eq!(tensor.info().shape, weight.shape().unwrap());
            assert!(tensor.read().unwrap() == made.whole(number, Dtype::BF16));
        }
        assert!(found.tensor("norm").unwrap().read().unwrap() == made.bytes["norm"]);
        assert_eq!(found.metadata()["format"], "pt");
        assert_eq!(found.files().len() > 1, max_shard_bytes.is_some());
    }
}

#[test]
fn the_type_that_is_asked_for_is_that_of_weights_alone() {
    let made = made(vec![packed(64, 64)]);
    let folder = tempdir().unwrap();
    let options = DequantizeOptions {
        dtype: Some(Dtype::F32),
        ..DequantizeOptions::default()
    };
    let (_, found) = written(&made, &folder.path().join("a.safetensors"), &options);
    let dtype = |name| found.tensor(name).unwrap().info().dtype;
    assert_eq!(
        (dtype("layer.0.weight"), dtype("norm")),
        (Dtype::F32, Dtype::BF16)
    );
}

#[test]
fn a_failure_leaves_nothing_at_the_target() {
    let made = made(vec![fp8(2048, 2048)]);
    let folder = tempdir().unwrap();
    let target = folder.path().join("a.safetensors");
    let mut end = |_, done| match done > 1_000_000 {
        true => Err(Error::new(ErrorKind::Interrupted, "enough")),
        false => Ok(()),
    };
    let source = made.open(Backend::Auto);
    let options = DequantizeOptions::default();
    let error = dequantize_checkpoint(&source, &made.weights, &target, &options, &mut end);
    assert_eq!(error.unwrap_err().message(), "enough");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);

    let own = made.folder.path().join("model.safetensors");
    let error = dequantize_checkpoint(&source, &made.weights, &own, &options, &mut |_, _| Ok(()));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidArgument);
}
