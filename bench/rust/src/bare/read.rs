//! Files into memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use bench_programs::clock::Sample;

use crate::memory::{self, HugePages};
use crate::{BLOCK_BYTES, N_THREADS, Outcome, PAGE_BYTES, Way, residency};

/// Reads `warm_up` outside the clock, then all of `paths`.
pub fn sample(way: Way, warm_up: &Path, paths: &[PathBuf]) -> Outcome {
    read(Way::Buffered, &[warm_up.to_path_buf()])?;
    memory::wake()?;
    let resident = residency::resident(paths)?;
    let sample = Sample::take(
        || {
            read(way, paths)
                .expect("the files were generated, on a file system that takes this way")
        },
        |_| None,
    );
    Ok(sample.to_json_with(&format!("\"resident\": {resident}")))
}

/// A range of a file, and where it goes.
struct Task<'a> {
    file: &'a File,
    position: u64,
    into: &'a mut [u8],
}

fn read(way: Way, paths: &[PathBuf]) -> io::Result<Vec<HugePages>> {
    let files = open(way, paths)?;
    let sizes = files.iter().map(|file| Ok(file.metadata()?.len() as usize));
    let sizes = sizes.collect::<io::Result<Vec<usize>>>()?;
    let mut places = sizes
        .iter()
        .map(|&size| HugePages::new(size))
        .collect::<io::Result<Vec<_>>>()?;
    let block = match way {
        Way::Direct => BLOCK_BYTES,
        // One range a thread; where there are many files, they go in turn.
        Way::Buffered if files.len() < N_THREADS => {
            sizes[0].div_ceil(N_THREADS).next_multiple_of(BLOCK_BYTES)
        }
        Way::Buffered => usize::MAX,
    };
    let mut tasks = Vec::new();
    for ((file, size), place) in files.iter().zip(sizes).zip(&mut places) {
        // A direct read wants room for whole pages, and stops at the end of the file.
        let size = if way == Way::Direct {
            size.next_multiple_of(PAGE_BYTES)
        } else {
            size
        };
        let chunks = place[..size].chunks_mut(block.min(size.max(1)));
        tasks.extend(chunks.scan(0, |next, into| {
            let position = *next;
            *next += into.len() as u64;
            Some(Task {
                file,
                position,
                into,
            })
        }));
    }
    carry_out(tasks)?;
    Ok(places)
}

fn open(way: Way, paths: &[PathBuf]) -> io::Result<Vec<File>> {
    let flags = if way == Way::Direct {
        libc::O_DIRECT
    } else {
        0
    };
    let open = |path| OpenOptions::new().read(true).custom_flags(flags).open(path);
    paths.iter().map(open).collect()
}

fn carry_out(tasks: Vec<Task<'_>>) -> io::Result<()> {
    let queue = Mutex::new(tasks.into_iter());
    let work = || -> io::Result<()> {
        loop {
            let next = queue.lock().expect("no thread panics").next();
            let Some(task) = next else { return Ok(()) };
            fill(task)?;
        }
    };
    thread::scope(|scope| {
        let threads = [(); N_THREADS].map(|()| scope.spawn(work));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}

fn fill(
    Task {
        file,
        mut position,
        mut into,
    }: Task<'_>,
) -> io::Result<()> {
    while !into.is_empty() {
        let n_read = file.read_at(into, position)?;
        if n_read == 0 {
            break;
        }
        position += n_read as u64;
        into = &mut into[n_read..];
        if n_read % PAGE_BYTES != 0 {
            // The end of the file; a direct read from here would not be aligned.
            break;
        }
    }
    Ok(())
}
