//! The functions of cuFile and hipFile, as their libraries export them.
//!
//! # Source
//! `cufile.h` of CUDA 11.4 to 13, `hipfile.h` of hipFile 0.2: the two have the same types as far as they are used here.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::{fmt, io, mem};

use tensorhold_core::{Error, ErrorKind};

use crate::runtime::Vendor;
use crate::sys::{Address, Lookup};

/// `CUfileHandle_t`, `hipFileHandle_t`: a file that is registered. It is never followed here.
pub(super) type FileHandle = usize;

/// `CUfileError_t`, `hipFileError_t`: what most functions return.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    /// 0 is success.
    pub code: c_int,
    /// The number of the device's driver, where the code says that it failed.
    pub driver_code: c_int,
}

/// The codes are from this one on; lower ones are the system's error numbers.
const FIRST_CODE: c_int = 5000;
/// `CU_FILE_CUDA_DRIVER_ERROR`, `hipFileHipDriverError`.
const DRIVER_FAILED: c_int = 5011;

/// `CU_FILE_HANDLE_TYPE_OPAQUE_FD`: a file descriptor.
const OF_DESCRIPTOR: c_int = 1;

/// `CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE`, and hipFile's.
pub(super) const ALLOW_COMPATIBILITY: c_int = 1;

/// `CUfileDescr_t`, `hipFileDescr_t`.
#[repr(C)]
pub(super) struct Description {
    kind: c_int,
    handle: DescribedFile,
    /// For file systems of one's own.
    operations: *const c_void,
}

#[repr(C)]
union DescribedFile {
    descriptor: c_int,
    /// Gives the union its size.
    _pointer: *const c_void,
}

impl Description {
    pub fn of(descriptor: c_int) -> Description {
        Description {
            kind: OF_DESCRIPTOR,
            handle: DescribedFile { descriptor },
            operations: std::ptr::null(),
        }
    }
}

/// The beginning of `CUfileDrvProps_t`, `hipFileDriverProps_t`, and room for the rest, in which the two differ.
#[repr(C)]
pub(super) struct Properties {
    /// Of the kernel module `nvidia-fs`; 0 where it is not loaded.
    pub major_version: c_uint,
    minor_version: c_uint,
    poll_threshold: usize,
    max_direct_size: usize,
    status_flags: c_uint,
    control_flags: c_uint,
    feature_flags: c_uint,
    rest: [c_uint; 127],
}

impl Properties {
    pub fn empty() -> Properties {
        Properties {
            major_version: 0,
            minor_version: 0,
            poll_threshold: 0,
            max_direct_size: 0,
            status_flags: 0,
            control_flags: 0,
            feature_flags: 0,
            rest: [0; 127],
        }
    }

    /// Whether reads may go through the host's memory where they cannot be direct (`CU_FILE_ALLOW_COMPAT_MODE`).
    pub fn allows_compatibility(&self) -> bool {
        self.control_flags & 1 << 1 != 0
    }

    /// Whether all reads go through the host's memory (`CU_FILE_POSIX_IO_MODE`).
    pub fn is_posix(&self) -> bool {
        self.control_flags & 1 << 2 != 0
    }

    /// Whether there are direct reads without the kernel module (`CU_FILE_P2P_SUPPORTED`).
    pub fn has_peer_reads(&self) -> bool {
        self.feature_flags & 1 << 4 != 0
    }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $cuda:literal, $hip:literal;)*) => {
        /// The functions of one library.
        pub(super) struct Functions {
            pub vendor: Vendor,
            $($(#[$doc])* pub $name: $type,)*
            /// Sets a parameter, before the driver is opened; older libraries do not have it.
            pub set_flag: Option<unsafe extern "C" fn(c_int, bool) -> Status>,
            /// hipFile's words for a code; cuFile has no such function.
            error_string: Option<unsafe extern "C" fn(c_int) -> *const c_char>,
        }

        impl Functions {
            /// Looks all functions up.
            ///
            /// # Errors
            /// The name of the first that there is not.
            ///
            /// # Safety
            /// What `lookup` finds under a library's name is that library's function, and stays loaded for ever.
            pub unsafe fn load(vendor: Vendor, lookup: Lookup<'_>) -> Result<Functions, &'static str> {
                let find = |cuda: &'static str, hip: &'static str| {
                    let name = vendor.choose(cuda, hip);
                    lookup(name).ok_or(name)
                };
                let set_flag = lookup(vendor.choose("cuFileSetParameterBool", "hipFileSetParameterBool"));
                let error_string = lookup(vendor.choose("", "hipFileGetOpErrorString"));
                Ok(Functions {
                    vendor,
                    $(
                        // SAFETY: by the library's documentation these are the types of its functions, and a pointer to a
                        // function is as wide as one to data.
                        $name: unsafe { mem::transmute::<*mut c_void, $type>(find($cuda, $hip)?) },
                    )*
                    // SAFETY: as above.
                    set_flag: set_flag.map(|address| unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, bool) -> Status>(address) }),
                    // SAFETY: as above.
                    error_string: error_string.map(|address| unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> *const c_char>(address) }),
                })
            }
        }
    };
}

