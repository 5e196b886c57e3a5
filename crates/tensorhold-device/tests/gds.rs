//! Reads from files into devices, by the double's cuFile and hipFile.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "one part is a case like others"
)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use common::{Double, on_doubles, pattern};
use tempfile::NamedTempFile;
use tensorhold_core::{ErrorKind, Result};
use tensorhold_device::{CopyQueue, DeviceBuffer, Storage, StorageFile, Vendor};

const FILE_BYTES: usize = 100_000;

/// A file that holds a pattern.
fn file() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), pattern(1, FILE_BYTES)).unwrap();
    file
}

fn open_direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_DIRECT);
    options.open(path).unwrap()
}

fn register(double: &Double, path: &Path) -> Result<StorageFile> {
    let device = double.device(0);
    StorageFile::register(Storage::find(device)?, open_direct(path), device)
}

/// Reads `len` bytes from `position` on into a part of a buffer that begins `before` bytes behind its start.
fn read(
    registered: &StorageFile,
    queue: &Arc<CopyQueue>,
    position: usize,
    len: usize,
    before: usize,
) -> Result<DeviceBuffer> {
    let buffer = queue.allocate((before + len + 10) as u64)?;
    let mut parts = buffer.split(&[before..before + len]);
    registered.read(position as u64, &parts[0])?;
    Ok(parts.remove(0).join().unwrap())
}

fn name(double: &Double, call: &str) -> String {
    match double.runtime.vendor() {
        Vendor::Cuda => format!("`cu{call}`"),
        Vendor::Hip => format!("`hip{call}`"),
    }
}

