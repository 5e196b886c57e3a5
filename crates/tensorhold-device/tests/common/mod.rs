//! Tests on the double, once as CUDA and once as HIP, each in a process of its own.

#![allow(dead_code, reason = "not every test file uses everything")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::{env, ptr};

use serde_json::Value;
use tensorhold_device::{Device, Runtime, Vendor, release_ring};

/// Says that this process is one that a test has started.
const MARK: &str = "TENSORHOLD_TEST_ON_DOUBLE";

/// A test that gets a double of each vendor, configured.
macro_rules! on_doubles {
    ($($(#[$attribute:meta])* fn $name:ident($double:ident, $configuration:expr) $body:block)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                common::run_on_doubles(stringify!($name), $configuration, |$double: &common::Double| $body);
            }
        )*
    };
}
pub(crate) use on_doubles;

/// Runs `body` in a process for each vendor; `name` is the test's.
pub fn run_on_doubles(name: &str, configuration: &str, body: impl FnOnce(&Double)) {
    let libraries = || {
        [
            tensorhold_double::library(),
            tensorhold_double::hip_library(),
        ]
    };
    run_on(name, libraries, configuration, body);
}

/// Runs `body` in a process for each of the runtimes that `libraries` gives.
pub fn run_on<const N: usize>(
    name: &str,
    libraries: impl FnOnce() -> [PathBuf; N],
    configuration: &str,
    body: impl FnOnce(&Double),
) {
    if env::var_os(MARK).is_some() {
        return body(&Double::new());
    }
    for library in libraries() {
        let run = Command::new(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--include-ignored"])
            .env(MARK, "1")
            .env("TENSORHOLD_RUNTIME", &library)
            .env("TENSORHOLD_DOUBLE", configuration)
            .output()
            .unwrap();
        let (out, err) = (text(&run.stdout), text(&run.stderr));
        let has_passed = run.status.success() && out.contains("1 passed");
        assert!(has_passed, "on {}:\n{out}{err}", library.display());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The double that this process has for a runtime.
pub struct Double {
    handle: *mut c_void,
    pub runtime: &'static Runtime,
}

// SAFETY: the handle is only used to look symbols up, which any thread may.
unsafe impl Sync for Double {}

impl Double {
    fn new() -> Double {
        let runtime = Runtime::find().unwrap();
        assert!(runtime.is_double());
        let path = CString::new(runtime.path()).unwrap();
        // SAFETY: the path is a C string, and the library is loaded already.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
        assert!(!handle.is_null());
        Double { handle, runtime }
    }

    pub fn device(&self, ordinal: usize) -> Device {
        self.runtime.device(ordinal).unwrap()
    }

    pub fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: the handle is open, and the name a C string.
        let symbol = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        assert!(!symbol.is_null());
        symbol
    }

    fn call_symbol(&self, name: &str, arguments: &[usize]) -> c_int {
        type Function = unsafe extern "C" fn(usize, usize, usize, usize, usize) -> c_int;
        // SAFETY: the C calling convention passes integers and pointers alike, and leaves it to the caller to clean up.
        let function = unsafe { std::mem::transmute::<*mut c_void, Function>(self.symbol(name)) };
        let mut words = [0; 5];
        words[..arguments.len()].copy_from_slice(arguments);
        let [a, b, c, d, e] = words;
        // SAFETY: each test passes what the function wants.
        unsafe { function(a, b, c, d, e) }
    }

    /// Calls a function of the runtime, as another part of the program would.
    pub fn call(&self, name: &str, arguments: &[usize]) -> c_int {
        let prefix = match self.runtime.vendor() {
            Vendor::Cuda => "cuda",
            Vendor::Hip => "hip",
        };
        self.call_symbol(&format!("{prefix}{name}"), arguments)
    }

    pub fn configure(&self, text: &str) {
        let text = CString::new(text).unwrap();
        let status = self.call_symbol(
            "tensorhold_double_configure",
            &[text.as_ptr().expose_provenance()],
        );
        assert_eq!(status, 0);
    }

    pub fn reset(&self) {
        self.call_symbol("tensorhold_double_reset", &[]);
    }

    pub fn report(&self) -> Value {
        type Report = unsafe extern "C" fn(*mut c_char, usize) -> usize;
        let symbol = self.symbol("tensorhold_double_report");
        // SAFETY: that is the function's type.
        let report = unsafe { std::mem::transmute::<*mut c_void, Report>(symbol) };
        // SAFETY: no buffer, of no bytes.
        let length = unsafe { report(ptr::null_mut(), 0) };
        // What other threads do meanwhile may make it longer.
        let mut text = vec![0_u8; length + 4096];
        // SAFETY: the buffer is this long.
        let written = unsafe { report(text.as_mut_ptr().cast(), text.len()) };
        serde_json::from_slice(&text[..written]).unwrap()
    }

    /// How often a function was called since the last reset.
    pub fn n_calls(&self, name: &str) -> u64 {
        self.report()["calls"][name].as_u64().unwrap_or(0)
    }

    #[track_caller]
    pub fn assert_no_violation(&self) {
        let report = self.report();
        assert_eq!(report["n_violations"], 0, "{}", report["violations"]);
    }

    /// Checks that nothing is alive once the ring is released, and nothing was done wrong.
    #[track_caller]
    pub fn assert_clean(&self) {
        // Copies that were sent last may be under way.
        for device in 0..self.runtime.n_devices().unwrap() {
            if self.report()["contexts"]
                .as_array()
                .unwrap()
                .contains(&device.into())
            {
                self.on_device(device, || {
                    assert_eq!(self.call("DeviceSynchronize", &[]), 0)
                });
            }
        }
        release_ring();
        self.assert_no_violation();
        assert_eq!(self.alive(), Alive::default());
        assert_eq!(self.report()["storage"]["files"], 0);
    }

    /// Runs `work` in a thread whose device this is.
    pub fn on_device<T: Send>(&self, device: usize, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let selected = || {
                // The first may be the call that a test lets fail.
                let selected = (0..2).any(|_| self.call("SetDevice", &[device]) == 0);
                assert!(selected);
                work()
            };
            scope.spawn(selected).join().unwrap()
        })
    }

    /// What is alive in the runtime.
    pub fn alive(&self) -> Alive {
        let report = self.report();
        let live = |value: &Value| value["live"].as_u64().unwrap();
        Alive {
            streams: live(&report["streams"]),
            events: live(&report["events"]),
            allocations: report["devices"].as_array().unwrap().iter().map(live).sum(),
            registrations: live(&report["pinned"]["registered"]),
            host_allocations: live(&report["pinned"]["allocated"]),
        }
    }

    /// A stream of the program.
    pub fn stream(&self) -> usize {
        let mut stream = 0_usize;
        let place = (&raw mut stream).expose_provenance();
        assert_eq!(self.call("StreamCreateWithFlags", &[place, 1]), 0);
        stream
    }

    /// The bytes of a device.
    pub fn read(&self, address: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0_u8; len];
        let to = bytes.as_mut_ptr().expose_provenance();
        if len > 0 {
            assert_eq!(self.call("Memcpy", &[to, address, len, 2]), 0);
        }
        bytes
    }

    /// Sets bytes of a device.
    pub fn write(&self, address: usize, bytes: &[u8]) {
        let from = bytes.as_ptr().expose_provenance();
        if !bytes.is_empty() {
            assert_eq!(self.call("Memcpy", &[address, from, bytes.len(), 1]), 0);
        }
    }
}

/// Lets copies happen when it is dropped, so that a test that fails ends.
pub struct Held<'a>(pub &'a Double);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.configure("held=0");
    }
}

/// What is alive in the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alive {
    pub streams: u64,
    pub events: u64,
    pub allocations: u64,
    pub registrations: u64,
    pub host_allocations: u64,
}

/// Bytes that differ from place to place.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let byte = |index: usize| ((index + seed * 7919).wrapping_mul(2_654_435_761) >> 13) as u8;
    (0..len).map(byte).collect()
}
