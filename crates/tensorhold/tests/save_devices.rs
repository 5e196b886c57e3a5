//! Saves from devices write the files that saves from host memory write, on the double of each vendor.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of the cases are small"
)]

#[path = "../../tensorhold-device/tests/common/mod.rs"]
mod common;

use std::ffi::CString;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::{fs, thread};

use common::{Double, on_doubles, pattern};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tensorhold::{
    BackgroundOptions, CopyQueue, DeviceBuffer, DeviceView, Dtype, Durability, ErrorKind, Result,
    SaveOptions, StreamOptions, StreamWriter, TensorData, TensorSpec, TensorView, ring_usage,
    save_in_background, save_view_shards, save_views, serialize_views, set_ring_limit,
};

const SLOT_BYTES: usize = 8 << 20;

/// Tensors of bytes, each in host memory and on a device; which one is asked for is said with each save.
struct Tensors {
    names: Vec<String>,
    shapes: Vec<[u64; 1]>,
    bytes: Vec<Vec<u8>>,
    queues: Vec<Arc<CopyQueue>>,
    /// On each device, those of all tensors.
    buffers: Vec<Vec<DeviceBuffer>>,
}

impl Tensors {
    fn new(double: &Double, sizes: &[usize]) -> Tensors {
        let bytes: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(n, &size)| pattern(n, size))
            .collect();
        let queues: Vec<_> = (0..2)
            .map(|n| CopyQueue::new(double.device(n)).unwrap())
            .collect();
        let on_device = |queue: &Arc<CopyQueue>| {
            let each = bytes
                .iter()
                .map(|bytes| queue.allocate(bytes.len() as u64).unwrap());
            each.collect()
        };
        let tensors = Tensors {
            names: (0..sizes.len()).map(|n| format!("{n:05}")).collect(),
            shapes: sizes.iter().map(|&size| [size as u64]).collect(),
            buffers: queues.iter().map(on_device).collect(),
            bytes,
            queues,
        };
        for device in 0..2 {
            tensors.write(double, device, &tensors.bytes);
        }
        tensors
    }

    fn write(&self, double: &Double, device: usize, bytes: &[Vec<u8>]) {
        let addresses: Vec<_> = self.buffers[device]
            .iter()
            .map(DeviceBuffer::address)
            .collect();
        double.on_device(device, || {
            for (address, bytes) in addresses.iter().zip(bytes) {
                double.write(*address, bytes);
            }
        });
    }

    /// All of them, where `places` says; these repeat.
    fn views(&self, places: &[Option<usize>]) -> Vec<TensorView<'_>> {
        let data = |n: usize| match places[n % places.len()] {
            None => TensorData::from(&self.bytes[n]),
            Some(device) => {
                let buffer = &self.buffers[device][n];
                // SAFETY: the buffer lives as long as the view's borrow of `self`, and what copies it is waited for.
                unsafe {
                    DeviceView::from_raw(&self.queues[device], buffer.address(), buffer.len())
                }
                .into()
            }
        };
        let view = |n: usize| TensorView {
            spec: TensorSpec {
                name: &self.names[n],
                dtype: Dtype::U8,
                shape: &self.shapes[n],
            },
            data: data(n),
        };
        (0..self.names.len()).map(view).collect()
    }

    fn file(&self, options: &SaveOptions) -> Vec<u8> {
        serialize_views(&self.views(&[None]), None, options).unwrap()
    }
}

const QUICK: SaveOptions = SaveOptions {
    align: Some(64),
    durability: Durability::None,
};

fn go_on(_: u64) -> Result<()> {
    Ok(())
}

