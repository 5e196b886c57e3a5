//! Saves by several threads, of several threads, and in the background.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tensorhold::{
    BackgroundOptions, Checkpoint, Dtype, Durability, Error, ErrorKind, OpenOptions, SaveOptions,
    StreamOptions, StreamWriter, TensorSpec, TensorView, save_file, save_in_background,
    save_view_shards, save_views,
};

/// Tensors of bytes, each with values of its own.
struct Tensors {
    names: Vec<String>,
    shapes: Vec<[u64; 1]>,
    bytes: Vec<Vec<u8>>,
}

impl Tensors {
    fn new(sizes: &[usize], seed: usize) -> Tensors {
        let bytes = |(index, &size): (usize, &usize)| {
            (0..size)
                .map(|n| (n * 31 + n / 251 + index + seed) as u8)
                .collect()
        };
        Tensors {
            names: (0..sizes.len())
                .map(|index| format!("{index:05}"))
                .collect(),
            shapes: sizes.iter().map(|&size| [size as u64]).collect(),
            bytes: sizes.iter().enumerate().map(bytes).collect(),
        }
    }

    fn views(&self) -> Vec<TensorView<'_>> {
        let view = |index: usize| TensorView {
            spec: TensorSpec {
                name: &self.names[index],
                dtype: Dtype::U8,
                shape: &self.shapes[index],
            },
            data: (&self.bytes[index]).into(),
        };
        (0..self.names.len()).map(view).collect()
    }

    /// The file as one thread writes it.
    fn file(&self, options: &SaveOptions) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let specs: Vec<TensorSpec<'_>> = self.views().iter().map(|view| view.spec).collect();
        let bytes = |index: usize| Ok(Cow::Borrowed(&self.bytes[index][..]));
        save_file(&path, &specs, None, options, bytes).unwrap();
        fs::read(path).unwrap()
    }
}

