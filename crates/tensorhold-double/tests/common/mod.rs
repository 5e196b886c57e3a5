//! The double as its users have it: loaded by its path, called by its symbols.

#![allow(dead_code, reason = "not every test file uses everything")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process, ptr};

use serde_json::Value;

pub const HOST_TO_HOST: c_int = 0;
pub const TO_DEVICE: c_int = 1;
pub const TO_HOST: c_int = 2;
pub const DEVICE_TO_DEVICE: c_int = 3;
pub const DEFAULT: c_int = 4;

pub const INVALID_VALUE: c_int = 1;
pub const MEMORY: c_int = 2;
pub const INITIALIZATION: c_int = 3;
pub const INVALID_DEVICE: c_int = 101;
pub const INVALID_HANDLE: c_int = 400;
pub const NOT_READY: c_int = 600;
pub const ALREADY_REGISTERED: c_int = 712;
pub const NOT_REGISTERED: c_int = 713;

/// A double of its own: each test loads another copy of the library, which has other state.
pub struct Double {
    handle: *mut c_void,
    prefix: &'static str,
}

// SAFETY: the handle is only used to look symbols up, which any thread may.
unsafe impl Send for Double {}
// SAFETY: as above.
unsafe impl Sync for Double {}

impl Double {
    pub fn cuda(configuration: &str) -> Double {
        let double = Double::load("cuda");
        assert_eq!(double.configure(configuration), 0, "{configuration}");
        double
    }

    pub fn load(prefix: &'static str) -> Double {
        static LOADED: AtomicU32 = AtomicU32::new(0);
        let number = LOADED.fetch_add(1, Ordering::Relaxed);
        let name = format!("tensorhold-double-{}-{number}.so", process::id());
        let path = env::temp_dir().join(name);
        fs::copy(tensorhold_double::library(), &path).unwrap();
        let handle = open(&path);
        fs::remove_file(&path).unwrap();
        Double { handle, prefix }
    }