fn read_all(paths: &[impl AsRef<Path>]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Every way to save, from `places` and from the host, gives the same.
fn check_all(tensors: &Tensors, places: &[Option<usize>], options: SaveOptions, limit: u64) {
    let save = |places: &[Option<usize>]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let views = tensors.views(places);
        let mut all = vec![serialize_views(&views, None, &options).unwrap()];
        save_views(&path, &views, None, &options, &mut go_on).unwrap();
        all.extend(read_all(&[&path]));
        let max = SLOT_BYTES as u64;
        let paths = save_view_shards(&path, &views, None, max, &options, &mut go_on).unwrap();
        all.extend(read_all(&paths));
        let streamed = StreamOptions {
            save: options,
            max_shard_bytes: None,
        };
        let mut writer = StreamWriter::create(&path, None, streamed).unwrap();
        views
            .iter()
            .for_each(|view| writer.push_view(view).unwrap());
        all.extend(read_all(&writer.finish().unwrap()));
        let background = BackgroundOptions {
            save: options,
            max_shard_bytes: Some(3 * max),
            memory_limit_bytes: Some(limit),
        };
        let pending =
            save_in_background(&path, &views, None, &background, Box::new(go_on), || {}).unwrap();
        all.extend(read_all(&pending.wait(None).unwrap().unwrap().unwrap()));
        all
    };
    let (saved, right) = (save(places), save(&[None]));
    assert_eq!(saved.len(), right.len(), "{places:?}");
    for (n, (saved, right)) in saved.iter().zip(&right).enumerate() {
        let differs = saved
            .iter()
            .zip(right)
            .position(|(saved, right)| saved != right);
        assert_eq!(
            (saved.len(), differs),
            (right.len(), None),
            "file {n} of {places:?}"
        );
    }
}

/// Tensors of a few slots' worth.
fn several(double: &Double) -> Tensors {
    Tensors::new(
        double,
        &[100, SLOT_BYTES + 1, 0, 5000, 2 * SLOT_BYTES, 3_000_000, 9],
    )
}

