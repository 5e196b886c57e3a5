//! Whole tensors out of chunks, and chunks out of whole tensors.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use proptest::prelude::*;
use tensorhold::{
    Assembled, Checkpoint, Dtype, Error, ErrorKind, FusedPart, OpenOptions, ParallelRules, Pattern,
    Placement, SaveOptions, Style, TensorSpec, Transfer, TransferOptions, consolidate,
    existing_chunks, reshard, save_file,
};

type Tensors = BTreeMap<String, (Dtype, Vec<u64>, Vec<u8>)>;

fn options() -> OpenOptions {
    OpenOptions::default()
}

/// A tensor whose elements are all different, as far as their width goes.
fn tensor(dtype: Dtype, shape: &[u64]) -> (Dtype, Vec<u64>, Vec<u8>) {
    let n_elements: u64 = shape.iter().product();
    let width = u64::from(dtype.width_bits());
    let bytes = (0..n_elements * width / 8).map(|at| (at * 31 + at / 251) as u8);
    (dtype, shape.to_vec(), bytes.collect())
}

fn write(path: &Path, tensors: &Tensors, metadata: &[(&str, &str)]) {
    let specs: Vec<TensorSpec<'_>> = tensors
        .iter()
        .map(|(name, (dtype, shape, _))| TensorSpec {
            name,
            dtype: *dtype,
            shape,
        })
        .collect();
    let bytes: Vec<&Vec<u8>> = tensors.values().map(|(.., bytes)| bytes).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    save_file(path, &specs, metadata, &SaveOptions::default(), |index| {
        Ok(bytes[index].into())
    })
    .unwrap();
}

fn read(path: &Path) -> Tensors {
    let checkpoint = Checkpoint::open(path, &options()).unwrap();
    let tensors = checkpoint.tensors().map(|tensor| {
        let info = tensor.info();
        let read = (info.dtype, info.shape.to_vec(), tensor.read().unwrap());
        (info.name.to_owned(), read)
    });
    tensors.collect()
}

fn rules(mesh: &str, placements: &[(&str, &str, Placement)]) -> ParallelRules {
    let mut rules = ParallelRules::new(mesh.parse().unwrap());
    for (name, axis, placement) in placements {
        rules
            .add(Pattern::new(name), axis, Style::Place(placement.clone()))
            .unwrap();
    }
    rules
}

fn divided(from: &Path, to: &Path, rules: &ParallelRules) -> Vec<String> {
    let source = Assembled::open(from, &options()).unwrap();
    let written = reshard(&source, rules, to, &SaveOptions::default(), &mut |_| {}).unwrap();
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    written.iter().map(name).collect()
}

fn joined(from: &Path, to: &Path) -> Tensors {
    let source = Assembled::open(from, &options()).unwrap();
    consolidate(&source, to, None, &SaveOptions::default(), &mut |_| {}).unwrap();
    read(to)
}

fn refused(folder: &Path) -> Error {
    Assembled::open(folder, &options()).unwrap_err()
}

/// A size, and a way to divide it.
fn way() -> impl Strategy<Value = (u64, u64)> {
    (0u64..9, 0u64..4)
}