fn go_on(_: u64) -> tensorhold::Result<()> {
    Ok(())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn in_background(
    target: &Path,
    tensors: &Tensors,
    options: &BackgroundOptions,
) -> tensorhold::PendingSave {
    let progress = Box::new(go_on);
    save_in_background(target, &tensors.views(), None, options, progress, || ()).unwrap()
}

const WITHOUT_DISK: SaveOptions = SaveOptions {
    align: Some(4096),
    durability: Durability::None,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn however_it_is_saved_the_file_is_the_same(
        small in prop::collection::vec(0usize..3000, 0..50),
        large in prop::collection::vec(0usize..18_000_000, 0..3),
        align in prop::sample::select(vec![None, Some(4096)]),
        durability in prop::sample::select(vec![Durability::None, Durability::Data]),
        memory_limit in prop::sample::select(vec![0u64, 9 << 20, 30 << 20, u64::MAX]),
    ) {
        let sizes: Vec<usize> = small.into_iter().chain(large).collect();
        let tensors = Tensors::new(&sizes, 0);
        let options = SaveOptions { align, durability };
        let expected = tensors.file(&options);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        save_views(&path, &tensors.views(), None, &options, &mut go_on).unwrap();
        prop_assert!(fs::read(&path).unwrap() == expected);
        let options = BackgroundOptions {
            save: options,
            memory_limit_bytes: Some(memory_limit),
            ..BackgroundOptions::default()
        };
        let pending = in_background(&path, &tensors, &options);
        drop(tensors);
        let written = pending.wait(None).unwrap().unwrap().unwrap();
        prop_assert_eq!(&written, std::slice::from_ref(&path));
        prop_assert!(fs::read(&path).unwrap() == expected);
        prop_assert_eq!(names(folder.path()), ["a.safetensors"]);
    }
}

#[test]
fn shards_hold_the_same_tensors_whoever_writes_them() {
    let tensors = Tensors::new(&[5_000_000, 1, 9_000_000, 300, 0, 12_000_000], 1);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("given");
    let written = save_view_shards(
        &target,
        &tensors.views(),
        None,
        10_000_000,
        &WITHOUT_DISK,
        &mut go_on,
    );
    let expected = written.unwrap();
    for memory_limit in [0, 13_000_000, u64::MAX] {
        let target = folder.path().join(format!("{memory_limit}"));
        let options = BackgroundOptions {
            save: WITHOUT_DISK,
            max_shard_bytes: Some(10_000_000),
            memory_limit_bytes: Some(memory_limit),
        };
        let pending = in_background(&target, &tensors, &options);
        let written = pending.wait(None).unwrap().unwrap().unwrap();
        for (found, expected) in written.iter().zip(&expected) {
            assert_eq!(found.file_name(), expected.file_name());
            assert!(fs::read(found).unwrap() == fs::read(expected).unwrap());
        }
        assert_eq!(written.len(), expected.len());
        assert_eq!(names(&target), names(&folder.path().join("given")));
    }
    let checkpoint = Checkpoint::open(&target, &OpenOptions::default()).unwrap();
    assert_eq!(
        checkpoint.tensor("00005").unwrap().read().unwrap(),
        tensors.bytes[5]
    );
}

#[test]
fn progress_rises_to_the_bytes_of_the_tensors_and_its_error_ends_the_save() {
    let tensors = Tensors::new(&[70_000_000, 3], 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, b"old").unwrap();
    let mut seen = Vec::new();
    let mut stop = |n: u64| -> tensorhold::Result<()> {
        seen.push(n);
        Err(Error::new(ErrorKind::InvalidArgument, "enough"))
    };
    // The first report comes when a while has passed, which a fast disk may not need.
    let saved = save_views(
        &path,
        &tensors.views(),
        None,
        &SaveOptions::default(),
        &mut stop,
    );
    if let Err(error) = &saved {
        assert_eq!(error.message(), "enough");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
    assert_eq!(saved.is_err(), !seen.is_empty());
    assert!(seen.iter().all(|&n| n <= 70_000_003));
    assert_eq!(names(folder.path()), ["a.safetensors"]);
}

#[test]
fn bytes_that_are_too_few_are_refused_before_anything_is_written() {
    let mut tensors = Tensors::new(&[10, 20], 0);
    tensors.bytes[1].pop();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let error = save_views(&path, &tensors.views(), None, &WITHOUT_DISK, &mut go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTensor);
    assert_eq!(error.tensor(), Some("00001"));
    assert_eq!(error.message(), "19 bytes were given for a tensor of 20");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn saves_to_one_target_take_place_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let link = folder.path().join("link.safetensors");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let options = StreamOptions {
        save: WITHOUT_DISK,
        max_shard_bytes: None,
    };
    let first = StreamWriter::create(&path, None, options).unwrap();
    let (send, receive) = mpsc::channel();
    let second = thread::spawn(move || {
        let tensors = Tensors::new(&[2], 0);
        save_views(&link, &tensors.views(), None, &WITHOUT_DISK, &mut go_on).unwrap();
        send.send(()).unwrap();
    });
    let other = folder.path().join("b.safetensors");
    let tensors = Tensors::new(&[1], 0);
    save_views(&other, &tensors.views(), None, &WITHOUT_DISK, &mut go_on).unwrap();
    assert!(receive.recv_timeout(Duration::from_millis(200)).is_err());
    assert!(!path.exists());
    first.finish().unwrap();
    second.join().unwrap();
    let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(checkpoint.tensor("00000").unwrap().info().size_bytes(), 2);
}

#[test]
fn a_save_within_a_save_to_the_same_target_does_not_wait_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let tensors = Tensors::new(&[5], 0);
    let specs: Vec<TensorSpec<'_>> = tensors.views().iter().map(|view| view.spec).collect();
    let inner = Tensors::new(&[7], 0);
    let bytes = |_| {
        save_views(&path, &inner.views(), None, &WITHOUT_DISK, &mut go_on).unwrap();
        Ok(Cow::Borrowed(&tensors.bytes[0][..]))
    };
    save_file(&path, &specs, None, &WITHOUT_DISK, bytes).unwrap();
    assert_eq!(fs::read(&path).unwrap(), tensors.file(&WITHOUT_DISK));
}

#[test]
fn threads_that_save_shards_to_one_target_leave_one_whole_set() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().to_owned();
    let save = |seed: usize, target: PathBuf| {
        let tensors = Tensors::new(&[400, 400, 400], seed);
        let views = tensors.views();
        save_view_shards(&target, &views, None, 500, &WITHOUT_DISK, &mut go_on).unwrap();
    };
    thread::scope(|scope| {
        for seed in 0..8 {
            let target = target.clone();
            scope.spawn(move || (0..10).for_each(|round| save(seed * 10 + round, target.clone())));
        }
    });
    let checkpoint = Checkpoint::open(&target, &OpenOptions::default()).unwrap();
    let first = checkpoint.tensor("00000").unwrap().read().unwrap();
    let seed = usize::from(first[0]);
    for (index, expected) in Tensors::new(&[400, 400, 400], seed)
        .bytes
        .iter()
        .enumerate()
    {
        let tensor = checkpoint.tensor(&format!("{index:05}")).unwrap();
        assert_eq!(&tensor.read().unwrap(), expected);
    }
    assert_eq!(names(&target).len(), 4, "{:?}", names(&target));
}

