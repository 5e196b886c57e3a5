//! cuFile and hipFile: reads of files into device memory, in the calling thread.
//!
//! hipFile's is as AMD's: nothing can be set, and it tells no properties.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::call::{Kind, give, run};
use crate::copy::Way;
use crate::error::{Code, Result};
use crate::memory::Side;
use crate::pace::Pace;
use crate::ranges::overlap;
use crate::state::{State, state};

const NOT_STARTED: Code = Code(5001);
const NOT_DIRECT: Code = Code(5020);
const INVALID: Code = Code(5022);
const ALREADY_STARTED: Code = Code(5026);
const NOT_REGISTERED: Code = Code(5027);
const OTHER_CONTEXT: Code = Code(5015);
const INTERNAL: Code = Code(5030);

/// `CU_FILE_HANDLE_TYPE_OPAQUE_FD`.
const OF_DESCRIPTOR: c_int = 1;
/// `CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE`.
const ALLOW_COMPATIBILITY: c_int = 1;

/// What cuFile keeps.
pub(crate) struct Storage {
    is_started: bool,
    allows_compatibility: bool,
    files: HashMap<usize, Arc<Mutex<File>>>,
    /// Where reads write that are under way.
    reads: BTreeMap<u64, Range<usize>>,
    pub n_reads: u64,
    pub n_bytes: u64,
}

impl Storage {
    pub(crate) fn new() -> Storage {
        Storage {
            is_started: false,
            allows_compatibility: true,
            files: HashMap::new(),
            reads: BTreeMap::new(),
            n_reads: 0,
            n_bytes: 0,
        }
    }

    pub(crate) fn n_files(&self) -> usize {
        self.files.len()
    }

    /// How many reads are under way that write to some of the range.
    pub(crate) fn n_reads_into(&self, range: &Range<usize>) -> usize {
        let into = self.reads.values().filter(|read| overlap(read, range));
        into.count()
    }

    /// Forgets what was counted. The library stays as it was started, and files stay registered.
    pub(crate) fn forget_counts(&mut self) {
        (self.n_reads, self.n_bytes) = (0, 0);
    }
}

/// `CUfileError_t`.
#[repr(C)]
pub(crate) struct Status {
    code: c_int,
    driver_code: c_int,
}

impl From<Result> for Status {
    fn from(result: Result) -> Status {
        Status {
            code: result.map_or_else(|code| code.0, |()| 0),
            driver_code: 0,
        }
    }
}

/// What `FileRead` returns: bytes, or -1 and `errno`, or a negative code.
#[repr(transparent)]
pub(crate) struct Count(isize);

impl From<Result<usize>> for Count {
    fn from(result: Result<usize>) -> Count {
        Count(match result {
            Ok(n) => n as isize,
            Err(Code(code @ 5000..)) => -(code as isize),
            Err(Code(code)) => {
                set_errno(code);
                -1
            }
        })
    }
}

macro_rules! exports {
    ($($name:ident [$($symbol:ident)+] $parameters:tt -> $answer:ty { $own:expr })+) => {
        /// The names that calls are counted by: CUDA's, without their prefix.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),+];

        $($(exports! { @one $symbol $name $parameters $answer, $own })+)+
    };
    (@one $symbol:ident $name:ident ($($parameter:ident: $type:ty),*) $answer:ty, $own:expr) => {
        // SAFETY: the symbol is cuFile's or hipFile's, which the library stands in for; nothing else of ours has it.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "the names are the vendors'")]
        pub(crate) unsafe extern "C" fn $symbol($($parameter: $type),*) -> $answer {
            run(stringify!($name), Kind::Query, || $own).into()
        }
    };
}

