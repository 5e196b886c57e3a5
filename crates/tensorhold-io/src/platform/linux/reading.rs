//! What a reader asks of Linux: what lies in the page cache, direct descriptors, leases, pages of a map.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{AtFlags, OFlags, StatxFlags};
use rustix::mm::Advice;

/// The numbers of file systems that live in memory.
///
/// # Source
/// `linux/magic.h`.
const IN_MEMORY: [u32; 3] = [
    0x0102_1994, // tmpfs
    0x8584_58F6, // ramfs
    0x9584_58F6, // hugetlbfs
];

/// Whether the file lies in memory and nowhere else.
pub(crate) fn is_in_memory(file: &File) -> bool {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the kernel's word is wider on some machines and signed on others; the numbers have 32 bits"
    )]
    rustix::fs::fstatfs(file).is_ok_and(|system| IN_MEMORY.contains(&(system.f_type as u32)))
}

/// The same file once more, with an offset, flags and leases of its own.
pub(crate) fn reopen(file: &File) -> io::Result<File> {
    open_again(file, OFlags::empty())
}

/// The same file once more, with nothing read ahead: what is asked for is fetched, and nothing behind it.
pub(crate) fn open_exact(file: &File) -> io::Result<File> {
    let exact = reopen(file)?;
    rustix::fs::fadvise(&exact, 0, None, rustix::fs::Advice::Random)?;
    Ok(exact)
}

/// Begins to fetch the first `n_bytes`, and lets nothing be read ahead of what is read from `file`.
pub(crate) fn begin_exact(file: &File, n_bytes: NonZeroU64) {
    // Where the system refuses, it reads ahead.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
    let _ = rustix::fs::fadvise(file, 0, Some(n_bytes), rustix::fs::Advice::WillNeed);
}

/// Lets the system read ahead again.
pub(crate) fn end_exact(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Normal);
}

/// The same file once more, to be read past the page cache.
pub(crate) fn open_direct(file: &File) -> io::Result<File> {
    open_again(file, OFlags::DIRECT)
}

/// The same, as a library expects a descriptor: with nothing set but that.
pub(crate) fn open_direct_to_wait(file: &File) -> io::Result<File> {
    let direct = open_direct(file)?;
    rustix::fs::fcntl_setfl(&direct, OFlags::DIRECT)?;
    Ok(direct)
}

fn open_again(file: &File, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// What every direct file system can do with; some can do with less.
const SAFE_ALIGNMENT: usize = 4096;

/// What memory addresses and file positions of direct reads must be multiples of; `None` where the file system says
/// that it has no direct reads.
pub(crate) fn direct_alignment(file: &File) -> Option<(usize, usize)> {
    let told = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let Some(told) = told.filter(|told| told.stx_mask & StatxFlags::DIOALIGN.bits() != 0) else {
        return Some((SAFE_ALIGNMENT, SAFE_ALIGNMENT));
    };
    let memory = usize::try_from(told.stx_dio_mem_align).ok()?;
    let position = usize::try_from(told.stx_dio_offset_align).ok()?;
    (memory.is_power_of_two() && position.is_power_of_two()).then_some((memory, position))
}

/// How many of the `size_bytes` from `position` on are in the page cache; `None` where the system does not tell.
pub(crate) fn cached_bytes(file: &File, position: u64, size_bytes: u64) -> Option<u64> {
    counted_bytes(file, position, size_bytes).or_else(|| sampled_bytes(file, position, size_bytes))
}

/// `struct cachestat_range` of `linux/mman.h`.
#[repr(C)]
struct CacheRange {
    position: u64,
    size_bytes: u64,
}

/// `struct cachestat` of `linux/mman.h`, in pages.
#[repr(C)]
#[derive(Default)]
struct CacheState {
    cached: u64,
    dirty: u64,
    under_writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// As [`cached_bytes`], counted by the kernel (6.5 and later).
pub(crate) fn counted_bytes(file: &File, position: u64, size_bytes: u64) -> Option<u64> {
    /// Its number on all machines but Alpha and MIPS, which have none of this number.
    const CACHESTAT: libc::c_long = 451;
    let range = CacheRange {
        position,
        size_bytes,
    };
    let mut state = CacheState::default();
    let no_flags: libc::c_uint = 0;
    // SAFETY: `cachestat` reads `range` and writes `state`, both of the kernel's own layout and alive. Where there is no such
    // call, nothing happens.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut state,
            no_flags,
        )
    };
    let cached_bytes = state
        .cached
        .saturating_mul(rustix::param::page_size() as u64);
    (result == 0).then(|| cached_bytes.min(size_bytes))
}

