//! Checkpoints of other formats become files of this one, whole or not at all.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

use tensorhold::{
    Checkpoint, ConvertOptions, Converted, Dtype, ErrorKind, ForeignFile, Limits, OpenOptions,
    Result, TREE_KEY, Values,
};

fn fixture(name: &str) -> PathBuf {
    let fixtures = "../tensorhold-convert/tests/fixtures";
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(fixtures)
        .join(name)
}

fn convert(source: &Path, target: &Path, options: &ConvertOptions) -> Result<Converted> {
    tensorhold::convert(source, target, options, &mut |total, done| {
        assert!(done <= total);
        Ok(())
    })
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, &OpenOptions::default()).unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn tensors_that_share_are_stored_once_and_read_as_they_lay() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("views.safetensors");
    let source = fixture("pickles/views_2.pt");
    let options = ConvertOptions {
        verify: true,
        ..ConvertOptions::default()
    };
    let converted = convert(&source, &target, &options).unwrap();
    assert_eq!((converted.n_tensors, converted.n_dropped), (6, 0));
    assert_eq!(converted.paths, std::slice::from_ref(&target));
    let written = open(&target);
    let whole: Vec<u8> = (0..12u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
    assert_eq!(written.tensor("whole").unwrap().read().unwrap(), whole);
    assert!(written.find("turned").is_none(), "it is a view of `whole`");
    // The same by way of the file itself.
    let mut file = ForeignFile::open(&source, Limits::default()).unwrap();
    let placed = file.placed(tensorhold::Backend::Auto).unwrap();
    let there = placed.checkpoint.tensor("whole").unwrap();
    assert_eq!(there.read().unwrap(), whole);
    assert_eq!(
        placed.checkpoint.metadata()[TREE_KEY],
        written.metadata()[TREE_KEY]
    );
}

#[test]
fn values_that_are_no_tensors_go_where_they_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("plain.safetensors");
    let source = fixture("pickles/plain.pt");
    let tree = |values: Values| {
        let options = ConvertOptions {
            values,
            ..ConvertOptions::default()
        };
        let converted = convert(&source, &target, &options).unwrap();
        let text = open(&target)
            .metadata()
            .get(TREE_KEY)
            .map(ToString::to_string);
        (text, converted)
    };
    let (text, converted) = tree(Values::Tree);
    assert!(text.as_ref().unwrap().contains("\"$size\":[2,3]"));
    assert_eq!(converted.n_dropped, 0);
    let (none, converted) = tree(Values::Beside);
    let beside = folder.path().join("plain.tree.json");
    assert_eq!(converted.paths, [beside.clone(), target.clone()]);
    assert_eq!(
        (none, fs::read_to_string(beside).unwrap()),
        (None, text.unwrap())
    );
    let (none, converted) = tree(Values::Dropped);
    assert_eq!((none, converted.n_dropped > 5), (None, true));
}

#[test]
fn a_damaged_source_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("damaged.pt");
    let target = folder.path().join("target.safetensors");
    fs::write(&target, "what was there").unwrap();
    let mut bytes = fs::read(fixture("pickles/views_2.pt")).unwrap();
    let eleven = 11f32.to_le_bytes();
    let at = bytes
        .windows(4)
        .position(|window| window == eleven)
        .unwrap();
    bytes[at] ^= 1;
    fs::write(&source, bytes).unwrap();
    let error = convert(&source, &target, &ConvertOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignFormat);
    assert!(error.message().contains("checksum"), "{error}");
    assert_eq!(error.tensor(), Some("whole"));
    assert_eq!(fs::read_to_string(&target).unwrap(), "what was there");
    assert_eq!(
        names_in(folder.path()),
        ["damaged.pt", "target.safetensors"]
    );
}

#[test]
fn arrays_are_cast_and_put_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("array.safetensors");
    let options = ConvertOptions {
        dtype: Some(Dtype::BF16),
        verify: true,
        ..ConvertOptions::default()
    };
    // Column by column, and with the greatest byte first.
    convert(&fixture("arrays/fortran_big.npy"), &target, &options).unwrap();
    let plain = ConvertOptions::default();
    let same = folder.path().join("same.safetensors");
    convert(&fixture("arrays/fortran_big.npy"), &same, &plain).unwrap();
    let (cast, same) = (open(&target), open(&same));
    let (cast, same) = (
        cast.tensors().next().unwrap(),
        same.tensors().next().unwrap(),
    );
    assert_eq!(cast.info().shape, same.info().shape);
    match tensorhold::can_cast(same.info().dtype, Dtype::BF16) {
        true => assert_eq!(cast.info().dtype, Dtype::BF16),
        false => assert_eq!(cast.read().unwrap(), same.read().unwrap()),
    }
}

#[test]
fn an_index_is_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("old");
    fs::create_dir(&source).unwrap();
    fs::copy(fixture("pickles/views_2.pt"), source.join("a.bin")).unwrap();
    fs::copy(fixture("pickles/module.pt"), source.join("b.bin")).unwrap();
    let index = source.join("pytorch_model.bin.index.json");
    let write = |last: &str| {
        let map = format!(r#"{{"whole": "a.bin", "turned": "a.bin", "{last}": "b.bin"}}"#);
        let text = format!(r#"{{"metadata": {{}}, "weight_map": {map}}}"#);
        fs::write(&index, text).unwrap();
    };
    let options = ConvertOptions {
        max_shard_bytes: Some(64),
        ..ConvertOptions::default()
    };
    // Of which `turned` is a view of `whole`, and stored with it.
    write("inner.bias");
    let target = folder.path().join("new");
    let converted = convert(&source, &target, &options).unwrap();
    assert_eq!(converted.n_tensors, 9);
    assert!(
        converted
            .paths
            .last()
            .unwrap()
            .ends_with("model.safetensors.index.json")
    );
    assert!(open(&target).find("inner.bias").is_some());
    write("outer.bias");
    let error = convert(&source, &target, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidIndex);
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("x.safetensors");
    let options = ConvertOptions {
        root: Some("state_dict".into()),
        ..ConvertOptions::default()
    };
    let error = convert(&fixture("pickles/views_2.pt"), &target, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.hint().unwrap().contains("whole"));
    let options = ConvertOptions {
        root: Some("tied".into()),
        ..ConvertOptions::default()
    };
    convert(&fixture("pickles/views_2.pt"), &target, &options).unwrap();
    assert_eq!(open(&target).tensors().next().unwrap().info().name, "0");
    let source = folder.path().join("same.pt");
    fs::copy(fixture("pickles/views_2.pt"), &source).unwrap();
    let error = convert(&source, &source, &ConvertOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = convert(folder.path(), &target, &ConvertOptions::default()).unwrap_err();
    assert!(error.message().contains("pytorch_model.bin"), "{error}");
    let other = folder.path().join("y.safetensors");
    let error = convert(&target, &other, &ConvertOptions::default()).unwrap_err();
    assert!(
        error.message().contains("safetensors file already"),
        "{error}"
    );
    fs::write(&source, "import os\nprint('hello')\n".repeat(40)).unwrap();
    let error = convert(&source, &other, &ConvertOptions::default()).unwrap_err();
    assert!(error.message().starts_with("a text file"), "{error}");
}