exports! {
    FileDriverOpen [cuFileDriverOpen] () -> Status { start(Compatibility::AsSet) }
    FileDriverOpen [hipFileDriverOpen] () -> Status { start(Compatibility::None) }
    FileDriverGetProperties [cuFileDriverGetProperties] (place: *mut Properties) -> Status { properties(place) }
    FileDriverGetProperties [hipFileDriverGetProperties] (_place: *mut c_void) -> Status { Err(INTERNAL) }
    FileSetParameterBool [cuFileSetParameterBool] (parameter: c_int, value: bool) -> Status { set_flag(parameter, value) }
    FileSetParameterBool [hipFileSetParameterBool] (_parameter: c_int, _value: bool) -> Status { Err(INTERNAL) }
    FileHandleRegister [cuFileHandleRegister hipFileHandleRegister]
        // SAFETY: the caller gives a description, as the library wants it, or null.
        (place: *mut usize, description: *const Description) -> Status { register(place, unsafe { description.as_ref() }) }
    // Its callers take nothing, and leave what a register holds.
    FileHandleDeregister [cuFileHandleDeregister hipFileHandleDeregister] (handle: usize) -> Status { deregister(handle) }
    FileRead [cuFileRead hipFileRead]
        (handle: usize, address: usize, size: usize, position: i64, offset: i64) -> Count {
            read(handle, address, size, position, offset)
        }
}

/// Whether a library starts without a driver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compatibility {
    AsSet,
    None,
}

fn start(compatibility: Compatibility) -> Result {
    let mut state = state();
    let is_allowed = compatibility == Compatibility::AsSet && state.storage.allows_compatibility;
    if state.config.has_storage || is_allowed {
        state.storage.is_started = true;
        return Ok(());
    }
    if state.config.closes_input {
        close_input();
    }
    Err(NOT_STARTED)
}

/// The beginning of `CUfileDrvProps_t`.
#[repr(C)]
pub(crate) struct Properties {
    major_version: c_uint,
    minor_version: c_uint,
    poll_threshold: usize,
    max_direct_size: usize,
    status_flags: c_uint,
    control_flags: c_uint,
    feature_flags: c_uint,
}

fn properties(place: *mut Properties) -> Result {
    let state = state();
    let properties = Properties {
        major_version: 2 * c_uint::from(state.config.has_storage),
        minor_version: 0,
        poll_threshold: 4,
        max_direct_size: 16384,
        status_flags: 0,
        control_flags: c_uint::from(state.storage.allows_compatibility) << 1,
        feature_flags: 0,
    };
    give(place, properties).map_err(|_| INVALID)
}

fn set_flag(parameter: c_int, value: bool) -> Result {
    let mut state = state();
    if state.storage.is_started || state.config.keeps_compatibility {
        return Err(ALREADY_STARTED);
    }
    if parameter == ALLOW_COMPATIBILITY {
        state.storage.allows_compatibility = value;
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy)]
union DescribedFile {
    descriptor: c_int,
    _pointer: *const c_void,
}

/// `CUfileDescr_t` of a descriptor.
#[repr(C)]
pub(crate) struct Description {
    kind: c_int,
    handle: DescribedFile,
    _operations: usize,
}

fn register(place: *mut usize, description: Option<&Description>) -> Result {
    let description = description.ok_or(INVALID)?;
    if description.kind != OF_DESCRIPTOR {
        return Err(INVALID);
    }
    // SAFETY: it is a descriptor, as the kind says.
    let descriptor = unsafe { description.handle.descriptor };
    if !is_direct(descriptor) {
        return Err(NOT_DIRECT);
    }
    // Once more, for reads that may begin and end anywhere.
    let file = File::open(format!("/proc/self/fd/{descriptor}"));
    let file = file.map_err(|_| INVALID)?;
    let mut state = state();
    if !state.storage.is_started {
        return Err(NOT_STARTED);
    }
    let handle = state.new_handle();
    give(place, handle).map_err(|_| INVALID)?;
    let files = &mut state.storage.files;
    files.insert(handle, Arc::new(Mutex::new(file)));
    Ok(())
}