#[test]
fn saves_in_the_background_are_ordered_by_their_calls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    for memory_limit in [0, u64::MAX] {
        let options = BackgroundOptions {
            save: WITHOUT_DISK,
            memory_limit_bytes: Some(memory_limit),
            ..BackgroundOptions::default()
        };
        let save = |seed| in_background(&path, &Tensors::new(&[3_000_000], seed), &options);
        let pending: Vec<_> = (0..10).map(save).collect();
        pending[9].wait(None).unwrap().unwrap().unwrap();
        assert!(pending.iter().all(|save| save.outcome().is_some()));
        let last = Tensors::new(&[3_000_000], 9);
        assert!(fs::read(&path).unwrap() == last.file(&WITHOUT_DISK));
        save_views(
            &path,
            &Tensors::new(&[3], 0).views(),
            None,
            &WITHOUT_DISK,
            &mut go_on,
        )
        .unwrap();
    }
}

#[test]
fn what_goes_wrong_in_the_background_is_told_to_everyone_who_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/a.safetensors");
    let is_done = Arc::new(AtomicBool::new(false));
    let when_done = {
        let is_done = Arc::clone(&is_done);
        move || is_done.store(true, Ordering::SeqCst)
    };
    let tensors = Tensors::new(&[10], 0);
    let options = BackgroundOptions::default();
    let progress = Box::new(go_on);
    let views = tensors.views();
    let pending = save_in_background(&path, &views, None, &options, progress, when_done).unwrap();
    for _ in 0..2 {
        let error = pending.wait(None).unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.file(), path.to_str());
    }
    while !is_done.load(Ordering::SeqCst) {
        thread::yield_now();
    }
}

#[test]
fn waiting_ends_at_its_time_and_the_save_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let options = StreamOptions {
        save: WITHOUT_DISK,
        max_shard_bytes: None,
    };
    // In another thread: a save within a save of one thread does not wait.
    let create = || StreamWriter::create(&path, None, options).unwrap();
    let holder = thread::scope(|scope| scope.spawn(create).join().unwrap());
    let tensors = Tensors::new(&[10], 0);
    let pending = in_background(&path, &tensors, &BackgroundOptions::default());
    assert!(
        pending
            .wait(Some(Duration::from_millis(20)))
            .unwrap()
            .is_none()
    );
    assert!(pending.outcome().is_none());
    drop(holder);
    pending.wait(None).unwrap().unwrap().unwrap();
    assert_eq!(fs::read(&path).unwrap(), tensors.file(&WITHOUT_DISK));
}