/// What the first call that needs a working library says.
fn refusal(double: &Double) -> String {
    let queue = CopyQueue::new(double.device(0)).unwrap();
    let error = Storage::find(queue.device()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    error.message().to_owned()
}

#[test]
fn a_runtime_without_the_library_says_what_was_tried() {
    let folder = tempfile::tempdir().unwrap();
    let without = || {
        let mut library = fs::read(tensorhold_double::library()).unwrap();
        let name = b"cuFileRead";
        let found: Vec<usize> = library
            .windows(name.len())
            .enumerate()
            .filter(|(_, bytes)| bytes == name)
            .map(|(at, _)| at)
            .collect();
        for at in found {
            library[at..at + name.len()].fill(b'x');
        }
        let path = folder.path().join("libcudart.so");
        fs::write(&path, library).unwrap();
        [path]
    };
    let test = "a_runtime_without_the_library_says_what_was_tried";
    common::run_on(test, without, "", |double| {
        let error = refusal(double);
        // A machine may have the library, but no driver and no device for it.
        let is_named = error.starts_with("no cuFile was found; tried `libcufile.so.0` (");
        assert!(
            is_named || error.starts_with("`cuFileDriverOpen` failed: "),
            "{error}"
        );
    });
}

on_doubles! {
    fn any_bytes_arrive_at_any_place(double, "latency_us=50") {
        let file = file();
        for device in [0, 1] {
            let queue = CopyQueue::new(double.device(device)).unwrap();
            let registered = register(double, file.path()).unwrap();
            for (position, len, before) in [
                (0, FILE_BYTES, 0), (4096, 8192, 256), (1, 1, 3), (77, 40_001, 100), (99_999, 1, 0), (500, 0, 0),
            ] {
                let buffer = read(&registered, &queue, position, len, before).unwrap();
                let bytes = double.on_device(device, || double.read(buffer.address() + before, len));
                assert!(bytes == pattern(1, FILE_BYTES)[position..position + len], "{len} from {position}");
            }
        }
        assert_eq!(double.report()["storage"]["files"], 0);
        double.assert_clean();
    }

    fn threads_read_at_once(double, "latency_us=200") {
        let file = file();
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let registered = register(double, file.path()).unwrap();
        let ranges: Vec<_> = (0..50).map(|n| n * 2000..(n + 1) * 2000).collect();
        let parts = queue.allocate(FILE_BYTES as u64).unwrap().split(&ranges);
        let address = parts[0].address();
        let joined = std::thread::scope(|scope| {
            let registered = &registered;
            let read = |part: tensorhold_device::DevicePart| {
                move || {
                    registered.read((part.address() - address) as u64, &part).unwrap();
                    part.join()
                }
            };
            let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(read(part))).collect();
            threads.into_iter().find_map(|thread| thread.join().unwrap())
        });
        assert!(double.read(joined.unwrap().address(), FILE_BYTES) == pattern(1, FILE_BYTES));
        drop(registered);
        double.assert_no_violation();
    }

    fn short_reads_are_carried_on(double, "gds_most=777") {
        let file = file();
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let registered = register(double, file.path()).unwrap();
        let buffer = read(&registered, &queue, 10, 5000, 0).unwrap();
        assert!(double.read(buffer.address(), 5000) == pattern(1, FILE_BYTES)[10..5010]);
        assert_eq!(double.n_calls("FileRead"), 7);
    }

    fn a_file_that_ends_too_early_is_told(double, "") {
        let file = file();
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let registered = register(double, file.path()).unwrap();
        for position in [FILE_BYTES - 99, FILE_BYTES, FILE_BYTES + 5000] {
            let error = read(&registered, &queue, position, 100, 0).unwrap_err();
            assert_eq!(error.message(), "the file ended before its bytes did");
        }
        drop((registered, queue));
        double.assert_clean();
    }

    fn a_file_that_is_not_open_for_direct_reads_is_refused(double, "") {
        let device = double.device(0);
        let _queue = CopyQueue::new(device).unwrap();
        let storage = Storage::find(device).unwrap();
        let error = StorageFile::register(storage, File::open(file().path()).unwrap(), device).unwrap_err();
        assert!(error.message().starts_with(&name(double, "FileHandleRegister")), "{error}");
        assert!(error.message().ends_with("(code 5020)"), "{error}");
    }

    fn each_call_that_fails_is_named(double, "") {
        let file = file();
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let works = || read(&register(double, file.path())?, &queue, 7, 9000, 0);
        // The driver is opened once; what tells of it may fail.
        double.configure("fail=FileDriverOpen:1:5007");
        let error = works().unwrap_err();
        assert!(error.message().starts_with(&name(double, "FileDriverOpen")), "{error}");
        assert!(error.message().ends_with("(code 5007)"), "{error}");
        for (call, code, words) in [
            ("FileHandleRegister", 5008, "(code 5008)"),
            ("FileHandleRegister", 24, "Too many open files (os error 24)"),
            ("FileRead", 5030, "(code 5030)"),
            ("FileRead", 5, "Input/output error (os error 5)"),
        ] {
            double.configure(&format!("fail={call}:1:{code}"));
            let error = works().unwrap_err();
            assert!(error.message().starts_with(&format!("{} failed: ", name(double, call))), "{error}");
            assert!(error.message().ends_with(words), "{error}");
            assert_eq!(error.kind(), ErrorKind::Device);
            works().unwrap();
        }
        // A read that goes on fails as well.
        double.configure("gds_most=1000,fail=FileRead:3:5044");
        assert!(works().unwrap_err().message().contains("5044"));
        double.configure("fail=FileHandleDeregister:0:5030");
        works().unwrap();
        double.assert_no_violation();
    }

    fn a_read_begins_after_what_the_consumer_was_given_before(double, "") {
        let file = file();
        let registered = register(double, file.path()).unwrap();
        let programs = [double.stream(), double.stream()];
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let kept = queue.allocate(9000).unwrap();
        let old = pattern(100, 9000);
        double.write(kept.address(), &old);
        let mut seen = vec![0_u8; 9000];
        let to = seen.as_mut_ptr().expose_provenance();
        assert_eq!(double.call("HostRegister", &[to, seen.len(), 1]), 0);
        double.configure("held=1");
        assert_eq!(double.call("MemcpyAsync", &[to, kept.address(), seen.len(), 2, programs[0]]), 0);
        queue.begin_after(programs[0]).unwrap();
        // What is recorded last is nothing that the memory is used by.
        queue.begin_after(programs[1]).unwrap();
        let parts = kept.split(&[0..9000]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                double.configure("held=0");
            });
            registered.read(5, &parts[0]).unwrap();
        });
        assert_eq!(double.call("StreamSynchronize", &[programs[0]]), 0);
        assert!(seen == old);
        assert!(double.read(parts[0].address(), 9000) == pattern(1, FILE_BYTES)[5..9005]);
        // It has waited for them, and need not again.
        let n_waits = double.n_calls("StreamSynchronize");
        registered.read(6, &parts[0]).unwrap();
        assert_eq!(double.n_calls("StreamSynchronize"), n_waits);
        assert_eq!(double.call("HostUnregister", &[to]), 0);
        double.assert_no_violation();
    }

    fn cufile_is_forbidden_to_go_through_the_host_and_hipfile_does_not_say(double, "") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let storage = Storage::find(queue.device()).unwrap();
        match double.runtime.vendor() {
            Vendor::Cuda => assert_eq!((storage.is_direct(), storage.doubt()), (Some(true), None)),
            Vendor::Hip => {
                assert_eq!(storage.is_direct(), None);
                assert!(storage.doubt().unwrap().contains("`HIPFILE_ALLOW_COMPAT_MODE=false`"));
            }
        }
    }

    fn a_library_that_somebody_else_has_started_is_not_vouched_for(double, "gds_compat=1") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let storage = Storage::find(queue.device()).unwrap();
        assert_eq!(storage.is_direct(), None);
        assert!(storage.doubt().is_some());
    }

    fn a_library_that_tells_nothing_is_not_vouched_for(double, "fail=FileDriverGetProperties:0:5030") {
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let storage = Storage::find(queue.device()).unwrap();
        assert_eq!(storage.is_direct(), None);
        assert!(storage.doubt().is_some());
    }

    fn a_machine_without_the_driver_is_refused(double, "gds=0") {
        let error = refusal(double);
        assert!(error.starts_with(&name(double, "FileDriverOpen")), "{error}");
        // It may be there later.
        double.configure("gds=1");
        Storage::find(double.device(0)).unwrap();
    }

    fn a_library_that_would_go_through_the_host_is_refused(double, "gds=0,gds_compat=1") {
        let error = refusal(double);
        if double.runtime.vendor() == Vendor::Cuda {
            assert_eq!(error, "the kernel module nvidia-fs is not loaded");
        }
    }

    fn a_library_that_closes_the_standard_input_has_done_so_for_nothing(double, "gds=0,gds_closes=1") {
        let input = || fs::read_link("/proc/self/fd/0").unwrap();
        let before = input();
        refusal(double);
        assert_eq!(input(), before);
    }

    fn a_child_is_refused(double, "") {
        let file = file();
        let queue = CopyQueue::new(double.device(0)).unwrap();
        let registered = register(double, file.path()).unwrap();
        // SAFETY: the child uses no thread or lock of the parent's but the allocator's, which the C library sees to, and ends
        // without going back.
        match unsafe { libc::fork() } {
            0 => {
                let is_refused = Storage::find(queue.device()).is_err();
                drop(registered);
                let is_untouched = double.report()["n_violations"] == 0;
                // SAFETY: it does not return.
                unsafe { libc::_exit(i32::from(!(is_refused && is_untouched))) }
            }
            child => {
                let mut status = -1;
                // SAFETY: `status` is alive and of the kind that is written.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
        let buffer = read(&registered, &queue, 0, 10, 0).unwrap();
        assert!(double.read(buffer.address(), 10) == pattern(1, FILE_BYTES)[..10]);
    }
}
