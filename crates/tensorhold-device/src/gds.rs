//! GPUDirect Storage: reads from a file into a device's memory, by NVIDIA's cuFile or AMD's hipFile.
//!
//! Memory is not registered with the library, which pays where the same memory is read into many times: here each byte
//! is read once. The library's driver stays open until the process ends, as other parts of the program may use it.

mod search;
mod sys;

use std::env;
use std::ffi::c_int;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use tensorhold_core::{Error, ErrorKind, Result};

use self::sys::{Description, FileHandle, Functions, Properties};
use crate::buffer::DevicePart;
use crate::device::Device;
use crate::fork;
use crate::platform::{self, StandardInput};
use crate::runtime::Vendor;

/// A library for reads into devices, found and started once in a process.
pub struct Storage {
    functions: Functions,
    is_direct: Option<bool>,
    doubt: Option<String>,
}

static FOUND: Mutex<Option<&'static Storage>> = Mutex::new(None);

impl Storage {
    /// The library of the vendor of `device`, started, and forbidden to read by way of the host's memory where it can be
    /// told so. A failure is not kept.
    ///
    /// Starting it may make a context on each device that the process sees.
    ///
    /// # Errors
    /// `Device` where there is no such library, with what was tried; where it, or the machine, cannot read directly; or after
    /// a fork.
    pub fn find(device: Device) -> Result<&'static Storage> {
        fork::enter()?;
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(storage) = *found {
            return Ok(storage);
        }
        let functions = search::find(device.runtime())?;
        let (is_direct, doubt) = start(&functions, device)?;
        let storage: &'static Storage = Box::leak(Box::new(Storage {
            functions,
            is_direct,
            doubt,
        }));
        *found = Some(storage);
        Ok(storage)
    }

    /// Whether its reads pass by the host's memory: `true` where it was forbidden any other; `None` where nobody can say.
    #[must_use]
    pub fn is_direct(&self) -> Option<bool> {
        self.is_direct
    }

    /// Why nobody can say.
    #[must_use]
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    fn name(&self, cuda: &'static str, hip: &'static str) -> &'static str {
        self.functions.vendor.choose(cuda, hip)
    }
}

/// Whether reads are direct, and why nobody can say.
type Nature = (Option<bool>, Option<String>);

fn start(functions: &Functions, device: Device) -> Result<Nature> {
    if functions.vendor == Vendor::Cuda && platform::lacks_storage_device() {
        // Starting it would fail, and close the standard input besides.
        return Err(refusal(
            "the kernel module nvidia-fs is loaded, but `/dev/nvidia-fs0` is missing; a container has to be given it",
        ));
    }
    if let Some(set_flag) = functions.set_flag {
        // SAFETY: numbers as arguments. Where it is refused, as the driver is open already, the properties say how it is.
        unsafe { set_flag(sys::ALLOW_COMPATIBILITY, false) };
    }
    let open_driver = functions.open_driver;
    let opened = {
        let _kept = StandardInput::keep();
        // SAFETY: it takes nothing, and the device has a context now, which it expects.
        device.with(|_| Ok(unsafe { open_driver() }))?
    };
    let name = functions
        .vendor
        .choose("cuFileDriverOpen", "hipFileDriverOpen");
    functions.check(opened, name)?;
    match functions.vendor {
        Vendor::Cuda => nature_of_cufile(functions),
        Vendor::Hip => nature_of_hipfile(),
    }
}

fn nature_of_cufile(functions: &Functions) -> Result<Nature> {
    let mut properties = Properties::empty();
    // SAFETY: `properties` is alive, and at least as large as what is written.
    let asked = unsafe { (functions.driver_properties)(&raw mut properties) };
    if let Err(error) = functions.check(asked, "cuFileDriverGetProperties") {
        return Ok((None, Some(error.message().to_owned())));
    }
    if properties.is_posix() {
        return Err(refusal("cuFile is set to read through the host's memory"));
    }
    if !properties.allows_compatibility() {
        return Ok((Some(true), None));
    }
    // What came before P2PDMA has nothing but the module.
    if properties.major_version == 0 && !properties.has_peer_reads() {
        return Err(refusal("the kernel module nvidia-fs is not loaded"));
    }
    let doubt = "cuFile was started with its compatibility mode, and does not say when it reads through the host's memory";
    Ok((None, Some(doubt.to_owned())))
}

