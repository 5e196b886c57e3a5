//! Descriptors of files, and what the kernel has for reads into devices.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The number by which the system knows the open file.
pub(crate) fn descriptor(file: &File) -> c_int {
    file.as_raw_fd()
}

/// Whether the kernel module nvidia-fs is loaded, and this process sees nothing of it.
pub(crate) fn lacks_storage_device() -> bool {
    Path::new("/proc/driver/nvidia-fs/devcount").exists() && !Path::new("/dev/nvidia-fs0").exists()
}

/// Descriptor 0, kept over a call that may close it: cuFile does when it cannot start. Whatever the program opens
/// next would take its place, and go to each process that it starts.
pub(crate) struct StandardInput(Option<Kept>);

struct Kept {
    copy: OwnedFd,
    flags: c_int,
}

impl StandardInput {
    pub(crate) fn keep() -> StandardInput {
        // SAFETY: the commands take numbers and touch no memory, and refuse a descriptor that is not open.
        let (flags, copy) = unsafe {
            (
                libc::fcntl(0, libc::F_GETFD),
                libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3),
            )
        };
        let is_kept = flags >= 0 && copy >= 0;
        StandardInput(is_kept.then(|| Kept {
            // SAFETY: the system has just opened it for us alone.
            copy: unsafe { OwnedFd::from_raw_fd(copy) },
            flags,
        }))
    }
}

impl Drop for StandardInput {
    fn drop(&mut self) {
        let Some(Kept { copy, flags }) = &self.0 else {
            return;
        };
        let closes_on_exec = match flags & libc::FD_CLOEXEC {
            0 => 0,
            _ => libc::O_CLOEXEC,
        };
        // SAFETY: as above; only where nothing is open as 0 is it opened again.
        unsafe {
            if libc::fcntl(0, libc::F_GETFD) == -1 {
                libc::dup3(copy.as_raw_fd(), 0, closes_on_exec);
            }
        }
    }
}
