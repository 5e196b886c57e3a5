//! Files in the page cache, every byte of which is looked at, and memory that is filled meanwhile.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr;
use std::thread;

use bench_programs::clock::Sample;

use crate::memory::{self, HugePages};
use crate::{N_THREADS, Outcome, residency};

/// So much is looked at before as much as it becomes is stored.
const STEP_BYTES: usize = 4096;

/// How bytes are stored.
#[derive(Clone, Copy, PartialEq)]
pub enum Stores {
    /// Past the caches, where the processor can.
    Streamed,
    /// Through them.
    Cached,
}

/// Looks at the bytes of `path`, and stores `growth` times as many.
pub fn sample(stores: Stores, growth: usize, path: &Path) -> Outcome {
    memory::wake()?;
    let resident = residency::resident(&[PathBuf::from(path)])?;
    let sample = Sample::take(
        || widen(stores, growth, path).expect("the file was generated"),
        |_| None,
    );
    Ok(sample.to_json_with(&format!("\"resident\": {resident}")))
}

fn widen(stores: Stores, growth: usize, path: &Path) -> io::Result<HugePages> {
    let map = Map::new(&File::open(path)?)?;
    let bytes = map.bytes();
    let share = bytes.len().div_ceil(N_THREADS).next_multiple_of(STEP_BYTES);
    let mut into = HugePages::new(bytes.len() * growth)?;
    thread::scope(|scope| {
        let shares = bytes.chunks(share).zip(into.chunks_mut(share * growth));
        for (bytes, into) in shares {
            scope.spawn(move || {
                let steps = bytes
                    .chunks(STEP_BYTES)
                    .zip(into.chunks_mut(STEP_BYTES * growth));
                for (bytes, into) in steps {
                    let words = bytes.as_chunks().0.iter();
                    let sum = words.fold(0, |sum: u64, word| {
                        sum.wrapping_add(u64::from_le_bytes(*word))
                    });
                    fill(stores, black_box(sum), into);
                }
            });
        }
    });
    Ok(into)
}

fn fill(stores: Stores, word: u64, into: &mut [u8]) {
    let (lines, tail) = into.as_chunks_mut::<16>();
    tail.fill(word as u8);
    for line in lines {
        #[cfg(target_arch = "x86_64")]
        if stores == Stores::Streamed {
            use std::arch::x86_64::{_mm_set1_epi64x, _mm_stream_si128};

            assert!(line.as_ptr().addr().is_multiple_of(16));
            // SAFETY: all processors of this architecture have SSE2; the 16 bytes were just found aligned, and this thread's.
            unsafe { _mm_stream_si128(line.as_mut_ptr().cast(), _mm_set1_epi64x(word as i64)) };
            continue;
        }
        line[..8].copy_from_slice(&word.to_le_bytes());
        line[8..].copy_from_slice(&word.to_le_bytes());
    }
}

/// A file's pages in the page cache.
struct Map {
    start: *mut libc::c_void,
    size_bytes: usize,
}

impl Map {
    fn new(file: &File) -> io::Result<Map> {
        let size_bytes = file.metadata()?.len() as usize;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_POPULATE);
        // SAFETY: a new map at an address of the kernel's choice touches no memory that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_bytes,
                protection,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        match start == libc::MAP_FAILED {
            true => Err(io::Error::last_os_error()),
            false => Ok(Map { start, size_bytes }),
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the map is of so many bytes, lives as long as `self`, and nobody writes or cuts the generated file.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.size_bytes) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this is the map that `new` made, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.start, self.size_bytes) };
    }
}
