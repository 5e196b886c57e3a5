//! Loads onto devices give the bytes that loads into the host's memory give, on the double of each vendor.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers of the cases are small"
)]

#[path = "../../tensorhold-device/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;

use common::on_doubles;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tensorhold::{
    Backend, Bounds, Checkpoint, CopyQueue, DeviceBuffer, Dtype, ErrorKind, Index, LoadPlan,
    Memory, Numbered, OpenOptions, Packer, Packing, Request, Result, SaveOptions, Selection,
    TensorSpec, Transfer, TransferOptions, TransferStats, Way, save_file,
};
use tensorhold_device::{Slot, ring_usage, set_ring_limit};

const PACKING: Packing = Packing {
    alignment: 256,
    own_bytes: 1 << 20,
    shared_bytes: 4 << 20,
};

/// What is wanted of one tensor of floats, and where.
#[derive(Debug, Clone)]
struct Want {
    n_rows: u64,
    n_columns: u64,
    /// Columns on both sides that are not wanted.
    margin: i64,
    step: i64,
    is_cast: bool,
    /// `None` for the host.
    device: Option<usize>,
}

fn wants() -> impl Strategy<Value = Vec<Want>> {
    let size = prop_oneof![5 => 0..40_u64, 2 => 200..600_u64, 1 => 1000..2200_u64];
    let margin = prop_oneof![Just(0), 0..90_i64];
    let step = prop_oneof![Just(1), 1..4_i64];
    let want = (size.clone(), size, margin, step, any::<bool>(), 0..3_usize);
    let want = want.prop_map(|(n_rows, n_columns, margin, step, is_cast, place)| Want {
        n_rows,
        n_columns,
        margin,
        step,
        is_cast,
        device: place.checked_sub(1),
    });
    proptest::collection::vec(want, 1..40)
}

fn write(path: &Path, wants: &[Want]) {
    let name = |n: usize| format!("t{n:06}");
    let names: Vec<String> = (0..wants.len()).map(name).collect();
    let shapes: Vec<[u64; 2]> = wants
        .iter()
        .map(|want| [want.n_rows, want.n_columns])
        .collect();
    let specs: Vec<TensorSpec<'_>> = names
        .iter()
        .zip(&shapes)
        .map(|(name, shape)| TensorSpec {
            name,
            dtype: Dtype::BF16,
            shape,
        })
        .collect();
    save_file(path, &specs, None, &SaveOptions::default(), |n| {
        let len = (wants[n].n_rows * wants[n].n_columns * 2) as usize;
        let byte = |at: usize| (at * 31 + n * 7 + at / 251) as u8;
        Ok((0..len).map(byte).collect::<Vec<u8>>().into())
    })
    .unwrap();
}

fn request(n: usize, want: &Want) -> Request {
    let index = [
        Index::Ellipsis,
        Index::Range {
            start: Some(want.margin),
            stop: (want.margin > 0).then_some(-want.margin),
            step: Some(want.step),
        },
    ];
    let shape = [want.n_rows, want.n_columns];
    let selection = Selection::resolve(Dtype::BF16, &shape, &index, Bounds::Clamped).unwrap();
    let request = match (want.step, want.margin) {
        (1, 0) => Request::whole(0, n),
        _ => Request::whole(0, n).part(selection),
    };
    match want.is_cast {
        true => request.cast(Dtype::F64),
        false => request,
    }
}

fn expected(checkpoint: &Checkpoint, wants: &[Want]) -> Vec<Vec<u8>> {
    let (memory, _) = load_on_host(checkpoint, wants);
    let bytes = memory
        .iter()
        .map(|memory| memory.as_host().unwrap().to_vec());
    bytes.collect()
}

fn load_on_host(checkpoint: &Checkpoint, wants: &[Want]) -> (Vec<Memory>, TransferStats) {
    let mut plan = checkpoint.plan();
    for (n, want) in wants.iter().enumerate() {
        plan.add_new(request(n, want)).unwrap();
    }
    let options = TransferOptions::default();
    let files = checkpoint.files();
    Transfer::run(plan, files, Vec::new(), options, &mut |_| Ok(())).unwrap()
}

