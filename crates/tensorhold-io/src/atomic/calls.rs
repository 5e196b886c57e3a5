//! The system calls that a file system may refuse, replaceable so that refusals can be tested.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::Durability;
use crate::platform::{self, Attributes, Privacy};

#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub create_new: fn(&Path, Privacy) -> io::Result<File>,
    pub allocate: fn(&File, u64) -> io::Result<()>,
    pub write_at: fn(&File, &[u8], u64) -> io::Result<usize>,
    /// Smaller files go through the page cache: the other way is not worth its set-up, and they are likely to be read soon.
    pub direct_from_bytes: u64,
    pub open_direct: fn(&Path) -> io::Result<File>,
    pub write_direct: fn(&File, &[u8], u64) -> io::Result<usize>,
    pub set_length: fn(&File, u64) -> io::Result<()>,
    pub set_attributes: fn(&File, &Attributes) -> io::Result<()>,
    pub sync: fn(&File, Durability) -> io::Result<()>,
    pub close: fn(File) -> io::Result<()>,
    pub rename: fn(&Path, &Path) -> io::Result<()>,
    pub sync_directory: fn(&Path) -> io::Result<()>,
}

pub(super) static SYSTEM: Calls = Calls {
    create_new: platform::create_new,
    allocate: platform::allocate,
    write_at: platform::write_at,
    direct_from_bytes: 32 << 20,
    open_direct: platform::open_direct_for_writing,
    write_direct: platform::write_at,
    set_length: File::set_len,
    set_attributes: platform::set_attributes,
    sync: |file, durability| match durability {
        Durability::None => Ok(()),
        Durability::Data => file.sync_data(),
        Durability::Full => file.sync_all(),
    },
    close: platform::close,
    rename: |from, to| fs::rename(from, to),
    sync_directory: platform::sync_directory,
};

/// Whether `error` says that this cannot be done in this place, rather than that it went wrong or is forbidden.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::ExecutableFileBusy
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::ResourceBusy
            | io::ErrorKind::Unsupported
    )
}

/// Whether `error` says that the file system does not know the call at all.
pub(super) fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}
