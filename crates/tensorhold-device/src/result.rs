//! What a function of the runtime returned, as this project's error.

use std::ffi::CStr;

use tensorhold_core::{Error, ErrorKind};

use crate::device::Device;
use crate::runtime::Runtime;
use crate::sys::{self, Status};

/// A function that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) function: &'static str,
    pub(crate) status: Status,
}

impl Failure {
    /// The error for this failure on `device`: `` `cudaMemcpyAsync` failed on cuda:0: out of memory (code 2) ``.
    pub(crate) fn on(self, device: Device) -> Error {
        self.error(device.runtime(), &format!(" on {device}"))
    }

    /// The error for this failure, which was of no device.
    pub(crate) fn of(self, runtime: &Runtime) -> Error {
        self.error(runtime, "")
    }

    fn error(self, runtime: &Runtime, place: &str) -> Error {
        let text = runtime.functions().error_text(self.status);
        let text = match text.is_null() {
            true => "no text".into(),
            // SAFETY: the runtime gives texts that end with a zero and live as long as its library, which stays loaded.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy(),
        };
        let kind = match self.status {
            sys::OUT_OF_MEMORY => ErrorKind::NoMemory,
            _ => ErrorKind::Device,
        };
        let Failure { function, status } = self;
        Error::new(
            kind,
            format!("`{function}` failed{place}: {text} (code {status})"),
        )
    }
}