/// The plan, and memory of the devices for it.
fn plan(
    checkpoint: &Checkpoint,
    wants: &[Want],
    queues: &[Arc<CopyQueue>],
) -> Result<(LoadPlan, Numbered)> {
    let mut plan = checkpoint.plan();
    let mut packers = vec![Packer::new(PACKING); queues.len()];
    let mut device_of = Vec::new();
    for (n, want) in wants.iter().enumerate() {
        let buffer = match want.device {
            Some(device) => packers[device].add(&mut plan, request(n, want))?,
            None => plan.add_new(request(n, want))?,
        };
        device_of.resize(plan.buffers().len(), None);
        device_of[buffer] = want.device;
    }
    let mut given = Numbered::new();
    for (number, device) in device_of.into_iter().enumerate() {
        if let Some(device) = device {
            let buffer = queues[device].allocate(plan.buffers()[number])?;
            given.push((number, buffer.into()));
        }
    }
    Ok((plan, given))
}

/// The double's memory is the host's.
fn bytes_of(memory: &Memory) -> &[u8] {
    let of_device = |buffer: &DeviceBuffer| {
        let start = std::ptr::with_exposed_provenance(buffer.address());
        // SAFETY: the double has the memory in this process, all copies have happened, and it is freed with the buffer.
        unsafe { std::slice::from_raw_parts(start, buffer.len()) }
    };
    match memory {
        Memory::Host(buffer) => buffer,
        Memory::Device(buffer) if buffer.is_empty() => &[],
        Memory::Device(buffer) => of_device(buffer),
    }
}

fn load(
    checkpoint: &Checkpoint,
    wants: &[Want],
    queues: &[Arc<CopyQueue>],
    n_threads: usize,
) -> Result<Vec<Vec<u8>>> {
    let (plan, given) = plan(checkpoint, wants, queues)?;
    let plan = Arc::new(plan);
    let options = TransferOptions {
        n_threads: Some(n_threads),
        memory_limit: None,
        ..TransferOptions::default()
    };
    let files = checkpoint.files();
    let (memory, _) = Transfer::run(Arc::clone(&plan), files, given, options, &mut |_| Ok(()))?;
    queues.iter().try_for_each(|queue| queue.synchronize())?;
    let tensor = |request: &Request| {
        let start = request.place.offset as usize;
        let end = start + plan.size_of(request) as usize;
        bytes_of(&memory[request.place.buffer])[start..end].to_vec()
    };
    Ok(plan.requests().iter().map(tensor).collect())
}

fn open(path: &Path, backend: Backend) -> Checkpoint {
    let options = OpenOptions {
        backend,
        ..OpenOptions::default()
    };
    Checkpoint::open(path, &options).unwrap()
}

fn queues(double: &common::Double) -> Vec<Arc<CopyQueue>> {
    let queue = |ordinal| CopyQueue::new(double.device(ordinal)).unwrap();
    (0..2).map(queue).collect()
}

