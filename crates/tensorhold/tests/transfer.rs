//! The engine gives every buffer once, with the right bytes, whatever the way, the threads and the limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use tensorhold::{
    Backend, Bounds, Buffer, Checkpoint, Dtype, ErrorKind, File, Header, Index, LoadPlan, Memory,
    OpenOptions, Place, PlacedTensor, Promised, Request, SaveOptions, Selection, Source,
    TensorSpec, Transfer, TransferOptions, save_file,
};

const BACKENDS: [Backend; 4] = [
    Backend::Auto,
    Backend::Mmap,
    Backend::Pread,
    Backend::Direct,
];

/// Bytes that tell their place.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let word = |n: u64| (n ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    let words = (0..len.div_ceil(8) as u64).flat_map(word);
    words.take(len).collect()
}

/// A file of byte tensors with these sizes, named `t0`, `t1` and so on.
fn write(path: &Path, sizes: &[u64], seed: u64, align: Option<u32>) -> Vec<Vec<u8>> {
    let tensors: Vec<Vec<u8>> = (0..)
        .zip(sizes)
        .map(|(n, &size)| pattern(seed + n, size as usize))
        .collect();
    let names: Vec<String> = (0..sizes.len())
        .map(|n| format!("t{seed}-{n:06}"))
        .collect();
    let shapes: Vec<[u64; 1]> = sizes.iter().map(|&size| [size]).collect();
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
        align,
        durability: tensorhold::Durability::None,
    };
    save_file(path, &specs, None, &options, |n| {
        Ok((&tensors[n][..]).into())
    })
    .expect("it is in order");
    tensors
}

fn open(paths: &[PathBuf], backend: Backend) -> Checkpoint {
    let options = OpenOptions {
        backend,
        ..OpenOptions::default()
    };
    Checkpoint::open_files(paths, &options).expect("it is in order")
}

/// A plan that wants every tensor whole, in the order of the files.
fn plan_all(checkpoint: &Checkpoint) -> LoadPlan {
    let mut plan = checkpoint.plan();
    for (file, each) in checkpoint.files().iter().enumerate() {
        for tensor in 0..each.header().len() {
            plan.add_new(Request::whole(file, tensor))
                .expect("it is in order");
        }
    }
    plan
}

fn start(checkpoint: &Checkpoint, plan: LoadPlan, options: TransferOptions) -> Transfer {
    Transfer::start(plan, checkpoint.files(), Vec::new(), options).expect("it is in order")
}

fn host(memory: &Memory) -> &Buffer {
    memory.as_host().expect("it is the host's")
}

fn run(checkpoint: &Checkpoint, plan: LoadPlan, options: TransferOptions) -> Vec<Buffer> {
    let files = checkpoint.files();
    let (buffers, stats) =
        Transfer::run(plan, files, Vec::new(), options, &mut |_| Ok(())).expect("it is in order");
    let size_bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    assert_eq!(stats.wanted_bytes, size_bytes as u64);
    let host = buffers.into_iter().map(Memory::into_host);
    host.map(|buffer| buffer.expect("it is the host's"))
        .collect()
}

fn threads(n_threads: usize) -> TransferOptions {
    TransferOptions {
        n_threads: Some(n_threads),
        ..TransferOptions::default()
    }
}

/// Large tensors that are cut, small ones that are joined, and empty ones.
const SIZES: [u64; 9] = [20 << 20, 0, 7, 3, 65_537, 9_000_001, 1, 300_000, 0];

#[test]
fn every_way_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for align in [None, Some(4096)] {
        let paths = [
            folder.path().join("a.safetensors"),
            folder.path().join("b.safetensors"),
        ];
        let mut expected = write(&paths[0], &SIZES, 100, align);
        expected.extend(write(&paths[1], &SIZES, 200, align));
        for backend in BACKENDS {
            let checkpoint = open(&paths, backend);
            for n_threads in [1, 3] {
                let buffers = run(&checkpoint, plan_all(&checkpoint), threads(n_threads));
                for (buffer, expected) in buffers.iter().zip(&expected) {
                    assert!(buffer[..] == expected[..], "{backend:?} {n_threads}");
                }
            }
        }
    }
}