/// As [`cached_bytes`], estimated from a few bytes that are read where that takes no waiting.
#[cfg(not(target_os = "android"))]
fn sampled_bytes(file: &File, position: u64, size_bytes: u64) -> Option<u64> {
    use std::io::IoSliceMut;

    use rustix::io::{Errno, ReadWriteFlags};

    const N_SAMPLES: u64 = 16;
    let mut n_cached = 0;
    for sample in 0..N_SAMPLES {
        let mut byte = [0];
        let mut pieces = [IoSliceMut::new(&mut byte)];
        let at = position + size_bytes / N_SAMPLES * sample;
        match rustix::io::preadv2(file, &mut pieces, at, ReadWriteFlags::NOWAIT) {
            Ok(_) => n_cached += 1,
            Err(Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    Some(size_bytes / N_SAMPLES * n_cached)
}

/// Android's library has no such read.
#[cfg(target_os = "android")]
fn sampled_bytes(_file: &File, _position: u64, _size_bytes: u64) -> Option<u64> {
    None
}

/// Takes a read lease: until it is let go, or [`has_lease`] gives `false`, nobody writes to the file or cuts it. Who
/// wants to waits, as long as `/proc/sys/fs/lease-break-time` says.
///
/// # Errors
/// Where the file is open for writing, is not ours, or lies on a file system without leases.
pub(crate) fn take_lease(file: &File) -> io::Result<()> {
    let descriptor = file.as_raw_fd();
    // The signal that a waiting writer would send ends a program that does not expect it; this one is ignored unless asked for,
    // and nobody is to get even that: whoever holds a lease looks before each use.
    control(descriptor, F_SETSIG, libc::SIGURG)?;
    control(descriptor, libc::F_SETLEASE, libc::F_RDLCK as libc::c_int)?;
    let _ = control(descriptor, libc::F_SETOWN, 0);
    Ok(())
}

/// Whether the lease holds and nobody waits for it.
pub(crate) fn has_lease(file: &File) -> bool {
    control(file.as_raw_fd(), libc::F_GETLEASE, 0)
        .is_ok_and(|kind| kind == libc::F_RDLCK as libc::c_int)
}

pub(crate) fn release_lease(file: &File) {
    // Where it is gone already, so much the better.
    let _ = control(
        file.as_raw_fd(),
        libc::F_SETLEASE,
        libc::F_UNLCK as libc::c_int,
    );
}

/// `F_SETSIG` of `asm-generic/fcntl.h`, which is the same on all machines.
const F_SETSIG: libc::c_int = 10;

fn control(descriptor: RawFd, what: libc::c_int, with: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is a borrowed file's; all commands used here take a number and touch no memory.
    match unsafe { libc::fcntl(descriptor, what, with) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// Makes the pages of `bytes`, part of a map of a file, ready to be read without a fault.
pub(crate) fn populate(bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the advice changes no byte, and the pages are those of a slice that is alive.
    unsafe {
        advise(
            bytes.as_ptr().cast_mut(),
            bytes.len(),
            Advice::LinuxPopulateRead,
        )
    }
}

/// Lets go of the pages of the `len` bytes from `start` on, which stay in the page cache.
///
/// # Safety
/// The bytes lie in a read-only map of a file, with whole pages.
pub(crate) unsafe fn forget(start: *const u8, len: usize) {
    // SAFETY: a read-only map has no changes to lose, so that its bytes are read from the file again.
    let _ = unsafe { advise(start, len, Advice::LinuxDontNeed) };
}

/// Lets the system have the pages of the `size_bytes` from `position` on back, as far as they are unchanged and in nobody's tables.
pub(crate) fn give_back(file: &File, position: u64, size_bytes: u64) {
    // No bytes would stand for all to the end.
    if let Some(size_bytes) = NonZeroU64::new(size_bytes) {
        // They stay where the system refuses.
        let _ = rustix::fs::fadvise(
            file,
            position,
            Some(size_bytes),
            rustix::fs::Advice::DontNeed,
        );
    }
}

/// # Safety
/// As for `madvise` with the whole pages that hold the `len` bytes from `start` on.
unsafe fn advise(start: *const u8, len: usize, advice: Advice) -> io::Result<()> {
    let before = start.addr() % rustix::param::page_size();
    let first = start.wrapping_sub(before).cast_mut().cast();
    // SAFETY: as the caller vouches.
    Ok(unsafe { rustix::mm::madvise(first, len + before, advice) }?)
}

#[cfg(all(test, not(target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_is_found_cached_by_counting_and_by_samples() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let size_bytes = 1_000_003;
        std::fs::write(&path, vec![7; size_bytes]).unwrap();
        let file = File::open(&path).unwrap();
        let size_bytes = size_bytes as u64;
        // A system without the call tells nothing.
        if let Some(counted) = counted_bytes(&file, 0, size_bytes) {
            assert_eq!(counted, size_bytes);
        }
        if let Some(sampled) = sampled_bytes(&file, 0, size_bytes) {
            assert!(
                (size_bytes - 16..=size_bytes).contains(&sampled),
                "{sampled}"
            );
        }
    }
}
