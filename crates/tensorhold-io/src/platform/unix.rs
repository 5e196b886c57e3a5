//! What all Unixes share.

mod memory;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Access, AtFlags, CWD, OFlags};
use rustix::io::Errno;

use crate::interrupt;
use crate::open::FileIdentity;

pub(crate) use memory::*;

/// How often a writer looks for the reader of its FIFO.
const WAIT_FOR_READER: Duration = Duration::from_millis(20);

/// How often a writer whose reader is slow asks whether to go on, in nanoseconds.
const WAIT_FOR_ROOM_NS: i64 = 50_000_000;

/// Mode, owner and access list of a file that is about to be replaced.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    mode: u32,
    user: u32,
    group: u32,
    access_list: Option<Vec<u8>>,
}

/// Whom a new file is open to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Privacy {
    /// To its owner.
    Private,
    /// To whom the umask and the folder's default rules say.
    Ordinary,
}

/// Opens for reading, without waiting for the other end of a FIFO and without taking a terminal.
pub(crate) fn open_without_blocking(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Opens what lies at `path` for writing, as it is; connects to a socket. Where it has no room for more, a write fails instead of
/// waiting, as a signal that came just before a system call does not end its wait.
pub(crate) fn open_for_writing(path: &Path, metadata: &Metadata) -> io::Result<File> {
    if metadata.file_type().is_socket() {
        let socket = UnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        return Ok(File::from(OwnedFd::from(socket)));
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let is_fifo = metadata.file_type().is_fifo();
    let no_reader = Some(Errno::NXIO.raw_os_error());
    loop {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path);
        match opened {
            Err(error) if is_fifo && error.raw_os_error() == no_reader => {
                interrupt::check().map_err(|_| io::ErrorKind::Interrupted)?;
                std::thread::sleep(WAIT_FOR_READER);
            }
            opened => return opened,
        }
    }
}

/// Waits until `file` has room for more bytes, or a moment.
pub(crate) fn wait_for_room(file: &File) {
    let mut waiting = [PollFd::new(file, PollFlags::OUT)];
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: WAIT_FOR_ROOM_NS,
    };
    // Whatever is wrong with it, the next write says.
    let _ = rustix::event::poll(&mut waiting, Some(&moment));
}

/// Creates a file that was not there.
pub(crate) fn create_new(path: &Path, privacy: Privacy) -> io::Result<File> {
    let mode = match privacy {
        Privacy::Private => 0o600,
        Privacy::Ordinary => 0o666,
    };
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
}

/// What kind of thing it is, in words, and the error number that says it is no regular file.
pub(crate) fn kind_of(metadata: &Metadata) -> (&'static str, Option<i32>) {
    let kind = metadata.file_type();
    let no_device = Some(Errno::NODEV.raw_os_error());
    if kind.is_dir() {
        ("a directory", Some(Errno::ISDIR.raw_os_error()))
    } else if kind.is_fifo() {
        ("a FIFO", no_device)
    } else if kind.is_socket() {
        ("a socket", no_device)
    } else if kind.is_char_device() {
        ("a character device", no_device)
    } else if kind.is_block_device() {
        ("a block device", no_device)
    } else {
        ("no regular file", no_device)
    }
}

/// Who may use what, if that is why `error` came up at `path`.
pub(crate) fn permission_hint(path: &Path, error: &io::Error) -> Option<String> {
    if error.raw_os_error() != Some(Errno::ACCESS.raw_os_error()) {
        return None;
    }
    let (place, metadata) = path
        .ancestors()
        .map(|place| match place.as_os_str().is_empty() {
            true => Path::new("."),
            false => place,
        })
        .find_map(|place| Some((place, fs::metadata(place).ok()?)))?;
    Some(format!(
        "`{}` has mode {:04o} and belongs to user {} and group {}; this process is user {} and group {}",
        place.display(),
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    ))
}

pub(crate) fn identity(file: &File) -> io::Result<FileIdentity> {
    let metadata = file.metadata()?;
    let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    Ok(FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size_bytes: metadata.len(),
        modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Whether both are one and the same file.
pub(crate) fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

pub(crate) fn read_at(file: &File, into: &mut [u8], position: u64) -> io::Result<usize> {
    file.read_at(into, position)
}

pub(crate) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
    file.write_at(bytes, position)
}

/// To check the rights of the user that the process acts as, not of the one that started it.
#[cfg(not(target_os = "android"))]
const EFFECTIVE: AtFlags = AtFlags::EACCESS;
/// Android does not tell the two apart.
#[cfg(target_os = "android")]
const EFFECTIVE: AtFlags = AtFlags::empty();

/// Whether this process may write to the file at `path`.
pub(crate) fn require_writable(path: &Path) -> io::Result<()> {
    match rustix::fs::accessat(CWD, path, Access::WRITE_OK, EFFECTIVE) {
        Ok(()) => Ok(()),
        // An old kernel that cannot check for the effective user: the rename then decides.
        Err(Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What the file at `path`, whose metadata is given, has.
pub(crate) fn attributes(path: &Path, metadata: &Metadata) -> Attributes {
    Attributes {
        mode: metadata.mode() & 0o777,
        user: metadata.uid(),
        group: metadata.gid(),
        access_list: super::access_list(path),
    }
}

/// Gives `file` the owner and access list, as far as allowed, and the mode.
pub(crate) fn set_attributes(file: &File, attributes: &Attributes) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.uid() != attributes.user {
        // Only root may give files away; otherwise the owner is who wrote the bytes.
        let _ = std::os::unix::fs::fchown(file, Some(attributes.user), None);
    }
    let is_group_kept = metadata.gid() == attributes.group
        || std::os::unix::fs::fchown(file, None, Some(attributes.group)).is_ok();
    let is_list_kept = match &attributes.access_list {
        Some(list) => super::set_access_list(file, list).is_ok(),
        None => true,
    };
    let mode = match is_group_kept && is_list_kept {
        true => attributes.mode,
        // The group's bits were meant for other people: those who have them now get what everybody has.
        false => attributes.mode & 0o707 | (attributes.mode & 0o007) << 3,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// What the system says when a disk is full.
pub(crate) fn no_space() -> io::Error {
    Errno::NOSPC.into()
}

/// Closes `file` and says what the system had to say, as some network file systems write only now.
pub(crate) fn close(file: File) -> io::Result<()> {
    let descriptor = file.into_raw_fd();
    // SAFETY: the descriptor was ours alone, and `into_raw_fd` gave it up, so it is open and nobody
    // else uses or closes it.
    match unsafe { rustix::io::try_close(descriptor) } {
        // The descriptor is gone all the same.
        Ok(()) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Brings the names in `folder` to the disk.
pub(crate) fn sync_directory(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