#[test]
fn buffers_are_given_once_in_whatever_order() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.safetensors")];
    let expected = write(&paths[0], &SIZES, 1, None);
    let checkpoint = open(&paths, Backend::Auto);
    for (n_threads, memory_limit) in [(1, None), (2, None), (2, Some(1)), (3, Some(10 << 20))] {
        let options = TransferOptions {
            n_threads: Some(n_threads),
            memory_limit,
            ..TransferOptions::default()
        };
        let transfer = start(&checkpoint, plan_all(&checkpoint), options);
        for number in [5, 8, 0] {
            let buffer = transfer.take(number).unwrap().unwrap();
            assert!(host(&buffer)[..] == expected[number][..]);
            assert!(transfer.take(number).unwrap().is_none());
        }
        let mut others = Vec::new();
        while let Some((number, buffer)) = transfer.next().unwrap() {
            assert!(host(&buffer)[..] == expected[number][..]);
            others.push(number);
        }
        others.sort_unstable();
        assert_eq!(others, [1, 2, 3, 4, 6, 7]);
        assert!(transfer.take(3).unwrap().is_none());
    }
}

#[test]
fn given_memory_is_filled_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.safetensors")];
    let expected = write(&paths[0], &[10_000_000, 100], 1, None);
    let checkpoint = open(&paths, Backend::Auto);
    let mut plan = checkpoint.plan();
    let joined = plan.add_buffer(10_000_100);
    let place = |offset| Place {
        buffer: joined,
        offset,
    };
    plan.add(Request::whole(0, 1).at(place(0))).unwrap();
    plan.add(Request::whole(0, 0).at(place(100))).unwrap();
    let given = Buffer::allocate(10_000_100).unwrap();
    let address = given.as_ptr();
    let (buffers, _) = Transfer::run(
        plan,
        checkpoint.files(),
        vec![(joined, given.into())],
        threads(2),
        &mut |_| Ok(()),
    )
    .unwrap();
    assert_eq!(host(&buffers[0]).as_ptr(), address);
    assert!(host(&buffers[0])[..100] == expected[1][..]);
    assert!(host(&buffers[0])[100..] == expected[0][..]);
}

#[test]
fn a_limit_of_memory_holds_while_nothing_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.safetensors")];
    let expected = write(&paths[0], &[1 << 20; 32], 1, None);
    let checkpoint = open(&paths, Backend::Pread);
    let options = TransferOptions {
        n_threads: Some(2),
        memory_limit: Some(4 << 20),
        ..TransferOptions::default()
    };
    let transfer = start(&checkpoint, plan_all(&checkpoint), options);
    for (number, expected) in expected.iter().enumerate() {
        let buffer = transfer.take(number).unwrap().unwrap();
        assert!(host(&buffer)[..] == expected[..]);
        let ahead = transfer.stats().read_bytes - ((number as u64 + 1) << 20);
        assert!(ahead <= 5 << 20, "{ahead} bytes were read ahead");
    }
}

#[test]
fn warm_bytes_are_read_by_no_more_threads_than_there_are_cores_for() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.safetensors")];
    write(&paths[0], &[1 << 20; 64], 1, None);
    let checkpoint = open(&paths, Backend::Pread);
    let n_usable = std::thread::available_parallelism().unwrap().get();
    for (n_cores, expected) in [
        (Some(0), 1),
        (Some(1), 1),
        (Some(9999), n_usable),
        (None, n_usable),
    ] {
        let options = TransferOptions {
            n_cores,
            ..TransferOptions::default()
        };
        let transfer = start(&checkpoint, plan_all(&checkpoint), options);
        assert_eq!(transfer.stats().n_threads, expected.min(8), "{n_cores:?}");
    }
}