fn deregister(handle: usize) -> Result {
    let mut state = state();
    if state.storage.files.remove(&handle).is_none() {
        state.violation(format!("file {handle:#x} deregistered, which is none"));
    }
    Ok(())
}

fn read(handle: usize, address: usize, size: usize, position: i64, offset: i64) -> Result<usize> {
    let (number, file, range) = {
        let mut state = state();
        let Some(file) = state.storage.files.get(&handle).map(Arc::clone) else {
            state.violation(format!("read of file {handle:#x}, which is none"));
            return Err(NOT_REGISTERED);
        };
        let size = size.min(state.config.most_read_bytes);
        let range = state.read_range(address, offset, size)?;
        let storage = &mut state.storage;
        storage.n_reads += 1;
        let number = storage.n_reads;
        storage.reads.insert(number, range.clone());
        (number, file, range)
    };
    let position = u64::try_from(position).map_err(|_| INVALID);
    let mut n_read = position.and_then(|position| fetch(&file, position, &range));
    let mut state = state();
    state.storage.reads.remove(&number);
    if let Ok(n) = &mut n_read {
        state.storage.n_bytes += *n as u64;
    }
    n_read
}

impl State {
    /// The addresses that a read writes to, if it may.
    fn read_range(&mut self, address: usize, offset: i64, size: usize) -> Result<Range<usize>> {
        let start = usize::try_from(offset).ok();
        let start = start.and_then(|offset| address.checked_add(offset));
        let end = start.and_then(|start| start.checked_add(size));
        let range = start.zip(end).map(|(start, end)| start..end);
        let range = range.filter(|_| address != 0).ok_or(INVALID)?;
        let side = self.side(&range, "to").map_err(|_| INVALID)?;
        if matches!(side, Side::Device(device) if device != crate::device::current()) {
            return Err(OTHER_CONTEXT);
        }
        if matches!(side, Side::Pinned | Side::ReadOnly) {
            self.violation(format!(
                "read of a file to pinned memory at {:#x}",
                range.start
            ));
        }
        let n_copies = self.flights_over(&range).len();
        if n_copies > 0 {
            self.violation(format!(
                "read of a file to {:#x} under {n_copies} copies",
                range.start
            ));
        }
        Ok(range)
    }
}

/// Reads into memory of a device, which takes as long as a copy there.
fn fetch(file: &Mutex<File>, position: u64, range: &Range<usize>) -> Result<usize> {
    let mut bytes = Vec::new();
    {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let sought = file.seek(SeekFrom::Start(position));
        let most = range.len() as u64;
        let read = sought.and_then(|_| (&mut *file).take(most).read_to_end(&mut bytes));
        read.map_err(|error| Code(error.raw_os_error().unwrap_or(INTERNAL.0)))?;
    }
    let device = crate::device::current();
    let to = range.start as *mut u8;
    Pace::new().copy(device, Way::HostToDevice, bytes.len() as u64, || {
        // SAFETY: the caller vouches for the memory until the call returns, and what the double knows of it was checked.
        unsafe { to.copy_from(bytes.as_ptr(), bytes.len()) };
    });
    Ok(bytes.len())
}

/// Whether a file was opened to be read past the page cache.
#[cfg(target_os = "linux")]
fn is_direct(descriptor: c_int) -> bool {
    // SAFETY: the command takes numbers, and refuses a descriptor that is not open.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_DIRECT != 0
}

#[cfg(not(target_os = "linux"))]
fn is_direct(_descriptor: c_int) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn set_errno(code: c_int) {
    // SAFETY: it is the place of this thread's error number.
    unsafe { *libc::__errno_location() = code };
}

#[cfg(not(target_os = "linux"))]
fn set_errno(_code: c_int) {}

/// As cuFile does where it cannot start.
#[cfg(target_os = "linux")]
fn close_input() {
    // SAFETY: a test has asked for it.
    unsafe { libc::close(0) };
}

#[cfg(not(target_os = "linux"))]
fn close_input() {}