/// hipFile tells nothing, and takes its settings from the environment.
fn nature_of_hipfile() -> Result<Nature> {
    let is = |name: &str, value: &str| {
        env::var(name).is_ok_and(|set| set.trim().eq_ignore_ascii_case(value))
    };
    if is("HIPFILE_FORCE_COMPAT_MODE", "true") {
        return Err(refusal(
            "`HIPFILE_FORCE_COMPAT_MODE` lets hipFile read through the host's memory",
        ));
    }
    if is("HIPFILE_ALLOW_COMPAT_MODE", "false") {
        return Ok((Some(true), None));
    }
    let doubt = "hipFile does not say when it reads through the host's memory, unless `HIPFILE_ALLOW_COMPAT_MODE=false` forbids it";
    Ok((None, Some(doubt.to_owned())))
}

fn refusal(why: &'static str) -> Error {
    Error::new(ErrorKind::Device, why)
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = search::name_of(self.functions.vendor);
        write!(f, "Storage({name}, {:?})", self.is_direct)
    }
}

/// An open file that is read into devices, by any number of threads at once.
#[derive(Debug)]
pub struct StorageFile {
    storage: &'static Storage,
    file: File,
    handle: FileHandle,
}

impl StorageFile {
    /// `file`, which is open for direct reads, made known to the library.
    ///
    /// # Errors
    /// `Device` where the library takes no such file, or after a fork.
    pub fn register(storage: &'static Storage, file: File, device: Device) -> Result<StorageFile> {
        let descriptor = platform::descriptor(&file);
        let register = storage.functions.register;
        let (status, handle) = device.with(|_| {
            let mut handle: FileHandle = 0;
            let mut description = Description::of(descriptor);
            // SAFETY: both are alive and of the types that are read and written; the file stays open until it is deregistered.
            let status = unsafe { register(&raw mut handle, &raw mut description) };
            Ok((status, handle))
        })?;
        let name = storage.name("cuFileHandleRegister", "hipFileHandleRegister");
        storage.functions.check(status, name)?;
        Ok(StorageFile {
            storage,
            file,
            handle,
        })
    }

    /// Fills `part` with the bytes of the file from `position` on. They are there when it returns; it begins after
    /// what [`begin_after`](crate::CopyQueue::begin_after) was told of, for which the host waits.
    ///
    /// # Errors
    /// `Device` as the library says, where the file ends before, or after a fork. Some of the part may be filled then.
    pub fn read(&self, position: u64, part: &DevicePart) -> Result<()> {
        let queue = part.queue();
        queue.wait_for_begin()?;
        let mut n_read = 0;
        while n_read < part.len() {
            n_read += self.read_some(queue.device(), position, part, n_read)?;
        }
        // Whoever cuts a file clears the rest of its last block first.
        let end = position.saturating_add(part.len() as u64);
        match self.file.metadata() {
            Ok(metadata) if metadata.len() < end => Err(ended()),
            _ => Ok(()),
        }
    }

    /// Reads what is behind the first `n_read` bytes of the part; how much of it.
    fn read_some(
        &self,
        device: Device,
        position: u64,
        part: &DevicePart,
        n_read: usize,
    ) -> Result<usize> {
        let (read, handle) = (self.storage.functions.read, self.handle);
        let (address, left) = (part.address(), part.len() - n_read);
        let at = i64::try_from(position.saturating_add(n_read as u64)).map_err(|_| ended())?;
        let behind = i64::try_from(n_read).map_err(|_| ended())?;
        let result = device.with(|_| {
            // SAFETY: the file is registered until `self` is dropped. The bytes lie in the part, which is borrowed, so that its
            // buffer is alive and no owner gets it before the read is over; nobody else writes to them, as parts are apart, and
            // what used the memory before has been waited for.
            let result = unsafe { read(handle, address, left, at, behind) };
            let os_error = io::Error::last_os_error().raw_os_error();
            Ok((result, os_error.unwrap_or(0)))
        })?;
        let name = self.storage.name("cuFileRead", "hipFileRead");
        match result {
            (0, _) => Err(ended()),
            // Some versions leave a code of their own there.
            (-1, os_error) => Err(self.storage.functions.failure(os_error, name)),
            (n, _) => match usize::try_from(n) {
                Ok(n) if n <= left => Ok(n),
                Ok(_) => Err(refusal("more bytes came than were asked for")),
                Err(_) => {
                    let code = c_int::try_from(n.unsigned_abs()).unwrap_or(c_int::MAX);
                    Err(self.storage.functions.failure(code, name))
                }
            },
        }
    }
}

impl Drop for StorageFile {
    fn drop(&mut self) {
        if fork::is_child() {
            return;
        }
        // SAFETY: the file is registered, and no read of it is under way, as each one borrows `self`.
        unsafe { (self.storage.functions.deregister)(self.handle) };
    }
}

fn ended() -> Error {
    refusal("the file ended before its bytes did")
}