#[test]
fn dropping_and_cancelling_end_every_thread() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.safetensors")];
    write(&paths[0], &[1 << 20; 64], 1, None);
    let checkpoint = open(&paths, Backend::Pread);
    for memory_limit in [None, Some(1 << 20)] {
        let options = TransferOptions {
            n_threads: Some(3),
            memory_limit,
            ..TransferOptions::default()
        };
        let transfer = start(&checkpoint, plan_all(&checkpoint), options);
        drop(transfer.next().unwrap());
        drop(transfer);
        let transfer = Arc::new(start(&checkpoint, plan_all(&checkpoint), options));
        let waiting = std::thread::spawn({
            let transfer = Arc::clone(&transfer);
            move || while let Ok(Some(_)) = transfer.next() {}
        });
        transfer.cancel();
        waiting.join().unwrap();
        let error = transfer.next().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}

#[test]
fn a_file_that_is_cut_is_an_error_with_its_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    for backend in [Backend::Auto, Backend::Pread, Backend::Direct] {
        write(&path, &[5 << 20, 5 << 20, 100, 100], 1, Some(4096));
        let checkpoint = open(std::slice::from_ref(&path), backend);
        let length = std::fs::metadata(&path).unwrap().len();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(length - 150).unwrap();
        let plan = plan_all(&checkpoint);
        let files = checkpoint.files();
        let error = Transfer::run(plan, files, Vec::new(), threads(2), &mut |_| Ok(()))
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Truncated, "{backend:?}: {error}");
        assert!(error.file().unwrap().ends_with("a.safetensors"));
        assert!(error.tensor().unwrap().starts_with("t1-00000"), "{error}");
        assert!(error.hint().unwrap().contains("shrank"), "{error}");
    }
}

#[test]
fn what_progress_raises_ends_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.safetensors")];
    write(&paths[0], &[1 << 20; 8], 1, None);
    let checkpoint = open(&paths, Backend::Auto);
    let mut seen = Vec::new();
    let mut progress = |done| {
        seen.push(done);
        Err(tensorhold::Error::new(ErrorKind::InvalidArgument, "enough"))
    };
    let plan = plan_all(&checkpoint);
    let error = Transfer::run(
        plan,
        checkpoint.files(),
        Vec::new(),
        threads(2),
        &mut progress,
    );
    assert_eq!(error.err().unwrap().message(), "enough");
    assert_eq!(seen.len(), 1);
    assert!((1 << 20..=8 << 20).contains(&seen[0]));
}

#[test]
fn tensors_anywhere_in_a_file_are_loaded_as_any() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    let bytes = pattern(7, 5 << 20);
    std::fs::write(&path, &bytes).unwrap();
    // Apart, over each other, at odd positions, in no order.
    let places: [(&str, [u64; 2], u64); 4] = [
        ("last", [3, 700_001], 3_000_001),
        ("first", [2, 5], 3),
        ("over", [1, 4_000_000], 1_000_000),
        ("none", [0, 9], 5 << 20),
    ];
    let tensors = places.each_ref().map(|(name, shape, start)| PlacedTensor {
        name,
        dtype: Dtype::U8,
        shape,
        start: *start,
    });
    let table = |source: &dyn Source| {
        Header::of_placed(&tensors, Some(&[("key", "value")]), source.size_bytes())
    };
    for backend in BACKENDS {
        let file = File::open_as(&path, backend, table).unwrap();
        let checkpoint = Checkpoint::of_files(vec![file]).unwrap();
        assert_eq!(checkpoint.metadata()["key"], "value");
        let buffers = run(&checkpoint, plan_all(&checkpoint), threads(3));
        for (tensor, buffer) in checkpoint.tensors().zip(&buffers) {
            let start = tensor.info().offsets.start as usize;
            let expected = &bytes[start..][..tensor.info().size_bytes() as usize];
            assert_eq!(&buffer[..], expected, "{backend:?} {}", tensor.info().name);
            assert_eq!(tensor.read().unwrap(), expected);
        }
        let columns = Index::Range {
            start: Some(5),
            stop: Some(9),
            step: None,
        };
        let (shape, read) = checkpoint
            .tensor("last")
            .unwrap()
            .read_slice(&[Index::ALL, columns])
            .unwrap();
        assert_eq!(
            (&shape[..], &read[..4]),
            (&[3, 4][..], &bytes[3_000_006..][..4])
        );
    }
    std::fs::write(&path, "shorter").unwrap();
    let error = File::open_as(&path, Backend::Auto, table).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
}