functions! {
    /// Starts the library.
    open_driver: unsafe extern "C" fn() -> Status = "cuFileDriverOpen", "hipFileDriverOpen";
    /// Writes what the library can do, and is set to.
    driver_properties: unsafe extern "C" fn(*mut Properties) -> Status = "cuFileDriverGetProperties", "hipFileDriverGetProperties";
    /// Makes an open file known.
    register: unsafe extern "C" fn(*mut FileHandle, *mut Description) -> Status = "cuFileHandleRegister", "hipFileHandleRegister";
    /// Forgets it; the file stays open.
    deregister: unsafe extern "C" fn(FileHandle) = "cuFileHandleDeregister", "hipFileHandleDeregister";
    /// Reads into memory of a device: the handle, the address, how many bytes, from where in the file, and how far behind the
    /// address. It gives how many bytes were read, or -1 and `errno`, or a negative code.
    read: unsafe extern "C" fn(FileHandle, Address, usize, libc_off_t, libc_off_t) -> isize = "cuFileRead", "hipFileRead";
}

/// `off_t`, where there are devices.
#[allow(non_camel_case_types, reason = "it is C's")]
pub(super) type libc_off_t = i64;

impl Functions {
    /// The error for what `function` returned.
    ///
    /// # Errors
    /// `Device` unless it is success.
    pub fn check(&self, status: Status, function: &str) -> Result<(), Error> {
        match status {
            Status { code: 0, .. } => Ok(()),
            Status {
                code: DRIVER_FAILED,
                driver_code,
            } => Err(failed(
                function,
                format_args!("the driver of the device failed (code {driver_code})"),
            )),
            Status { code, .. } => Err(self.failure(code, function)),
        }
    }

    /// The error for a code that `function` gave.
    pub fn failure(&self, code: c_int, function: &str) -> Error {
        match code {
            ..=FIRST_CODE => failed(function, io::Error::from_raw_os_error(code)),
            _ => failed(function, format_args!("{} (code {code})", self.text(code))),
        }
    }

    fn text(&self, code: c_int) -> String {
        let Some(error_string) = self.error_string else {
            return self.vendor.choose(text(code), "no text").to_owned();
        };
        // SAFETY: every number is allowed.
        let text = unsafe { error_string(code) };
        if text.is_null() {
            return "no text".to_owned();
        }
        // SAFETY: the library gives texts that end with a zero and live as long as it, which stays loaded.
        let text = unsafe { CStr::from_ptr(text) };
        text.to_string_lossy().into_owned()
    }
}

fn failed(function: &str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Device, format!("`{function}` failed: {why}"))
}

/// What cuFile's codes mean; its own words are in its header only.
fn text(code: c_int) -> &'static str {
    match code {
        5001 => "its kernel driver is not loaded",
        5004 | 5005 => "its kernel driver is of another version",
        5006 => "it is being shut down",
        5007 => "this machine is not supported",
        5008 => "the file system of the file is not supported",
        5009 => "the device is not supported",
        5010 | 5048 => "its kernel driver refused",
        5012 | 5024 => "the address is not of a device",
        5013 => "this kind of device memory is not supported",
        5014 => "the memory ends before the bytes do",
        5015 | 5047 => "the memory is of another context",
        5016 | 5017 | 5036 => "the memory cannot be pinned",
        5018 => "this kind of file is not supported",
        5019 | 5020 => "the file is not open for direct reads",
        5022 => "an argument is not allowed",
        5025 => "permission denied",
        5027 => "the file is not registered",
        5028 => "the file is registered already",
        5029 => "the device was not found",
        5030 => "internal error",
        5033 => "its kernel driver cannot be set up",
        5034 => "it is disabled for this file",
        5043 => "out of memory",
        5044 => "the file cannot be read",
        _ => "no text",
    }
}
