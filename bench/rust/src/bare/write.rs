//! Memory into a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use bench_programs::clock::Sample;

use crate::memory::{self, HugePages};
use crate::{BLOCK_BYTES, N_THREADS, Outcome, PAGE_BYTES, Way};

/// Writes the bytes of `source`, which are read outside the clock, to `target`.
pub fn sample(way: Way, synced: bool, source: &Path, target: &Path) -> Outcome {
    let size_bytes = fs::metadata(source)?.len() as usize;
    let mut memory = HugePages::new(size_bytes)?;
    File::open(source)?.read_exact(&mut memory[..size_bytes])?;
    memory::wake()?;
    let write = || {
        write(way, synced, &memory, size_bytes, target)
            .expect("there is room, on a file system that takes this way")
    };
    let sample = Sample::take(write, |()| None);
    fs::remove_file(target)?;
    Ok(sample.to_json_with("\"resident\": null"))
}

fn write(
    way: Way,
    synced: bool,
    memory: &[u8],
    size_bytes: usize,
    target: &Path,
) -> io::Result<()> {
    let (flags, n_threads, written) = match way {
        Way::Buffered => (0, 1, size_bytes),
        Way::Direct => (
            libc::O_DIRECT,
            N_THREADS,
            size_bytes.next_multiple_of(PAGE_BYTES),
        ),
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(flags)
        .open(target)?;
    if way == Way::Direct {
        reserve(&file, written);
    }
    let blocks = Mutex::new(memory[..written].chunks(BLOCK_BYTES).zip(0_u64..));
    let work = || -> io::Result<()> {
        loop {
            let next = blocks.lock().expect("no thread panics").next();
            let Some((block, number)) = next else {
                return Ok(());
            };
            file.write_all_at(block, number * BLOCK_BYTES as u64)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    file.set_len(size_bytes as u64)?;
    if synced { file.sync_data() } else { Ok(()) }
}

/// Asks for the blocks at once, so that two threads do not wait for each other's.
fn reserve(file: &File, size_bytes: usize) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `file` is borrowed. A refusal only makes it slower.
    unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size_bytes as libc::off_t) };
}