#[test]
fn a_hundred_thousand_tensors_come_whole() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("a.safetensors")];
    let sizes: Vec<u64> = (0..100_000).map(|n| n % 40).collect();
    let expected = write(&paths[0], &sizes, 1, None);
    for backend in BACKENDS {
        let checkpoint = open(&paths, backend);
        let buffers = run(&checkpoint, plan_all(&checkpoint), threads(2));
        let is_right = |(buffer, expected): (&Buffer, &Vec<u8>)| buffer[..] == expected[..];
        assert!(buffers.iter().zip(&expected).all(is_right));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn slices_are_what_a_single_read_gives(
        parts in prop::collection::vec(
            (0usize..3, prop::collection::vec((-300i64..300, -300i64..300, prop::sample::select(vec![-7i64, -1, 1, 2, 5])), 1..3)),
            1..6,
        ),
        n_threads in 1usize..4,
        backend in prop::sample::select(BACKENDS.to_vec()),
        memory_limit in prop::option::of(1u64..100_000),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let bytes: Vec<Vec<u8>> = (0..3).map(|n| pattern(n, 256 * 300 * 2)).collect();
        let names = ["a", "b", "c"];
        let specs = names.map(|name| TensorSpec { name, dtype: Dtype::BF16, shape: &[256, 300] });
        let options = SaveOptions { align: None, durability: tensorhold::Durability::None };
        save_file(&path, &specs, None, &options, |n| Ok((&bytes[n][..]).into())).unwrap();
        let checkpoint = open(&[path], backend);
        let mut plan = checkpoint.plan();
        let mut expected = Vec::new();
        for (tensor, parts) in parts {
            let range = |&(start, stop, step): &(i64, i64, i64)| Index::Range {
                start: Some(start), stop: Some(stop), step: Some(step),
            };
            let index: Vec<Index> = parts.iter().map(range).collect();
            let selection = Selection::resolve(Dtype::BF16, &[256, 300], &index, Bounds::Clamped).unwrap();
            let mut sliced = vec![0; selection.size_bytes() as usize];
            selection.gather(&bytes[tensor], &mut sliced);
            expected.push(sliced);
            plan.add_new(Request::whole(0, tensor).part(selection)).unwrap();
        }
        let options = TransferOptions { n_threads: Some(n_threads), memory_limit, ..TransferOptions::default() };
        let transfer = start(&checkpoint, plan, options);
        while let Some((number, buffer)) = transfer.next().unwrap() {
            prop_assert_eq!(&host(&buffer)[..], &expected[number][..]);
        }
    }
}

