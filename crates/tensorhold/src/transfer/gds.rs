//! Whole tensors on their way from a file to a device past the host's memory, where the machine can.
//!
//! What cannot go so goes through the ring as it would have; the first reason is kept.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tensorhold_core::{Error, Result};
use tensorhold_device::{Device, DevicePart, Storage, StorageFile};
use tensorhold_io::{Pread, check_interrupt, open_direct};

/// What became of the wish that tensors go to devices past the host's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GdsStats {
    /// The bytes that the vendor's library has read into devices.
    pub read_bytes: u64,
    /// Whether they passed by the host's memory: `Some(true)` where the library was forbidden any other way; `None` where it
    /// does not say.
    pub is_direct: Option<bool>,
    /// Why some of what could have gone so did not, or why it is not known whether it was direct.
    pub reason: Option<String>,
}

/// What the files of one transfer have in common.
#[derive(Debug, Default)]
pub(crate) struct Gds {
    storage: OnceLock<Option<&'static Storage>>,
    read_bytes: AtomicU64,
    reason: OnceLock<String>,
}

impl Gds {
    pub fn stats(&self) -> GdsStats {
        let read_bytes = self.read_bytes.load(Ordering::Relaxed);
        let storage = self.storage.get().copied().flatten();
        let doubt = || storage.and_then(Storage::doubt);
        let reason = self.reason.get().map(String::as_str);
        let (is_direct, reason) = match read_bytes {
            0 => (Some(false), reason.or(Some(NOTHING))),
            _ => (storage.and_then(Storage::is_direct), reason.or_else(doubt)),
        };
        GdsStats {
            read_bytes,
            is_direct,
            reason: reason.map(str::to_owned),
        }
    }

    fn storage(&self, device: Device) -> Option<&'static Storage> {
        let find = || match Storage::find(device) {
            Ok(storage) => Some(storage),
            Err(error) => {
                self.refuse(error.message().to_owned());
                None
            }
        };
        *self.storage.get_or_init(find)
    }

    fn refuse(&self, reason: String) {
        // The first one stays.
        let _ = self.reason.set(reason);
    }
}

/// What is smaller goes with its neighbours, or as the end of what is larger: a read of its own costs more than the copy.
const MIN_BYTES: usize = 1 << 20;

/// Why nothing went so where nothing was refused.
const NOTHING: &str = "no large tensor went whole to a device";

/// A file that tensors go to devices from.
#[derive(Debug)]
pub(crate) struct GdsFile {
    gds: Arc<Gds>,
    path: PathBuf,
    file: Arc<Pread>,
    registered: OnceLock<Option<StorageFile>>,
    is_refused: AtomicBool,
}

impl GdsFile {
    pub fn new(gds: &Arc<Gds>, path: &Path, file: &Arc<Pread>) -> GdsFile {
        GdsFile {
            gds: Arc::clone(gds),
            path: path.to_owned(),
            file: Arc::clone(file),
            registered: OnceLock::new(),
            is_refused: AtomicBool::new(false),
        }
    }

    pub fn stats(&self) -> GdsStats {
        self.gds.stats()
    }

    /// Fills `part` with the bytes from `position` on; `false` where they are to be read in another way.
    ///
    /// # Errors
    /// `Interrupted` where the process is to end.
    pub fn read(&self, position: u64, part: &DevicePart) -> Result<bool> {
        if part.len() < MIN_BYTES || self.is_refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        check_interrupt()?;
        let register = || self.register(part.queue().device());
        let Some(registered) = self.registered.get_or_init(register) else {
            return Ok(false);
        };
        match registered.read(position, part) {
            Ok(()) => {
                let len = part.len() as u64;
                self.gds.read_bytes.fetch_add(len, Ordering::Relaxed);
                Ok(true)
            }
            Err(error) => {
                self.refuse(&error);
                Ok(false)
            }
        }
    }

    fn register(&self, device: Device) -> Option<StorageFile> {
        let Some(storage) = self.gds.storage(device) else {
            self.is_refused.store(true, Ordering::Relaxed);
            return None;
        };
        let registered = open_direct(self.file.file())
            .and_then(|file| StorageFile::register(storage, file, device));
        registered.map_err(|error| self.refuse(&error)).ok()
    }

    /// Reads no more in this way: what failed once mostly fails again.
    fn refuse(&self, error: &Error) {
        self.is_refused.store(true, Ordering::Relaxed);
        let (path, message) = (self.path.display(), error.message());
        self.gds.refuse(format!("{path}: {message}"));
    }
}
