//! One device, and calls that are made on it.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::panic;
use std::thread;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::fork;
use crate::platform;
use crate::result::Failure;
use crate::runtime::Runtime;
use crate::sys::{self, Functions};

/// A device of a runtime.
///
/// It prints as `cuda:0` or `hip:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    runtime: &'static Runtime,
    ordinal: c_int,
}

impl Device {
    pub(crate) fn new(runtime: &'static Runtime, ordinal: c_int) -> Device {
        Device { runtime, ordinal }
    }

    /// Its runtime.
    #[must_use]
    pub fn runtime(self) -> &'static Runtime {
        self.runtime
    }

    /// Its number, from 0 on.
    #[must_use]
    pub fn ordinal(self) -> usize {
        usize::try_from(self.ordinal).unwrap_or(0)
    }

    /// Makes it the current device of this thread, for a thread of one's own: its calls then take no detour.
    ///
    /// # Errors
    /// `Device` as the runtime says, or after a fork.
    pub fn select(self) -> Result<()> {
        fork::enter()?;
        // SAFETY: a number as argument, which is a device's.
        unsafe { self.functions().set_device(self.ordinal) }.map_err(|failure| failure.on(self))
    }

    /// How many bytes of its memory are free, and how many it has.
    ///
    /// # Errors
    /// `Device` as the runtime says, or after a fork.
    pub fn memory_bytes(self) -> Result<(u64, u64)> {
        self.with(|functions| {
            let (mut free, mut total) = (0, 0);
            // SAFETY: both numbers are alive and of the type that is written.
            unsafe { functions.mem_get_info(&raw mut free, &raw mut total) }?;
            Ok((free as u64, total as u64))
        })
    }

    /// Whether its memory is the host's.
    ///
    /// # Errors
    /// `Device` as the runtime says, or after a fork.
    pub fn is_integrated(self) -> Result<bool> {
        fork::enter()?;
        let attribute = self
            .runtime
            .vendor()
            .choose(sys::CUDA_INTEGRATED, sys::HIP_INTEGRATED);
        let mut value = 0;
        // SAFETY: `value` is alive and of the type that is written.
        unsafe {
            self.functions()
                .device_get_attribute(&raw mut value, attribute, self.ordinal)
        }
        .map_err(|failure| failure.on(self))?;
        Ok(value != 0)
    }

    /// The node of host memory that it is nearest to; `None` where there is one only, or nobody knows.
    #[must_use]
    pub fn numa_node(self) -> Option<u32> {
        fork::enter().ok()?;
        let mut text: [c_char; 64] = [0; 64];
        let len = c_int::try_from(text.len()).ok()?;
        // SAFETY: `text` is alive, writable, and as long as said.
        let asked = unsafe {
            self.functions()
                .device_get_pci_bus_id(text.as_mut_ptr(), len, self.ordinal)
        };
        asked.ok()?;
        *text.last_mut()? = 0;
        // SAFETY: `text` is alive, and its last byte is zero.
        let bus_id = unsafe { CStr::from_ptr(text.as_ptr()) };
        platform::numa_node(bus_id.to_str().ok()?)
    }

    /// Waits for all work on the device; `false` where the runtime cannot say that it is done.
    pub(crate) fn settle(self) -> bool {
        // SAFETY: it takes nothing.
        self.with(|functions| unsafe { functions.device_synchronize() })
            .is_ok()
    }

    /// What `work` gives while this is the current device of its thread.
    ///
    /// The caller's thread has the device afterwards that it had before. Where that one has no context, which selecting it
    /// would make, or nobody knows which it is, the work is done in a thread of its own.
    pub(crate) fn with<T: Send>(
        self,
        work: impl FnOnce(&'static Functions) -> Result<T, Failure> + Send,
    ) -> Result<T> {
        fork::enter()?;
        let before = match self.runtime.current() {
            Ok(current) if current == self.ordinal => {
                return work(self.functions()).map_err(|failure| failure.on(self));
            }
            Ok(other) if self.runtime.has_context(other) => other,
            _ => return self.in_a_thread(work),
        };
        self.select()?;
        let _restore = Restore {
            functions: self.functions(),
            ordinal: before,
        };
        work(self.functions()).map_err(|failure| failure.on(self))
    }

    fn in_a_thread<T: Send>(
        self,
        work: impl FnOnce(&'static Functions) -> Result<T, Failure> + Send,
    ) -> Result<T> {
        let selected = move || {
            self.select()?;
            work(self.functions()).map_err(|failure| failure.on(self))
        };
        thread::scope(|scope| {
            let started = thread::Builder::new()
                .name("tensorhold-device".to_owned())
                .spawn_scoped(scope, selected)
                .map_err(|error| no_thread(&error))?;
            started
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    fn functions(self) -> &'static Functions {
        self.runtime.functions()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.runtime.vendor().choose("cuda", "hip");
        write!(f, "{name}:{}", self.ordinal)
    }
}

/// Gives a thread its device back.
struct Restore {
    functions: &'static Functions,
    ordinal: c_int,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: a number as argument, which was this thread's device before. If it is refused, the thread has another
        // current device, which every call of ours looks at.
        let _ = unsafe { self.functions.set_device(self.ordinal) };
    }
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Device,
        format!("cannot start a thread for a call on a device: {error}"),
    )
    .with_os_error(error.raw_os_error())
}
