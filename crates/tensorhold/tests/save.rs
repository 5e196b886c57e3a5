//! Saves: what is on the disk afterwards, and what is still there when one fails.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tensorhold::{
    Checkpoint, Dtype, Durability, ErrorKind, OpenOptions, Result, SaveOptions, StreamOptions,
    StreamWriter, TensorSpec, save_file, save_shards,
};

const DROP_IN: SaveOptions = SaveOptions {
    align: None,
    durability: Durability::None,
};

/// Tensors of one dtype each, with bytes that tell them apart.
fn tensors(sizes: &[u64]) -> Vec<(String, Vec<u64>, Vec<u8>)> {
    let tensor = |(i, &size): (usize, &u64)| {
        (
            format!("layer.{i}.weight"),
            vec![size],
            vec![i as u8 + 1; size as usize],
        )
    };
    sizes.iter().enumerate().map(tensor).collect()
}

fn specs(tensors: &[(String, Vec<u64>, Vec<u8>)]) -> Vec<TensorSpec<'_>> {
    tensors
        .iter()
        .map(|(name, shape, _)| TensorSpec {
            name,
            dtype: Dtype::U8,
            shape,
        })
        .collect()
}

fn shards(folder: &Path, sizes: &[u64], max: u64) -> Result<Vec<String>> {
    let tensors = tensors(sizes);
    let bytes = |index: usize| Ok(Cow::Borrowed(&tensors[index].2[..]));
    let target = folder.join("model.safetensors");
    let written = save_shards(target, &specs(&tensors), None, max, &DROP_IN, bytes)?;
    Ok(written
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect())
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default()).unwrap();
    checkpoint
        .tensors()
        .map(|tensor| (tensor.info().name.to_owned(), tensor.read().unwrap()))
        .collect()
}

#[test]
fn shards_hold_what_was_given_and_their_index_opens() {
    let folder = tempfile::tempdir().unwrap();
    let written = shards(folder.path(), &[10, 20, 30, 5], 30).unwrap();
    assert_eq!(
        written,
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
            "model.safetensors.index.json"
        ]
    );
    let found = contents(folder.path());
    assert_eq!(found["layer.2.weight"], [3; 30]);
    assert_eq!(found.len(), 4);
}

#[test]
fn a_second_save_leaves_no_file_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path(), &[10, 10, 10], 10).unwrap();
    shards(folder.path(), &[7, 7], 7).unwrap();
    let names = names_in(folder.path());
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(contents(folder.path())["layer.1.weight"], [2; 7]);

    let single = shards(folder.path(), &[4, 4], 100).unwrap();
    assert_eq!(single, ["model.safetensors"]);
    assert_eq!(names_in(folder.path()), ["model.safetensors"]);

    shards(folder.path(), &[5, 5], 5).unwrap();
    assert_eq!(contents(folder.path())["layer.0.weight"], [1; 5]);
    assert!(!names_in(folder.path()).contains(&"model.safetensors".to_owned()));
}

#[test]
fn a_sharded_save_that_fails_leaves_the_earlier_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path(), &[10, 10, 10], 10).unwrap();
    let before = contents(folder.path());
    let names = names_in(folder.path());
    let given = tensors(&[10, 10, 10]);
    let failing = |index: usize| match index {
        2 => Err(tensorhold::Error::new(ErrorKind::Io, "the disk is gone")),
        index => Ok(Cow::Borrowed(&given[index].2[..])),
    };
    let target = folder.path().join("model.safetensors");
    let error = save_shards(target, &specs(&given), None, 10, &DROP_IN, failing).unwrap_err();
    assert_eq!(
        (error.message(), error.tensor()),
        ("the disk is gone", Some("layer.2.weight"))
    );
    assert_eq!(contents(folder.path()), before);
    assert_eq!(names_in(folder.path()), names);
}

