//! Linux and Android.

mod free_memory;
mod memory;
mod reading;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod uring;

use std::fs::{File, OpenOptions};
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, XattrFlags};
use rustix::io::Errno;

pub(crate) use free_memory::free_memory_bytes;
pub(crate) use memory::*;
pub(crate) use reading::*;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use uring::*;

/// The numbers of network, cluster and user-space file systems.
///
/// # Source
/// `linux/magic.h` and the sources of the file systems that are not in the kernel.
const NETWORK: [u32; 22] = [
    0x0000_6969, // NFS
    0x0000_517B, // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x0000_564C, // NCP
    0x0BD0_0BD0, // Lustre
    0x6573_5546, // FUSE, virtiofs
    0x0102_1997, // 9P
    0x00C3_6400, // Ceph
    0x5346_414F, // AFS
    0x6B41_4653, // kAFS
    0x7375_7245, // Coda
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0xAAD7_AAEA, // PanFS
    0x2003_0528, // OrangeFS
    0x0131_11A8, // IBRIX
    0xBEEF_DEAD, // SNFS
    0x6163_6673, // ACFS
    0xBACB_ACBC, // VMware shared folders
    0x786F_4256, // VirtualBox shared folders
    0x7C7C_6673, // Parallels shared folders
];

pub(crate) fn is_network(file: &File) -> bool {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the kernel's word is wider on some machines and signed on others; the numbers have 32 bits"
    )]
    rustix::fs::fstatfs(file).is_ok_and(|system| NETWORK.contains(&(system.f_type as u32)))
}

/// Opens the file at `path` once more, to be written past the page cache.
pub(crate) fn open_direct_for_writing(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECT | OFlags::NOFOLLOW;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// A file system may begin anew at each signal, so that a program with a fast timer would never get its space.
const MAX_INTERRUPTIONS: usize = 3;

/// Sets space aside for a file of `size_bytes`.
///
/// # Errors
/// Where there is no such space; a file system that cannot tell is `Ok`.
pub(crate) fn allocate(file: &File, size_bytes: u64) -> io::Result<()> {
    if size_bytes == 0 {
        return Ok(());
    }
    if is_in_memory(file) {
        // There it would mean to write zeros first, which takes as long as the bytes themselves.
        return match free_bytes(file) {
            Some(free) if free < size_bytes => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        };
    }
    for _ in 0..MAX_INTERRUPTIONS {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(error.into()),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Tells the system that `size_bytes` from `position` on may go to the disk at once, and does not wait for them.
#[cfg(target_os = "linux")]
pub(crate) fn start_writing_back(file: &File, position: u64, size_bytes: usize) {
    let (Ok(position), Ok(size_bytes)) = (i64::try_from(position), i64::try_from(size_bytes))
    else {
        return;
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed. A refusal only means that the bytes go later.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            position,
            size_bytes,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

/// The C library's bindings for Android lack the call.
#[cfg(target_os = "android")]
pub(crate) fn start_writing_back(_file: &File, _position: u64, _size_bytes: usize) {}

/// The bytes that this process may still use on the file system of `file`; `None` where it does not tell.
pub(crate) fn free_bytes(file: &File) -> Option<u64> {
    let system = rustix::fs::fstatvfs(file).ok()?;
    (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}

/// Where Linux keeps a POSIX access list, of which the mode shows only the mask.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// `XATTR_SIZE_MAX` of `linux/limits.h`.
const MAX_ATTRIBUTE_BYTES: usize = 1 << 16;

/// The access list of the file at `path`, if it has one beyond its mode.
pub(crate) fn access_list(path: &Path) -> Option<Vec<u8>> {
    let mut list = vec![0; MAX_ATTRIBUTE_BYTES];
    let size_bytes = rustix::fs::getxattr(path, ACCESS_LIST, &mut list[..]).ok()?;
    list.truncate(size_bytes);
    Some(list)
}

pub(crate) fn set_access_list(file: &File, list: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        file,
        ACCESS_LIST,
        list,
        XattrFlags::empty(),
    )?)
}
