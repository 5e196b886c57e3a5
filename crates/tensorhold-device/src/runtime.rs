//! The runtime of the process: which library it is, and how many devices it has.

mod search;

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use tensorhold_core::{Error, ErrorKind, Result};

use crate::device::Device;
use crate::fork;
use crate::platform::Library;
use crate::result::Failure;
use crate::sys::{self, Functions, Status};

/// Whose runtime it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// NVIDIA's CUDA.
    Cuda,
    /// AMD's HIP.
    Hip,
}

impl Vendor {
    pub(crate) fn choose<T>(self, cuda: T, hip: T) -> T {
        match self {
            Vendor::Cuda => cuda,
            Vendor::Hip => hip,
        }
    }
}

/// A runtime for devices, found once in a process.
pub struct Runtime {
    functions: Functions,
    library: Library,
    path: String,
    /// Looked up when it is first needed, for that may start the driver.
    context_state: OnceLock<Option<ContextState>>,
}

/// `cuDevicePrimaryCtxGetState`, `hipDevicePrimaryCtxGetState`: the flags of a device's context, and whether there is one.
type ContextState = unsafe extern "C" fn(c_int, *mut c_uint, *mut c_int) -> Status;

static FOUND: Mutex<Option<&'static Runtime>> = Mutex::new(None);

impl Runtime {
    /// The runtime of this process: the library that `TENSORHOLD_RUNTIME` names, or else one that the process has loaded
    /// already (as PyTorch does), or else the system's. Once found it stays; a failure is not kept.
    ///
    /// # Errors
    /// `Device` where there is none, with what was tried; where the library that `TENSORHOLD_RUNTIME` names is none; or in
    /// a child of a process that has used devices.
    pub fn find() -> Result<&'static Runtime> {
        fork::check()?;
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = *found {
            return Ok(runtime);
        }
        let runtime: &'static Runtime = Box::leak(Box::new(search::find()?));
        *found = Some(runtime);
        Ok(runtime)
    }

    /// Whose runtime it is.
    #[must_use]
    pub fn vendor(&self) -> Vendor {
        self.functions.vendor
    }

    /// The path or the name that its library was loaded by.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its version as it counts them, such as 12040 for CUDA 12.4; 0 where it does not say.
    #[must_use]
    pub fn version(&self) -> i32 {
        let mut version = 0;
        if fork::enter().is_err() {
            return 0;
        }
        // SAFETY: `version` is alive and of the type that is written.
        let asked = unsafe { self.functions.runtime_get_version(&raw mut version) };
        asked.map_or(0, |()| version)
    }

    /// Whether it is no runtime but the test double, whose devices are host memory.
    #[must_use]
    pub fn is_double(&self) -> bool {
        self.library.symbol("tensorhold_double_version").is_some()
    }

    /// The number of devices.
    ///
    /// # Errors
    /// `Device` where the runtime cannot say, for want of a driver; or after a fork.
    pub fn n_devices(&self) -> Result<usize> {
        fork::enter()?;
        let mut count = 0;
        // SAFETY: `count` is alive and of the type that is written.
        match unsafe { self.functions.get_device_count(&raw mut count) } {
            Ok(()) => Ok(usize::try_from(count).unwrap_or(0)),
            Err(failure) if failure.status == sys::NO_DEVICE => Ok(0),
            Err(failure) => Err(failure.of(self)),
        }
    }

    /// The device of this number.
    ///
    /// # Errors
    /// `Device` where there is none, and as [`n_devices`](Runtime::n_devices).
    pub fn device(&'static self, ordinal: usize) -> Result<Device> {
        let n_devices = self.n_devices()?;
        match i32::try_from(ordinal) {
            Ok(number) if ordinal < n_devices => Ok(Device::new(self, number)),
            _ => Err(Error::new(
                ErrorKind::Device,
                format!("there is no device {ordinal}: this machine has {n_devices}"),
            )),
        }
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The address of what its library exports as `name`.
    pub(crate) fn symbol(&self, name: &str) -> Option<*mut c_void> {
        self.library.symbol(name)
    }

    /// Whether the device of this number is in use by this process already: `false` where nobody knows.
    pub(crate) fn has_context(&self, ordinal: c_int) -> bool {
        let state = self.context_state.get_or_init(|| self.find_context_state());
        let (mut flags, mut is_active) = (0, 0);
        state.is_some_and(|state| {
            // SAFETY: both numbers are alive and of the types that are written, and the ordinal is this thread's device.
            unsafe { state(ordinal, &raw mut flags, &raw mut is_active) == 0 && is_active != 0 }
        })
    }

    fn find_context_state(&self) -> Option<ContextState> {
        let address = match self.vendor() {
            Vendor::Cuda => self.driver_function(c"cuDevicePrimaryCtxGetState".as_ptr()),
            Vendor::Hip => self.library.symbol("hipDevicePrimaryCtxGetState"),
        };
        // SAFETY: by the documentation of CUDA's driver and of HIP this is the type of that function.
        address.map(|address| unsafe { mem::transmute::<*mut c_void, ContextState>(address) })
    }

    /// A function of CUDA's driver, as the runtime finds it.
    fn driver_function(&self, name: *const std::ffi::c_char) -> Option<*mut c_void> {
        type Find = unsafe extern "C" fn(
            *const std::ffi::c_char,
            *mut *mut c_void,
            c_ulonglong,
            *mut c_int,
        ) -> Status;
        type FindByVersion = unsafe extern "C" fn(
            *const std::ffi::c_char,
            *mut *mut c_void,
            c_uint,
            c_ulonglong,
            *mut c_int,
        ) -> Status;
        /// The function is as it was in CUDA 7.0.
        const VERSION: c_uint = 7000;
        let (mut address, mut found) = (ptr::null_mut(), 0);
        let status = if let Some(find) = self.library.symbol("cudaGetDriverEntryPointByVersion") {
            // SAFETY: by the runtime's documentation this is the type of that function.
            let find = unsafe { mem::transmute::<*mut c_void, FindByVersion>(find) };
            // SAFETY: the name ends with a zero, and what is written to is alive and of its type.
            unsafe { find(name, &raw mut address, VERSION, 0, &raw mut found) }
        } else {
            let find = self.library.symbol("cudaGetDriverEntryPoint")?;
            // SAFETY: as above. Before CUDA 12 it has no last argument, and does not look at it.
            let find = unsafe { mem::transmute::<*mut c_void, Find>(find) };
            // SAFETY: as above.
            unsafe { find(name, &raw mut address, 0, &raw mut found) }
        };
        (status == sys::SUCCESS && !address.is_null()).then_some(address)
    }

    /// This thread's device.
    pub(crate) fn current(&self) -> Result<c_int, Failure> {
        let mut ordinal = 0;
        // SAFETY: `ordinal` is alive and of the type that is written.
        unsafe { self.functions.get_device(&raw mut ordinal) }?;
        Ok(ordinal)
    }
}

// There is one runtime, so that it is its place that it is known by.
impl PartialEq for Runtime {
    fn eq(&self, other: &Runtime) -> bool {
        ptr::eq(self, other)
    }
}

impl Eq for Runtime {}

impl Hash for Runtime {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::from_ref(self).hash(state);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runtime({:?}, {:?})", self.vendor(), self.path)
    }
}
