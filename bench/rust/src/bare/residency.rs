//! How much of files the page cache holds.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

const SYS_CACHESTAT: libc::c_long = 451;
const PAGE_BYTES: u64 = 4096;

#[repr(C)]
struct Range {
    position: u64,
    /// Zero for all that follows.
    size_bytes: u64,
}

#[repr(C)]
#[derive(Default)]
struct CacheStat {
    n_cached: u64,
    n_dirty: u64,
    n_written_back: u64,
    n_evicted: u64,
    n_recently_evicted: u64,
}

/// The part of the pages of `paths` that is in the page cache, as JSON: `null` where the system does not tell.
pub fn resident(paths: &[PathBuf]) -> io::Result<String> {
    let (mut n_cached, mut n_pages) = (0, 0);
    for path in paths {
        let file = File::open(path)?;
        let Some(cached) = cached_pages(&file) else {
            return Ok("null".into());
        };
        n_cached += cached;
        n_pages += file.metadata()?.len().div_ceil(PAGE_BYTES);
    }
    Ok((n_cached as f64 / n_pages.max(1) as f64).to_string())
}

fn cached_pages(file: &File) -> Option<u64> {
    let (range, mut stat) = (
        Range {
            position: 0,
            size_bytes: 0,
        },
        CacheStat::default(),
    );
    // SAFETY: the descriptor is open while `file` is borrowed, and both structs have the layout of the system's and
    // outlive the call.
    let failed = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut stat,
            0,
        )
    };
    (failed == 0).then_some(stat.n_cached)
}