    pub fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).unwrap();
        // SAFETY: the handle is open, and the name a C string.
        unsafe { libc::dlsym(self.handle, name.as_ptr()) }
    }

    fn call(&self, name: &str, arguments: &[usize]) -> c_int {
        let name = format!("{}{name}", self.prefix);
        self.call_symbol(&name, arguments)
    }

    /// Calls a function of integers and pointers. Each goes in a register or a word of the stack of its own, so
    /// that those given beyond the function's parameters do no harm.
    pub fn call_symbol(&self, name: &str, arguments: &[usize]) -> c_int {
        type Function =
            unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize, usize) -> c_int;
        let symbol = self.symbol(name);
        assert!(!symbol.is_null(), "{name} is not exported");
        // SAFETY: the C calling convention lets the caller clean up, and passes integers of all sizes alike.
        let function = unsafe { std::mem::transmute::<*mut c_void, Function>(symbol) };
        let mut words = [0; 8];
        words[..arguments.len()].copy_from_slice(arguments);
        let [a, b, c, d, e, f, g, h] = words;
        // SAFETY: each test passes what the function wants, or what it must refuse.
        unsafe { function(a, b, c, d, e, f, g, h) }
    }

    /// A call that gives a number of pointer size.
    fn made(&self, name: &str, arguments: &[usize]) -> Result<usize, c_int> {
        let mut place = 0_usize;
        let mut words = vec![ptr::from_mut(&mut place) as usize];
        words.extend_from_slice(arguments);
        match self.call(name, &words) {
            0 => Ok(place),
            code => Err(code),
        }
    }

    pub fn configure(&self, text: &str) -> c_int {
        let text = CString::new(text).unwrap();
        self.call_symbol("tensorhold_double_configure", &[text.as_ptr() as usize])
    }

    pub fn reset(&self) {
        self.call_symbol("tensorhold_double_reset", &[]);
    }

    pub fn report_text(&self) -> String {
        type Report = unsafe extern "C" fn(*mut c_char, usize) -> usize;
        let symbol = self.symbol("tensorhold_double_report");
        // SAFETY: that is the function's type.
        let report = unsafe { std::mem::transmute::<*mut c_void, Report>(symbol) };
        let mut text = vec![0_u8; 1 << 16];
        // SAFETY: the buffer is this long.
        let length = unsafe { report(text.as_mut_ptr().cast(), text.len()) };
        assert!(length < text.len());
        assert_eq!(text[length], 0);
        text.truncate(length);
        String::from_utf8(text).unwrap()
    }

    pub fn report(&self) -> Value {
        serde_json::from_str(&self.report_text()).unwrap()
    }

    pub fn violations(&self) -> Vec<String> {
        let report = self.report();
        let all = report["violations"].as_array().unwrap();
        assert_eq!(report["n_violations"], all.len());
        all.iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }

    #[track_caller]
    pub fn assert_one_violation(&self, words: &str) {
        let violations = self.violations();
        assert!(
            violations.len() == 1 && violations[0].contains(words),
            "{words:?} is not all of {violations:?}"
        );
    }

    pub fn set_device(&self, device: usize) -> c_int {
        self.call("SetDevice", &[device])
    }

    pub fn n_devices(&self) -> Result<i32, c_int> {
        self.number("GetDeviceCount", &[])
    }

    pub fn attribute(&self, attribute: usize, device: usize) -> Result<i32, c_int> {
        self.number("DeviceGetAttribute", &[attribute, device])
    }

    /// A call that gives an `int`.
    fn number(&self, name: &str, arguments: &[usize]) -> Result<i32, c_int> {
        let mut place: c_int = 0;
        let mut words = vec![ptr::from_mut(&mut place) as usize];
        words.extend_from_slice(arguments);
        match self.call(name, &words) {
            0 => Ok(place),
            code => Err(code),
        }
    }

    pub fn pci_bus_id(&self, device: usize) -> String {
        let mut text = [0_u8; 16];
        let place = text.as_mut_ptr() as usize;
        assert_eq!(
            self.call("DeviceGetPCIBusId", &[place, text.len(), device]),
            0
        );
        CStr::from_bytes_until_nul(&text)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub fn has_context(&self, device: usize) -> bool {
        let (mut flags, mut is_active) = (0_u32, 0_i32);
        let places = [
            ptr::from_mut(&mut flags) as usize,
            ptr::from_mut(&mut is_active) as usize,
        ];
        let name = "cuDevicePrimaryCtxGetState";
        assert_eq!(self.call_symbol(name, &[device, places[0], places[1]]), 0);
        is_active == 1
    }

    pub fn memory_info(&self) -> (usize, usize) {
        let mut total = 0_usize;
        let free = self.made("MemGetInfo", &[ptr::from_mut(&mut total) as usize]);
        (free.unwrap(), total)
    }

    /// The kind of a pointer and its device.
    pub fn pointer_kind(&self, address: usize) -> (c_int, c_int) {
        let mut attributes = [0_i32; 32];
        let place = attributes.as_mut_ptr() as usize;
        assert_eq!(self.call("PointerGetAttributes", &[place, address]), 0);
        (attributes[0], attributes[1])
    }

    pub fn take_last_error(&self) -> c_int {
        self.call("GetLastError", &[])
    }

    pub fn error_name(&self, code: c_int) -> String {
        self.text("GetErrorName", code)
    }

    pub fn error_text(&self, code: c_int) -> String {
        self.text("GetErrorString", code)
    }

    fn text(&self, name: &str, code: c_int) -> String {
        type Text = unsafe extern "C" fn(c_int) -> *const c_char;
        let symbol = self.symbol(&format!("{}{name}", self.prefix));
        // SAFETY: that is the function's type.
        let text = unsafe { std::mem::transmute::<*mut c_void, Text>(symbol) };
        // SAFETY: it takes every number, and gives a C string of the library's.
        let text = unsafe { CStr::from_ptr(text(code)) };
        text.to_str().unwrap().to_owned()
    }

    pub fn malloc(&self, size: usize) -> Result<usize, c_int> {
        self.made("Malloc", &[size])
    }

    pub fn free(&self, address: usize) -> c_int {
        self.call("Free", &[address])
    }

    pub fn malloc_async(&self, size: usize, stream: usize) -> Result<usize, c_int> {
        self.made("MallocAsync", &[size, stream])
    }

    pub fn free_async(&self, address: usize, stream: usize) -> c_int {
        self.call("FreeAsync", &[address, stream])
    }

    pub fn host_alloc(&self, size: usize) -> Result<usize, c_int> {
        let name = if self.prefix == "hip" {
            "HostMalloc"
        } else {
            "HostAlloc"
        };
        self.made(name, &[size, 0])
    }

    pub fn free_host(&self, address: usize) -> c_int {
        let name = if self.prefix == "hip" {
            "HostFree"
        } else {
            "FreeHost"
        };
        self.call(name, &[address])
    }

    pub fn register(&self, bytes: &[u8]) -> c_int {
        self.call("HostRegister", &[bytes.as_ptr() as usize, bytes.len(), 1])
    }

    pub fn unregister(&self, bytes: &[u8]) -> c_int {
        self.call("HostUnregister", &[bytes.as_ptr() as usize])
    }

    /// A stream that the default stream does not wait for.
    pub fn stream(&self) -> usize {
        self.made("StreamCreateWithFlags", &[1]).unwrap()
    }

    pub fn blocking_stream(&self) -> usize {
        self.made("StreamCreateWithFlags", &[0]).unwrap()
    }

    pub fn destroy_stream(&self, stream: usize) -> c_int {
        self.call("StreamDestroy", &[stream])
    }

    pub fn synchronize(&self, stream: usize) -> c_int {
        self.call("StreamSynchronize", &[stream])
    }

    pub fn query(&self, stream: usize) -> c_int {
        self.call("StreamQuery", &[stream])
    }

    pub fn synchronize_device(&self) -> c_int {
        self.call("DeviceSynchronize", &[])
    }

    pub fn event(&self) -> usize {
        self.made("EventCreateWithFlags", &[2]).unwrap()
    }

    pub fn record(&self, event: usize, stream: usize) -> c_int {
        self.call("EventRecord", &[event, stream])
    }

    pub fn wait_event(&self, stream: usize, event: usize) -> c_int {
        self.call("StreamWaitEvent", &[stream, event, 0])
    }

    pub fn query_event(&self, event: usize) -> c_int {
        self.call("EventQuery", &[event])
    }

    pub fn synchronize_event(&self, event: usize) -> c_int {
        self.call("EventSynchronize", &[event])
    }

    pub fn destroy_event(&self, event: usize) -> c_int {
        self.call("EventDestroy", &[event])
    }

    pub fn copy(&self, to: usize, from: usize, size: usize, kind: c_int, stream: usize) -> c_int {
        self.call("MemcpyAsync", &[to, from, size, kind as usize, stream])
    }

    pub fn copy_waited(&self, to: usize, from: usize, size: usize, kind: c_int) -> c_int {
        self.call("Memcpy", &[to, from, size, kind as usize])
    }

    pub fn copy_2d(&self, words: [usize; 6], kind: c_int, stream: usize) -> c_int {
        let [to, to_pitch, from, from_pitch, width, n_rows] = words;
        let kind = kind as usize;
        self.call(
            "Memcpy2DAsync",
            &[to, to_pitch, from, from_pitch, width, n_rows, kind, stream],
        )
    }

    /// Pinned memory that holds these bytes.
    pub fn pinned(&self, bytes: &[u8]) -> usize {
        let address = self.host_alloc(bytes.len()).unwrap();
        // SAFETY: it has just been allocated, this long.
        unsafe { (address as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        address
    }
}

fn open(path: &Path) -> *mut c_void {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path is a C string; the library runs nothing when it is loaded.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null());
    handle
}

/// The bytes at an address.
pub fn bytes_at(address: usize, length: usize) -> Vec<u8> {
    // SAFETY: each test gives memory of the double, which is host memory, or its own.
    unsafe { std::slice::from_raw_parts(address as *const u8, length) }.to_vec()
}