#[test]
fn elements_are_cast_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let numbers: Vec<f32> = (0..3_000_000).map(|n| n as f32 / 8.0).collect();
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let spec = TensorSpec {
        name: "x",
        dtype: Dtype::F32,
        shape: &[3000, 1000],
    };
    let options = SaveOptions {
        align: None,
        durability: tensorhold::Durability::None,
    };
    save_file(&path, &[spec], None, &options, |_| Ok((&bytes[..]).into())).unwrap();
    for backend in BACKENDS {
        let checkpoint = open(std::slice::from_ref(&path), backend);
        let mut plan = checkpoint.plan();
        plan.add_new(Request::whole(0, 0).cast(Dtype::F64)).unwrap();
        let every_third = Index::Range {
            start: None,
            stop: None,
            step: Some(3),
        };
        let columns = [Index::ALL, every_third];
        let selection =
            Selection::resolve(Dtype::F32, &[3000, 1000], &columns, Bounds::Clamped).unwrap();
        let part = Request::whole(0, 0).part(selection);
        plan.add_new(part.cast(Dtype::F64)).unwrap();
        let buffers = run(&checkpoint, plan, threads(2));
        let doubles = |buffer: &Buffer| -> Vec<f64> {
            let chunks = buffer.as_chunks::<8>().0;
            chunks
                .iter()
                .map(|chunk| f64::from_le_bytes(*chunk))
                .collect()
        };
        let expected: Vec<f64> = numbers.iter().map(|&number| f64::from(number)).collect();
        assert!(doubles(&buffers[0]) == expected, "{backend:?}");
        let rows = expected.chunks(1000);
        let third: Vec<f64> = rows
            .flat_map(|row| row.iter().step_by(3).copied())
            .collect();
        assert!(doubles(&buffers[1]) == third, "{backend:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn promised_memory_is_asked_for_within_the_limit(
        sizes in proptest::collection::vec(1..400_000_u64, 1..30),
        n_threads in 1..4_usize,
        memory_limit in proptest::option::of(1..2_000_000_u64),
        taken in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let folder = tempfile::tempdir().expect("there is room");
        let path = folder.path().join("a.safetensors");
        let expected = write(&path, &sizes, 1, None);
        let checkpoint = open(&[path], Backend::Pread);
        let buffers: Vec<usize> = (0..sizes.len()).collect();
        let promised = Promised { buffers: &buffers, is_unified: false };
        let options = TransferOptions { n_threads: Some(n_threads), memory_limit, ..TransferOptions::default() };
        let transfer =
            Transfer::start_promised(plan_all(&checkpoint), checkpoint.files(), Vec::new(), promised, options)
                .expect("it is in order");
        let largest = sizes.iter().max().copied().unwrap_or(0);
        let limit = memory_limit.unwrap_or(u64::MAX).max(largest);
        // As much as is read together with a tensor.
        let together = 2 * largest + (2 << 20);
        let mut in_flight = 0_u64;
        let offer = |in_flight: &mut u64, is_demanded: bool| {
            let before = *in_flight;
            let owed = transfer.owed();
            *in_flight += owed.iter().map(|(_, size)| size).sum::<u64>();
            // What is demanded comes on top.
            let most = match is_demanded {
                true => before.max(limit).saturating_add(together),
                false => before.max(limit.saturating_add(together)),
            };
            prop_assert!(*in_flight <= most, "{before} + {} bytes", *in_flight - before);
            let memory = owed.into_iter().map(|(number, size)| {
                (number, Buffer::allocate(size).expect("there is memory").into())
            });
            transfer.offer(memory.collect());
            Ok(())
        };
        let mut given = vec![false; sizes.len()];
        for number in taken {
            let number = number.index(sizes.len());
            transfer.demand(number);
            offer(&mut in_flight, true)?;
            let buffer = transfer.take(number).expect("nothing fails");
            prop_assert_eq!(buffer.is_some(), !given[number]);
            if let Some(buffer) = buffer {
                given[number] = true;
                in_flight -= sizes[number];
                prop_assert!(host(&buffer)[..] == expected[number][..]);
            }
        }
        loop {
            offer(&mut in_flight, false)?;
            let Some((number, buffer)) = transfer.next().expect("nothing fails") else {
                break;
            };
            prop_assert!(!std::mem::replace(&mut given[number], true));
            in_flight -= sizes[number];
            prop_assert!(host(&buffer)[..] == expected[number][..]);
        }
        prop_assert!(given.iter().all(|&given| given));
    }
}
