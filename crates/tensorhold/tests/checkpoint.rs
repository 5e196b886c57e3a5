//! Opening and reading: every backend gives the same bytes, and what is wrong is said.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tensorhold::{
    Backend, Bounds, Checkpoint, Dtype, ErrorKind, Index, OpenOptions, Rules, SaveOptions,
    Selection, TensorSpec, save_file,
};

fn write(folder: &Path, name: &str, tensors: &[(&str, Dtype, &[u64])]) -> PathBuf {
    let specs: Vec<TensorSpec<'_>> = tensors
        .iter()
        .map(|&(name, dtype, shape)| TensorSpec { name, dtype, shape })
        .collect();
    let path = folder.join(name);
    let bytes = |index: usize| {
        let (_, dtype, shape) = tensors[index];
        let size = tensorhold::shape_size_bytes(dtype, shape)?;
        Ok(Cow::Owned(
            (0..size).map(|i| (i * 7 + index as u64) as u8).collect(),
        ))
    };
    save_file(&path, &specs, None, &SaveOptions::default(), bytes).unwrap();
    path
}

fn open(path: &Path, backend: Backend) -> tensorhold::Result<Checkpoint> {
    Checkpoint::open(
        path,
        &OpenOptions {
            rules: Rules::Strict,
            backend,
        },
    )
}

fn kind(path: &Path) -> ErrorKind {
    Checkpoint::open(path, &OpenOptions::default())
        .unwrap_err()
        .kind()
}

#[test]
fn a_folder_without_an_index_is_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.safetensors", &[("b", Dtype::U8, &[2])]);
    write(folder.path(), "a.safetensors", &[("a", Dtype::U8, &[3])]);
    let checkpoint = open(folder.path(), Backend::Auto).unwrap();
    let names: Vec<&str> = checkpoint
        .tensors()
        .map(|tensor| tensor.info().name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((checkpoint.n_tensors(), checkpoint.size_bytes()), (2, 5));
}

#[test]
fn the_same_name_in_two_files_is_refused_with_both_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.safetensors", &[("w", Dtype::U8, &[2])]);
    write(folder.path(), "b.safetensors", &[("w", Dtype::U8, &[3])]);
    let error = open(folder.path(), Backend::Auto).unwrap_err();
    assert_eq!(
        (error.kind(), error.tensor()),
        (ErrorKind::DuplicateTensor, Some("w"))
    );
    let text = error.to_string();
    assert!(
        text.contains("a.safetensors") && text.contains("b.safetensors"),
        "{text}"
    );
}

#[test]
fn what_is_no_checkpoint_is_named_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        kind(&folder.path().join("missing.safetensors")),
        ErrorKind::NotFound
    );
    assert_eq!(kind(folder.path()), ErrorKind::NotFound);
    assert_eq!(kind(Path::new("/dev/null")), ErrorKind::NotRegularFile);
    fs::write(
        folder.path().join("x"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    )
    .unwrap();
    assert_eq!(kind(&folder.path().join("x")), ErrorKind::ForeignFormat);
}

#[test]
fn a_missing_tensor_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.safetensors", &[("w", Dtype::U8, &[2])]);
    let error = open(&path, Backend::Auto).unwrap().tensor("v").unwrap_err();
    assert_eq!(
        (error.kind(), error.tensor()),
        (ErrorKind::TensorNotFound, Some("v"))
    );
}

#[test]
fn a_file_that_shrinks_is_a_clean_error_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.safetensors", &[("w", Dtype::U8, &[5000])]);
    let checkpoint = open(&path, Backend::Pread).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() - 10)
        .unwrap();
    let error = checkpoint.tensor("w").unwrap().read().unwrap_err();
    assert_eq!(
        (error.kind(), error.tensor()),
        (ErrorKind::Truncated, Some("w"))
    );
    assert!(error.to_string().contains("10 bytes"), "{error}");
}

#[test]
fn a_file_that_was_replaced_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.safetensors", &[("w", Dtype::U8, &[2])]);
    for round in 0..20u64 {
        write(
            folder.path(),
            "a.safetensors",
            &[("w", Dtype::U8, &[2 + round % 3])],
        );
        let checkpoint = open(&path, Backend::Auto).unwrap();
        assert_eq!(
            checkpoint.tensor("w").unwrap().info().shape,
            [2 + round % 3]
        );
    }
}

#[test]
fn a_file_that_was_rewritten_in_place_is_read_anew_though_its_time_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "a.safetensors", &[("old", Dtype::U8, &[2])]);
    let other = write(folder.path(), "b.safetensors", &[("new", Dtype::U8, &[2])]);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(open(&path, Backend::Auto).unwrap().find("old").is_some());
    fs::write(&path, fs::read(other).unwrap()).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert!(open(&path, Backend::Auto).unwrap().find("new").is_some());
}

fn an_index() -> impl Strategy<Value = Index> {
    let bound = || prop::option::of(-9i64..9);
    prop_oneof![
        (-6i64..6).prop_map(Index::At),
        (
            bound(),
            bound(),
            prop::option::of((-4i64..4).prop_filter("not 0", |step| *step != 0))
        )
            .prop_map(|(start, stop, step)| Index::Range { start, stop, step }),
        Just(Index::Ellipsis),
        Just(Index::NewAxis),
    ]
}

proptest! {
    #[test]
    fn every_backend_gives_the_bytes_of_a_slice(
        shape in prop::collection::vec(0u64..70, 1..4),
        dtype in prop::sample::select(vec![Dtype::U8, Dtype::BF16, Dtype::F32, Dtype::I64]),
        index in prop::collection::vec(an_index(), 0..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "a.safetensors", &[("pad", Dtype::U8, &[3]), ("w", dtype, &shape)]);
        let Ok(selection) = Selection::resolve(dtype, &shape, &index, Bounds::Clamped) else { return Ok(()) };
        let whole = open(&path, Backend::Pread).unwrap().tensor("w").unwrap().read().unwrap();
        let mut expected = vec![0; selection.size_bytes() as usize];
        selection.gather(&whole, &mut expected);
        for backend in [Backend::Mmap, Backend::Pread] {
            let checkpoint = open(&path, backend).unwrap();
            let (found_shape, found) = checkpoint.tensor("w").unwrap().read_slice(&index).unwrap();
            prop_assert_eq!(&found_shape[..], selection.shape());
            prop_assert_eq!(&found, &expected);
        }
    }
}