fn placement(dim: i64, way: u64, size: u64) -> Placement {
    match way {
        0 => Placement::Replicate,
        1 => Placement::Shard { dim },
        2 => Placement::StridedShard {
            dim,
            split_factor: 2,
        },
        _ => Placement::Fused {
            dim,
            parts: [size / 2, size - size / 2]
                .map(|size| FusedPart {
                    size,
                    n_heads: None,
                })
                .to_vec(),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_meshes_it_was_on_a_checkpoint_comes_back(
        dims in proptest::collection::vec(way(), 1..4),
        dtype in proptest::sample::select(vec![Dtype::U8, Dtype::BF16, Dtype::I32, Dtype::C64]),
        sizes in (1u64..5, 1u64..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let shape: Vec<u64> = dims.iter().map(|(size, _)| *size).collect();
        let tensors = Tensors::from([
            ("x".to_owned(), tensor(dtype, &shape)),
            ("same".to_owned(), tensor(Dtype::F32, &[3])),
            ("scalar".to_owned(), tensor(Dtype::I64, &[])),
            ("empty".to_owned(), tensor(Dtype::F16, &[0, 3])),
        ]);
        write(&at("whole.safetensors"), &tensors, &[("format", "pt"), ("by", "us")]);
        let (size, way) = dims[0];
        let last = dims.len() as i64 - 1;
        let (last_size, last_way) = dims[last as usize];
        let one = rules(&format!("a={}", sizes.0), &[("x", "a", placement(0, way, size))]);
        let second = match last {
            0 => Placement::Replicate,
            last => placement(last, last_way, last_size),
        };
        let two = rules(
            &format!("a={},b={}", sizes.1, sizes.0),
            &[("x", "a", placement(0, way, size)), ("x", "b", second)],
        );
        divided(&at("whole.safetensors"), &at("one"), &one);
        divided(&at("one"), &at("two"), &two);
        divided(&at("two"), &at("three"), &one);
        for from in ["one", "two", "three"] {
            let to = at(&format!("{from}.safetensors"));
            prop_assert_eq!(&joined(&at(from), &to), &tensors);
            let joined = Checkpoint::open(&to, &options()).unwrap();
            let expected = BTreeMap::from([("format", "pt"), ("by", "us")]);
            prop_assert_eq!(joined.metadata(), expected);
        }
    }

    #[test]
    fn a_plan_and_a_stream_give_any_box(
        shape in proptest::collection::vec(1u64..7, 0..4),
        cuts in proptest::collection::vec((0u64..8, 0u64..8), 3),
        ranks in 1u64..5,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let tensors = Tensors::from([("x".to_owned(), tensor(Dtype::F16, &shape))]);
        write(&at("whole.safetensors"), &tensors, &[]);
        let last = shape.len() as i64 - 1;
        let by: Vec<_> = match last {
            -1 => Vec::new(),
            last => vec![("x", "a", placement(last, 2, 0)), ("x", "b", placement(0, 1, 0))],
        };
        divided(&at("whole.safetensors"), &at("ranks"), &rules(&format!("a={ranks},b=2"), &by));
        let source = Assembled::open(at("ranks"), &options()).unwrap();
        let whole = source.find("x").unwrap();
        let range = |(&size, &(one, other)): (&u64, &(u64, u64))| {
            let (one, other) = (one.min(size), other.min(size));
            one.min(other)..one.max(other)
        };
        let wanted: Vec<Range<u64>> = shape.iter().zip(&cuts).map(range).collect();
        let expected = naive(&tensors["x"], &wanted);
        let mut streamed = Vec::new();
        source
            .stream(whole, &wanted, &mut |bytes| {
                streamed.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        prop_assert_eq!(&streamed, &expected);
        let mut plan = source.checkpoint().plan();
        let buffer = plan.add_buffer(expected.len() as u64);
        for request in source.requests(whole, &wanted, buffer).unwrap() {
            plan.add(request).unwrap();
        }
        let files = source.checkpoint().files();
        let (mut filled, _) =
            Transfer::run(plan, files, Vec::new(), TransferOptions::default(), &mut |_| Ok(())).unwrap();
        let filled = filled.pop().unwrap().into_host().unwrap();
        prop_assert_eq!(&filled[..], &expected[..]);
    }
}

/// The bytes of a box, element by element.
fn naive((dtype, shape, bytes): &(Dtype, Vec<u64>, Vec<u8>), wanted: &[Range<u64>]) -> Vec<u8> {
    let width = (dtype.width_bits() / 8) as usize;
    let elements = bytes.chunks(width).enumerate();
    let is_wanted = |number: usize| {
        let mut left = number as u64;
        let mut dims = shape.iter().zip(wanted).rev();
        dims.all(|(&size, range)| {
            let at = left % size;
            left /= size;
            range.contains(&at)
        })
    };
    elements
        .filter(|(number, _)| is_wanted(*number))
        .flat_map(|(_, element)| element.to_vec())
        .collect()
}

#[test]
fn boxes_larger_than_a_window_come_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensors = Tensors::from([
        ("long".to_owned(), tensor(Dtype::U8, &[20_000_003])),
        ("wide".to_owned(), tensor(Dtype::U8, &[2, 9_000_001])),
        ("rows".to_owned(), tensor(Dtype::F32, &[700, 6007])),
    ]);
    write(&at("whole.safetensors"), &tensors, &[]);
    let by = rules(
        "tp=3",
        &[
            ("long", "tp", Placement::Shard { dim: 0 }),
            ("wide", "tp", Placement::Shard { dim: 1 }),
            ("rows", "tp", Placement::Shard { dim: 1 }),
        ],
    );
    divided(&at("whole.safetensors"), &at("ranks"), &by);
    assert!(joined(&at("ranks"), &at("joined.safetensors")) == tensors);
}

#[test]
fn each_rank_has_a_file_and_further_boxes_have_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensors = Tensors::from([
        ("fused".to_owned(), tensor(Dtype::F32, &[8, 2])),
        ("norm".to_owned(), tensor(Dtype::F32, &[2])),
    ]);
    write(&at("whole.safetensors"), &tensors, &[]);
    let by = rules("tp=2", &[("fused", "tp", placement(0, 2, 8))]);
    let written = divided(&at("whole.safetensors"), &at("ranks"), &by);
    let expected = [
        "shard-00001-model-00001-of-00001.safetensors",
        "shard-00001-model-00001-of-00001-part-00001.safetensors",
        "shard-00002-model-00001-of-00001.safetensors",
        "shard-00002-model-00001-of-00001-part-00001.safetensors",
    ];
    assert_eq!(written, expected);
    let first = Checkpoint::open(at("ranks").join(expected[1]), &options()).unwrap();
    assert_eq!(first.metadata()["DCP_VERSION"], "1.0");
    let said: serde_json::Value =
        serde_json::from_str(first.metadata()["DCP_SHARDING_INFO"]).unwrap();
    let expected_place = serde_json::json!({"saved_offsets": [4, 0], "global_shape": [8, 2]});
    assert_eq!(said, serde_json::json!({"fused": expected_place}));
    // What both ranks hold is written for the first.
    let holds_norm = |name: &&str| read(&at("ranks").join(name)).contains_key("norm");
    let holders: Vec<&str> = expected.into_iter().filter(holds_norm).collect();
    assert_eq!(holders, expected[..1]);
    let whole = Assembled::open(at("ranks"), &options()).unwrap();
    assert_eq!(whole.find("fused").unwrap().chunks.len(), 4);
}

#[test]
fn a_save_takes_the_place_of_the_one_before_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensors = Tensors::from([("w".to_owned(), tensor(Dtype::F32, &[300_000]))]);
    write(&at("whole.safetensors"), &tensors, &[]);
    let shard = |mesh| rules(mesh, &[("w", "tp", Placement::Shard { dim: 0 })]);
    divided(&at("whole.safetensors"), &at("ranks"), &shard("tp=4"));
    let names = || {
        let entries = fs::read_dir(at("ranks")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let before = names();
    let bytes = fs::read(at("whole.safetensors")).unwrap();
    let reading = OpenOptions {
        backend: tensorhold::Backend::Pread,
        ..options()
    };
    let source = Assembled::open(at("whole.safetensors"), &reading).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(at("whole.safetensors"))
        .unwrap();
    file.set_len(bytes.len() as u64 - 9).unwrap();
    let save = SaveOptions::default();
    let error = reshard(&source, &shard("tp=2"), at("ranks"), &save, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert_eq!(names(), before);
    fs::write(at("whole.safetensors"), bytes).unwrap();
    divided(&at("whole.safetensors"), &at("ranks"), &shard("tp=2"));
    assert_eq!(names().len(), 2);
    assert_eq!(joined(&at("ranks"), &at("joined.safetensors")), tensors);
}

#[test]
fn holes_overlaps_and_mixed_saves_are_refused_with_file_and_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensors = Tensors::from([("w".to_owned(), tensor(Dtype::F32, &[5, 4]))]);
    write(&at("whole.safetensors"), &tensors, &[]);
    let by = rules("tp=4", &[("w", "tp", Placement::Shard { dim: 1 })]);
    let names = divided(&at("whole.safetensors"), &at("ranks"), &by);
    divided(&at("whole.safetensors"), &at("others"), &by);
    let path = |number: usize| at("ranks").join(&names[number]);
    let kept = fs::read(path(3)).unwrap();

    fs::remove_file(path(3)).unwrap();
    let error = refused(&at("ranks"));
    assert_eq!(error.kind(), ErrorKind::InvalidTensor);
    assert_eq!(error.tensor(), Some("w"));
    assert_eq!(error.file(), path(0).to_str());
    let hole = "a tensor has 15 of 20 elements in the files of the folder";
    assert_eq!(error.message(), hole);

    fs::copy(at("others").join(&names[3]), path(3)).unwrap();
    let mixed = "the folder has files of 2 saves";
    assert_eq!(refused(&at("ranks")).message(), mixed);

    fs::write(path(3), kept).unwrap();
    fs::copy(path(3), at("ranks").join("zz.safetensors")).unwrap();
    let error = refused(&at("ranks"));
    assert_eq!(
        error.message(),
        "a tensor has two chunks with the same elements"
    );
    assert_eq!(error.file(), at("ranks").join("zz.safetensors").to_str());
}

#[test]
fn what_a_file_says_of_its_chunks_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let tensors = Tensors::from([("w".to_owned(), tensor(Dtype::F32, &[2]))]);
    for (text, expected) in [
        ("[]", "is no JSON object"),
        ("{", "is no JSON object"),
        (&"[".repeat(100_000), "is no JSON object"),
        (r#"{"w": 3}"#, "has no offsets for a tensor"),
        (r#"{"w": {"saved_offsets": [-1]}}"#, "has no offsets"),
        (r#"{"w": {"saved_offsets": [0.0]}}"#, "has no offsets"),
        (
            r#"{"w": {"saved_offsets": [0], "global_shape": 2}}"#,
            "has no offsets",
        ),
        (r#"{"w": {"saved_offsets": [0, 0]}}"#, "of different shapes"),
        (
            r#"{"w": {"saved_offsets": [0], "global_shape": [1]}}"#,
            "passes its shape [1]",
        ),
        (
            r#"{"w": {"saved_offsets": [0], "global_shape": [2, 1]}}"#,
            "passes its shape",
        ),
        (r#"{"w": {"saved_offsets": [1]}}"#, "has 2 of 3 elements"),
        (
            r#"{"w": {"saved_offsets": [18446744073709551615]}}"#,
            "ends past 2^64",
        ),
        (
            r#"{"w": {"saved_offsets": [18446744073709551613]}}"#,
            "cannot be put together",
        ),
        (
            r#"{"w": {"saved_offsets": [0], "global_shape": [18446744073709551615]}}"#,
            "passes 2^64",
        ),
    ] {
        write(&path, &tensors, &[("DCP_SHARDING_INFO", text)]);
        let error = refused(folder.path());
        assert!(error.message().contains(expected), "{text}: {error}");
        assert_eq!(error.file(), path.to_str());
    }
}

#[test]
fn values_of_all_files_are_kept_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("ranks")).unwrap();
    let file = |rank: u64, name: &str, values: &str| {
        let tensors = Tensors::from([(name.to_owned(), tensor(Dtype::F32, &[2]))]);
        let path = at("ranks").join(format!("shard-{rank:05}-model-00001-of-00001.safetensors"));
        write(
            &path,
            &tensors,
            &[("TENSORHOLD_SAVE", "one"), ("TENSORHOLD_VALUES", values)],
        );
    };
    file(1, "a", r#"{"step": 3, "best": Infinity}"#);
    file(2, "b", r#"{"betas": {"tuple": [0.9, 0.99]}}"#);
    joined(&at("ranks"), &at("joined.safetensors"));
    let metadata = r#"{"best": Infinity, "betas": {"tuple": [0.9, 0.99]}, "step": 3}"#;
    let check = |path: &Path| {
        let found = Checkpoint::open(path, &options()).unwrap();
        assert_eq!(found.metadata()["TENSORHOLD_VALUES"], metadata);
        found.metadata().len()
    };
    assert_eq!(check(&at("joined.safetensors")), 1);
    let names = divided(&at("ranks"), &at("two"), &rules("tp=2", &[]));
    check(&at("two").join(&names[0]));
    file(2, "b", "3");
    let source = Assembled::open(at("ranks"), &options()).unwrap();
    let save = SaveOptions::default();
    let error = consolidate(&source, at("x"), None, &save, &mut |_| {}).unwrap_err();
    assert_eq!(
        error.message(),
        "the metadata `TENSORHOLD_VALUES` is no JSON object"
    );
}

#[test]
fn narrow_elements_are_divided_between_bytes_only() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensors = Tensors::from([
        ("even".to_owned(), tensor(Dtype::F4, &[4, 8])),
        ("odd".to_owned(), tensor(Dtype::F4, &[2, 3])),
    ]);
    write(&at("whole.safetensors"), &tensors, &[]);
    let by = rules("tp=4", &[("even", "tp", Placement::Shard { dim: 1 })]);
    divided(&at("whole.safetensors"), &at("ranks"), &by);
    assert_eq!(joined(&at("ranks"), &at("joined.safetensors")), tensors);
    let by = rules("tp=2", &[("odd", "tp", Placement::Shard { dim: 0 })]);
    let source = Assembled::open(at("whole.safetensors"), &options()).unwrap();
    let save = SaveOptions::default();
    let error = reshard(&source, &by, at("odd"), &save, &mut |_| {}).unwrap_err();
    assert_eq!(
        (error.kind(), error.tensor()),
        (ErrorKind::Misaligned, Some("odd"))
    );
    assert_eq!(fs::read_dir(at("odd")).unwrap().count(), 0);
}

#[test]
fn neither_the_source_nor_files_of_others_are_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensors = Tensors::from([("w".to_owned(), tensor(Dtype::F32, &[4]))]);
    fs::create_dir(at("whole")).unwrap();
    fs::create_dir(at("other")).unwrap();
    write(&at("whole").join("model.safetensors"), &tensors, &[]);
    write(&at("other").join("mine.safetensors"), &tensors, &[]);
    let source = Assembled::open(at("whole"), &options()).unwrap();
    let save = SaveOptions::default();
    let one = rules("tp=1", &[]);
    assert_eq!(existing_chunks(&at("none")).unwrap(), None);
    fs::create_dir(at("index")).unwrap();
    fs::write(at("index").join("mine.json"), "{}").unwrap();
    assert_eq!(existing_chunks(&at("index")).unwrap(), None);
    let index = at("index").join("model.safetensors.index.json");
    fs::write(&index, "{}").unwrap();
    assert_eq!(existing_chunks(&at("index")).unwrap(), Some(index));
    for (to, expected) in [
        ("whole", "would lie in the folder"),
        ("other", "would be taken for"),
    ] {
        let error = reshard(&source, &one, at(to), &save, &mut |_| {}).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
        assert_eq!(fs::read_dir(at(to)).unwrap().count(), 1);
    }
    let error = consolidate(&source, at("whole"), None, &save, &mut |_| {}).unwrap_err();
    assert!(
        error.message().contains("would lie in the folder"),
        "{error}"
    );
}