#[test]
fn bytes_that_do_not_fit_the_shape_are_refused_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.safetensors");
    let spec = [TensorSpec {
        name: "a",
        dtype: Dtype::F32,
        shape: &[3],
    }];
    let short = |_| Ok(Cow::Borrowed(&[0u8; 11][..]));
    let error = save_file(&target, &spec, None, &DROP_IN, short).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTensor);
    assert_eq!(error.message(), "11 bytes were given for a tensor of 12");
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn the_new_api_aligns_data_to_pages_and_the_reference_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model.safetensors");
    let given = tensors(&[3, 5]);
    let bytes = |index: usize| Ok(Cow::Borrowed(&given[index].2[..]));
    save_file(
        &target,
        &specs(&given),
        Some(&[("format", "pt")]),
        &SaveOptions::default(),
        bytes,
    )
    .unwrap();
    let file = fs::read(&target).unwrap();
    let (header, _) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    assert_eq!((header + 8) % 4096, 0);
    let read = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(read.tensor("layer.1.weight").unwrap().data(), [2; 5]);
}

fn stream(
    folder: &Path,
    given: &[(String, Vec<u64>, Vec<u8>)],
    max_shard_bytes: Option<u64>,
) -> Result<usize> {
    let options = StreamOptions {
        save: DROP_IN,
        max_shard_bytes,
    };
    let mut writer = StreamWriter::create(folder.join("model.safetensors"), None, options)?;
    for (name, shape, bytes) in given {
        writer.push(name, Dtype::U8, shape, bytes)?;
    }
    Ok(writer.finish()?.len())
}

#[test]
fn a_stream_larger_than_its_memory_puts_the_header_in_front() {
    let folder = tempfile::tempdir().unwrap();
    let given = tensors(&[9 << 20, 9 << 20, 1]);
    assert_eq!(stream(folder.path(), &given, None).unwrap(), 1);
    let file = fs::read(folder.path().join("model.safetensors")).unwrap();
    let read = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(read.tensor("layer.1.weight").unwrap().data(), given[1].2);
    assert_eq!(read.len(), 3);
}

#[test]
fn a_stream_whose_header_outgrows_its_reserve_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut given = tensors(&[17 << 20]);
    given.extend((0..20_000).map(|i| (format!("{}.{i}", "n".repeat(60)), vec![1], vec![i as u8])));
    stream(folder.path(), &given, None).unwrap();
    let found = contents(folder.path());
    assert_eq!(found.len(), given.len());
    assert!(given.iter().all(|(name, _, bytes)| &found[name] == bytes));
    assert_eq!(names_in(folder.path()), ["model.safetensors"]);
}

#[test]
fn a_stream_in_shards_is_numbered_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        stream(folder.path(), &tensors(&[10, 10, 10]), Some(20)).unwrap(),
        3
    );
    let names = names_in(folder.path());
    assert!(
        names.contains(&"model-00002-of-00002.safetensors".to_owned()),
        "{names:?}"
    );
    assert_eq!(contents(folder.path()).len(), 3);
}

#[test]
fn a_stream_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = StreamOptions {
        save: DROP_IN,
        max_shard_bytes: Some(10),
    };
    let mut writer =
        StreamWriter::create(folder.path().join("model.safetensors"), None, options).unwrap();
    for (name, shape, bytes) in &tensors(&[10, 10, 18 << 20]) {
        writer.push(name, Dtype::U8, shape, bytes).unwrap();
    }
    assert_eq!(
        writer
            .push("layer.0.weight", Dtype::U8, &[0], &[])
            .unwrap_err()
            .kind(),
        ErrorKind::DuplicateTensor
    );
    drop(writer);
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn an_empty_stream_is_an_empty_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    stream(folder.path(), &[], None).unwrap();
    assert!(contents(folder.path()).is_empty());
}

proptest! {
    #[test]
    fn shards_of_any_size_give_back_every_byte(sizes in prop::collection::vec(0u64..40, 0..12), max in 1u64..60) {
        let folder = tempfile::tempdir().unwrap();
        shards(folder.path(), &sizes, max).unwrap();
        let expected: BTreeMap<String, Vec<u8>> =
            tensors(&sizes).into_iter().map(|(name, _, bytes)| (name, bytes)).collect();
        prop_assert_eq!(contents(folder.path()), expected);
    }
}

#[test]
fn a_folder_is_a_target_for_shards_and_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new/checkpoint");
    let given = tensors(&[4, 4]);
    let bytes = |index: usize| Ok(Cow::Borrowed(&given[index].2[..]));
    save_shards(&target, &specs(&given), None, 4, &DROP_IN, bytes).unwrap();
    assert_eq!(contents(&target).len(), 2);
    let refused = save_shards("model.bin", &specs(&given), None, 4, &DROP_IN, bytes).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}
