//! A transfer over files that change under it, and over what is no file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tensorhold::{
    Backend, Checkpoint, Dtype, Durability, ErrorKind, LoadPlan, Memory, Numbered, OpenOptions,
    Request, Result, SaveOptions, TensorSpec, Transfer, TransferOptions, save_file,
};

/// All that need not hold a map of the file, whose owner must not cut it.
const READING: [Backend; 3] = [Backend::Auto, Backend::Pread, Backend::Direct];

const BACKENDS: [Backend; 4] = [
    Backend::Auto,
    Backend::Mmap,
    Backend::Pread,
    Backend::Direct,
];

const SIZES: [usize; 6] = [3 << 20, 17, 5_000_001, 1 << 20, 0, 300_000];

static TENSORS: LazyLock<[Vec<u8>; SIZES.len()]> = LazyLock::new(|| {
    std::array::from_fn(|tensor| {
        (0..SIZES[tensor])
            .map(|index| ((index * 31) ^ (index >> 9) ^ tensor) as u8 | 1)
            .collect()
    })
});

static BLANKS: LazyLock<[Vec<u8>; SIZES.len()]> = LazyLock::new(|| SIZES.map(|size| vec![0; size]));

fn write(path: &Path, tensors: &[Vec<u8>]) {
    let names: Vec<String> = (0..SIZES.len()).map(|n| format!("t{n}")).collect();
    let shapes = SIZES.map(|size| [size as u64]);
    let specs: Vec<TensorSpec<'_>> = names
        .iter()
        .zip(&shapes)
        .map(|(name, shape)| TensorSpec {
            name,
            dtype: Dtype::U8,
            shape,
        })
        .collect();
    let options = SaveOptions {
        align: None,
        durability: Durability::None,
    };
    save_file(path, &specs, None, &options, |n| {
        Ok((&tensors[n][..]).into())
    })
    .expect("it is in order");
}

fn open(path: &Path, backend: Backend) -> Result<Checkpoint> {
    let options = OpenOptions {
        backend,
        ..OpenOptions::default()
    };
    Checkpoint::open_files(&[path], &options)
}

/// Every tensor twice, so that more is read than what is in memory in an instant.
fn plan_all(checkpoint: &Checkpoint) -> LoadPlan {
    let mut plan = checkpoint.plan();
    for tensor in (0..SIZES.len()).chain(0..SIZES.len()) {
        plan.add_new(Request::whole(0, tensor))
            .expect("it is in order");
    }
    plan
}

fn start(checkpoint: &Checkpoint, options: TransferOptions) -> Transfer {
    let plan = plan_all(checkpoint);
    Transfer::start(plan, checkpoint.files(), Vec::new(), options).expect("it is in order")
}

/// What the transfer gives until it ends; how it ends.
fn drain(transfer: &Transfer) -> (Numbered, Result<()>) {
    let mut given = Numbered::new();
    loop {
        match transfer.next() {
            Ok(Some(buffer)) => given.push(buffer),
            Ok(None) => return (given, Ok(())),
            Err(error) => return (given, Err(error)),
        }
    }
}

fn is_right(given: &[(usize, Memory)], checkpoint: &Checkpoint) -> bool {
    let plan = plan_all(checkpoint);
    given.iter().all(|(number, buffer)| {
        let name = plan.tensor(&plan.requests()[*number]).name;
        let tensor: usize = name[1..].parse().expect("a number");
        buffer.as_host().expect("it is the host's")[..] == TENSORS[tensor][..]
    })
}

fn in_folder(check: impl FnOnce(PathBuf)) {
    let folder = tempfile::tempdir().expect("there is room");
    check(folder.path().join("a.safetensors"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_cut_meanwhile_is_an_error_or_right(
        backend in prop::sample::select(READING.to_vec()),
        n_threads in 1usize..4,
        memory_limit in prop::option::of(1u64..10_000_000),
        kept in 0.0f64..1.0,
        delay_us in 0u64..4000,
    ) {
        in_folder(|path| {
            write(&path, &*TENSORS);
            let checkpoint = open(&path, backend).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            let length = file.metadata().unwrap().len();
            let cutter = thread::spawn(move || {
                thread::sleep(Duration::from_micros(delay_us));
                file.set_len((length as f64 * kept) as u64).unwrap();
            });
            let options = TransferOptions { n_threads: Some(n_threads), memory_limit, ..TransferOptions::default() };
            let (given, ending) = drain(&start(&checkpoint, options));
            cutter.join().unwrap();
            assert!(is_right(&given, &checkpoint), "{backend:?}");
            match ending {
                Ok(()) => assert_eq!(given.len(), 2 * SIZES.len()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
                    assert!(error.tensor().is_some(), "{error}");
                }
            }
        });
    }

    #[test]
    fn a_file_replaced_or_removed_meanwhile_gives_its_old_bytes(
        backend in prop::sample::select(BACKENDS.to_vec()),
        n_threads in 1usize..4,
        is_removed in any::<bool>(),
        delay_us in 0u64..4000,
    ) {
        in_folder(|path| {
            write(&path, &*TENSORS);
            let other = path.with_extension("other");
            write(&other, &*BLANKS);
            let checkpoint = open(&path, backend).unwrap();
            let change = thread::spawn(move || {
                thread::sleep(Duration::from_micros(delay_us));
                match is_removed {
                    true => fs::remove_file(&path).unwrap(),
                    false => fs::rename(&other, &path).unwrap(),
                }
            });
            let options = TransferOptions { n_threads: Some(n_threads), memory_limit: Some(1 << 20), ..TransferOptions::default() };
            let (given, ending) = drain(&start(&checkpoint, options));
            change.join().unwrap();
            ending.unwrap();
            assert_eq!(given.len(), 2 * SIZES.len());
            assert!(is_right(&given, &checkpoint), "{backend:?}");
        });
    }

    #[test]
    fn a_transfer_cancelled_or_dropped_at_any_moment_ends(
        backend in prop::sample::select(BACKENDS.to_vec()),
        n_threads in 1usize..5,
        memory_limit in prop::option::of(1u64..10_000_000),
        is_dropped in any::<bool>(),
        delay_us in 0u64..4000,
    ) {
        in_folder(|path| {
            write(&path, &*TENSORS);
            let checkpoint = open(&path, backend).unwrap();
            let transfer = start(&checkpoint, TransferOptions { n_threads: Some(n_threads), memory_limit, ..TransferOptions::default() });
            if is_dropped {
                thread::sleep(Duration::from_micros(delay_us));
                return drop(transfer);
            }
            thread::scope(|scope| {
                let consumers = [0, 1].map(|_| scope.spawn(|| drain(&transfer)));
                thread::sleep(Duration::from_micros(delay_us));
                transfer.cancel();
                for consumer in consumers {
                    let (given, ending) = consumer.join().unwrap();
                    assert!(is_right(&given, &checkpoint), "{backend:?}");
                    if let Err(error) = ending {
                        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                    }
                }
            });
        });
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let special = [
        folder.path(),
        Path::new("/dev/null"),
        Path::new("/dev/zero"),
    ];
    for path in special.into_iter().filter(|path| path.exists()) {
        for backend in BACKENDS {
            let error = open(path, backend).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
        }
    }
}