on_doubles! {
    fn devices_get_the_bytes_that_the_host_gets(double, "devices=2,delay_us=200,seed=3,scribble=1") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let cases = ProptestConfig::with_cases(24);
        let strategy = (wants(), 1..5_usize, prop_oneof![
            Just(Backend::Auto), Just(Backend::Mmap), Just(Backend::Pread), Just(Backend::Direct), Just(Backend::Gds),
        ]);
        let run = TestRunner::new(cases).run(&strategy, |(wants, n_threads, backend)| {
            write(&path, &wants);
            let checkpoint = open(&path, backend);
            let queues = queues(double);
            let loaded = load(&checkpoint, &wants, &queues, n_threads).unwrap();
            for (n, (loaded, expected)) in loaded.iter().zip(expected(&checkpoint, &wants)).enumerate() {
                prop_assert!(*loaded == expected, "tensor {n} of {wants:?}");
            }
            Ok(())
        });
        run.unwrap();
        double.assert_clean();
    }

    fn columns_that_are_read_past_the_page_cache_are_picked_out_by_the_device(double, "devices=2,scribble=1") {
        let want = |n_rows, n_columns, margin| Want {
            n_rows,
            n_columns,
            margin,
            step: 1,
            is_cast: false,
            device: Some(0),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        // Small; of several slots; of rows that are better gathered.
        let wants = [want(90, 700, 300), want(9001, 1001, 400), want(5000, 31, 5)];
        write(&path, &wants);
        for backend in [Backend::Direct, Backend::Pread, Backend::Mmap] {
            let checkpoint = open(&path, backend);
            let queues = queues(double);
            double.reset();
            let loaded = load(&checkpoint, &wants, &queues, 3).unwrap();
            let report = double.report();
            assert!(loaded == expected(&checkpoint, &wants), "{backend:?}");
            let share = loaded.iter().map(Vec::len).sum::<usize>();
            assert_eq!(report["copied"]["host_to_device"]["bytes"], share, "{backend:?}");
            let n_pitched = report["calls"]["Memcpy2DAsync"].as_u64().unwrap_or(0);
            // Not every file system can.
            let is_direct = load_on_host(&checkpoint, &wants).1.ways == [Way::Direct];
            assert_eq!(n_pitched, if is_direct { 4 } else { 0 }, "{backend:?}");
            drop(queues);
            double.assert_clean();
        }
    }

    fn each_failure_of_the_runtime_is_an_error_and_leaks_nothing(double, "devices=2") {
        let wants: Vec<Want> = (0..60)
            .map(|n| Want {
                n_rows: 1 + n * 30,
                n_columns: 700,
                margin: 100 * (n as i64 % 3),
                step: 1 + (n % 2) as i64,
                is_cast: n % 5 == 0,
                device: Some(n as usize % 2),
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write(&path, &wants);
        let checkpoint = open(&path, Backend::Auto);
        let right = expected(&checkpoint, &wants);
        for function in ["MemcpyAsync", "Memcpy2DAsync", "EventRecord", "EventQuery", "EventSynchronize", "Malloc", "HostRegister"] {
            let mut n_failed = 0;
            for n in 1..6 {
                double.reset();
                let queues = queues(double);
                double.configure(&format!("fail={function}:{n}:2"));
                match load(&checkpoint, &wants, &queues, 2) {
                    Ok(loaded) => assert!(loaded == right, "{function} {n}"),
                    Err(error) => {
                        n_failed += 1;
                        assert!(matches!(error.kind(), ErrorKind::Device | ErrorKind::NoMemory), "{error}");
                    }
                }
                double.configure("fail=");
                drop(queues);
                double.assert_clean();
            }
            println!("{function}: {n_failed} of 5 loads failed");
        }
    }

    fn a_load_that_waits_for_a_slot_can_be_cancelled(double, "devices=2") {
        let wants = [Want { n_rows: 2000, n_columns: 2000, margin: 0, step: 1, is_cast: false, device: Some(0) }];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write(&path, &wants);
        let checkpoint = open(&path, Backend::Auto);
        let queues = queues(double);
        let (plan, given) = plan(&checkpoint, &wants, &queues).unwrap();
        set_ring_limit(0);
        // The only one there is.
        let slot = Slot::take(queues[0].device()).unwrap();
        let options = TransferOptions { n_threads: Some(2), memory_limit: None, ..TransferOptions::default() };
        let transfer = Transfer::start(plan, checkpoint.files(), given, options).unwrap();
        transfer.cancel();
        assert_eq!(transfer.next().unwrap_err().kind(), ErrorKind::Closed);
        drop((transfer, slot, queues));
        double.assert_clean();
    }

    fn no_more_is_pinned_than_a_load_is_large(double, "devices=2,delay_us=100") {
        let want = Want { n_rows: 100, n_columns: 100, margin: 0, step: 1, is_cast: false, device: Some(0) };
        let wants = vec![want; 500];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write(&path, &wants);
        let checkpoint = open(&path, Backend::Auto);
        let queues = queues(double);
        for n_threads in [1, 4] {
            load(&checkpoint, &wants, &queues, n_threads).unwrap();
            // They are 10 MB.
            assert_eq!(ring_usage().pinned_bytes, 16 << 20);
        }
        drop(queues);
        double.assert_clean();
    }
}