on_doubles! {
    fn every_way_to_save_writes_what_it_writes_from_the_host(double, "devices=2,delay_us=100,seed=3,scribble=1") {
        let size = prop_oneof![4 => 0..3000_usize, 2 => 100_000..2_000_000_usize, 1 => SLOT_BYTES - 70..SLOT_BYTES + 70];
        let place = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
        let strategy = (
            prop::collection::vec(size, 0..12),
            prop::collection::vec(place, 1..5),
            prop_oneof![Just(None), Just(Some(64)), Just(Some(4096))],
            prop_oneof![Just(0), Just(SLOT_BYTES as u64), Just(1 << 30)],
        );
        let run = TestRunner::new(ProptestConfig::with_cases(5)).run(&strategy, |(sizes, places, align, limit)| {
            let options = SaveOptions { align, durability: Durability::None };
            check_all(&Tensors::new(double, &sizes), &places, options, limit);
            Ok(())
        });
        run.unwrap();
        double.assert_clean();
    }

    fn a_ring_of_one_slot_is_enough(double, "devices=2,delay_us=100") {
        set_ring_limit(SLOT_BYTES as u64);
        check_all(&several(double), &[Some(0), Some(1), None], SaveOptions::default(), 1 << 30);
        assert_eq!(ring_usage().peak_in_use_bytes, SLOT_BYTES as u64);
        assert_eq!(ring_usage().pinned_bytes, SLOT_BYTES as u64);
        double.assert_clean();
    }

    fn the_next_bytes_are_fetched_while_these_are_written(double, "") {
        let tensors = Tensors::new(double, &[3 * SLOT_BYTES]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let name = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let saved = thread::scope(|scope| {
            let (views, path) = (tensors.views(&[Some(0)]), path.as_path());
            let writes = scope.spawn(move || save_views(path, &views, None, &QUICK, &mut go_on));
            let mut pipe = fs::File::open(path).unwrap();
            let mut saved = vec![0];
            pipe.read_exact(&mut saved).unwrap();
            // The first write has begun, and a pipe has no room for it.
            assert_eq!(double.n_calls("MemcpyAsync"), 2);
            pipe.read_to_end(&mut saved).unwrap();
            writes.join().unwrap().unwrap();
            saved
        });
        assert!(saved == tensors.file(&QUICK));
        drop(tensors);
        double.assert_clean();
    }

    fn tensors_may_be_overwritten_when_the_call_returns(double, "devices=2,delay_us=500") {
        let tensors = several(double);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let other: Vec<_> = tensors.bytes.iter().map(|bytes| vec![0xEE; bytes.len()]).collect();
        for limit in [0, 10 << 20, 1 << 30] {
            let options = BackgroundOptions { save: QUICK, max_shard_bytes: None, memory_limit_bytes: Some(limit) };
            let views = tensors.views(&[Some(0), Some(1)]);
            let pending = save_in_background(&path, &views, None, &options, Box::new(go_on), || {}).unwrap();
            (0..2).for_each(|device| tensors.write(double, device, &other));
            pending.wait(None).unwrap().unwrap().unwrap();
            assert!(fs::read(&path).unwrap() == tensors.file(&QUICK), "{limit}");
            (0..2).for_each(|device| tensors.write(double, device, &tensors.bytes));
        }
        double.assert_no_violation();
    }

    fn what_the_producing_stream_was_given_before_is_in_the_file(double, "delay_us=2000") {
        let tensors = Tensors::new(double, &[3_000_000]);
        let written = pattern(77, 3_000_000);
        let from = written.as_ptr().expose_provenance();
        assert_eq!(double.call("HostRegister", &[from, written.len(), 1]), 0);
        let producer = double.stream();
        double.configure("held=1");
        let to = tensors.buffers[0][0].address();
        assert_eq!(double.call("MemcpyAsync", &[to, from, written.len(), 1, producer]), 0);
        tensors.queues[0].begin_after(producer).unwrap();
        let file = thread::scope(|scope| {
            let views = tensors.views(&[Some(0)]);
            let saved = scope.spawn(move || serialize_views(&views, None, &QUICK));
            double.configure("held=0");
            saved.join().unwrap().unwrap()
        });
        assert!(file.ends_with(&written));
        assert_eq!(double.call("HostUnregister", &[from]), 0);
        double.assert_no_violation();
    }

    fn each_failure_of_the_runtime_leaves_the_old_file(double, "devices=2") {
        let tensors = several(double);
        let views = tensors.views(&[Some(0), Some(1), None, Some(1)]);
        let right = tensors.file(&QUICK);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let background = BackgroundOptions { save: QUICK, max_shard_bytes: None, memory_limit_bytes: Some(16 << 20) };
        for function in ["MemcpyAsync", "EventRecord", "EventSynchronize", "EventCreateWithFlags", "HostRegister"] {
            let mut n_failed = 0;
            for nth in 1..12 {
                fs::write(&path, b"old").unwrap();
                double.configure(&format!("fail={function}:{nth}:999"));
                let failure = |error: &tensorhold::Error| (error.kind(), error.to_string());
                let saved = match nth % 2 {
                    0 => save_views(&path, &views, None, &QUICK, &mut go_on).map_err(|error| failure(&error)),
                    _ => save_in_background(&path, &views, None, &background, Box::new(go_on), || {})
                        .and_then(|pending| pending.wait(None))
                        .map_err(|error| failure(&error))
                        .and_then(|outcome| outcome.unwrap().map(drop).map_err(|error| failure(&error))),
                };
                double.configure("fail=");
                match saved {
                    Ok(()) => assert!(fs::read(&path).unwrap() == right, "{function}:{nth}"),
                    Err((kind, text)) => {
                        n_failed += 1;
                        assert_eq!(kind, ErrorKind::Device, "{text}");
                        assert_eq!(fs::read(&path).unwrap(), b"old", "{function}:{nth}");
                    }
                }
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{function}:{nth}");
                assert_eq!(ring_usage().in_use_bytes, 0, "{function}:{nth}");
                tensorhold::release_ring();
            }
            assert!(n_failed > 0 || function == "HostRegister", "{function} never failed a save");
        }
        drop(views);
        drop(tensors);
        double.assert_clean();
    }

    fn a_tensor_that_came_in_part_spoils_its_stream_and_no_file(double, "") {
        let tensors = Tensors::new(double, &[10, 3 * SLOT_BYTES]);
        let views = tensors.views(&[Some(0)]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut writer = StreamWriter::create(&path, None, StreamOptions::default()).unwrap();
        writer.push_view(&views[0]).unwrap();
        double.configure("fail=MemcpyAsync:3:999");
        let error = writer.push_view(&views[1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        let error = writer.finish().unwrap_err();
        assert!(error.message().contains("written in part only"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        double.assert_no_violation();
    }
}
