//! Reads of files into device memory, and what their library would not forgive.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use std::ffi::c_int;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, process, thread};

use common::*;

const N: usize = 4096;

/// `CUfileDescr_t`.
#[repr(C)]
struct Description {
    kind: c_int,
    descriptor: usize,
    operations: usize,
}

/// A file of sevens, removed when it is dropped.
struct Sevens(PathBuf);

impl Sevens {
    fn new(name: &str) -> Sevens {
        let path = env::temp_dir().join(format!("tensorhold-double-{name}-{}", process::id()));
        fs::write(&path, [7; N]).unwrap();
        Sevens(path)
    }

    fn open(&self, flags: c_int) -> File {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(flags)
            .open(&self.0)
            .unwrap()
    }
}

impl Drop for Sevens {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn register(double: &Double, file: &File) -> Result<usize, c_int> {
    let mut handle = 0_usize;
    let description = Description {
        kind: 1,
        descriptor: usize::try_from(file.as_raw_fd()).unwrap(),
        operations: 0,
    };
    let places = [&raw mut handle as usize, &raw const description as usize];
    match double.call_symbol("cuFileHandleRegister", &places) {
        0 => Ok(handle),
        code => Err(code),
    }
}

fn read(double: &Double, handle: usize, address: usize, size: usize, position: usize) -> c_int {
    double.call_symbol("cuFileRead", &[handle, address, size, position, 0])
}

/// The double, started, with a file registered.
fn started(sevens: &Sevens) -> (Double, usize, File) {
    let double = Double::cuda("");
    assert_eq!(double.call_symbol("cuFileDriverOpen", &[]), 0);
    let file = sevens.open(libc::O_DIRECT);
    let handle = register(&double, &file).unwrap();
    (double, handle, file)
}

#[test]
fn a_read_gives_what_the_file_has() {
    let sevens = Sevens::new("read");
    let (double, handle, _file) = started(&sevens);
    let address = double.malloc(N).unwrap();
    assert_eq!(read(&double, handle, address, 100, 5), 100);
    assert_eq!(read(&double, handle, address, N, 4000), 96);
    assert_eq!(read(&double, handle, address, N, N), 0);
    let storage = &double.report()["storage"];
    assert_eq!(
        (&storage["reads"], &storage["bytes"]),
        (&3.into(), &196.into())
    );
    double.call_symbol("cuFileHandleDeregister", &[handle]);
    assert_eq!(double.report()["storage"]["files"], 0);
    assert!(double.violations().is_empty());
}

#[test]
fn what_the_library_refuses_is_refused() {
    let sevens = Sevens::new("refused");
    let (double, handle, _file) = started(&sevens);
    assert_eq!(register(&double, &sevens.open(0)), Err(5020));
    // It is started already.
    assert_eq!(double.call_symbol("cuFileSetParameterBool", &[1, 0]), 5026);
    let address = double.malloc(N).unwrap();
    assert_eq!(double.set_device(1), 0);
    assert_eq!(read(&double, handle, address, N, 0), -5015);
    assert!(double.violations().is_empty());
}

#[test]
fn a_library_starts_without_its_driver_unless_it_may_not() {
    let double = Double::cuda("gds=0");
    assert_eq!(double.call_symbol("cuFileSetParameterBool", &[1, 0]), 0);
    assert_eq!(double.call_symbol("cuFileDriverOpen", &[]), 5001);
    assert_eq!(double.call_symbol("cuFileSetParameterBool", &[1, 1]), 0);
    assert_eq!(double.call_symbol("cuFileDriverOpen", &[]), 0);
}

#[test]
fn a_read_of_no_file_is_noted() {
    let double = Double::cuda("");
    let address = double.malloc(N).unwrap();
    assert_eq!(read(&double, 0x1234, address, N, 0), -5027);
    double.assert_one_violation("read of file 0x1234, which is none");
}

#[test]
fn a_read_out_of_bounds_is_noted() {
    let sevens = Sevens::new("bounds");
    let (double, handle, _file) = started(&sevens);
    let address = double.malloc(N).unwrap();
    assert_eq!(read(&double, handle, address, N + 1, 0), -5022);
    double.assert_one_violation("leaves the allocation");
}

#[test]
fn a_read_under_a_copy_is_noted() {
    let sevens = Sevens::new("copy");
    let (double, handle, _file) = started(&sevens);
    let address = double.malloc(N).unwrap();
    let (stream, source) = (double.stream(), double.pinned(&[1; N]));
    double.configure("held=1");
    assert_eq!(double.copy(address, source, N, TO_DEVICE, stream), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            double.configure("held=0");
        });
        read(&double, handle, address, 10, 0);
    });
    double.assert_one_violation("under 1 copies");
}

#[test]
fn memory_that_is_freed_under_a_read_is_noted() {
    let sevens = Sevens::new("freed");
    let (double, handle, _file) = started(&sevens);
    let address = double.malloc(N).unwrap();
    double.configure("held=1");
    thread::scope(|scope| {
        let reading = scope.spawn(|| read(&double, handle, address, 10, 0));
        while double.report()["storage"]["reads"] == 0 {
            thread::yield_now();
        }
        double.free(address);
        double.configure("held=0");
        assert_eq!(reading.join().unwrap(), 10);
    });
    double.assert_one_violation("under 1 reads");
}
