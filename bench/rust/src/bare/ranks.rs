//! Shares of one file, each by a process of its own.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr;

use bench_programs::clock::Sample;

use crate::memory::{self, HugePages};
use crate::{BLOCK_BYTES, Outcome, PAGE_BYTES, residency};

/// A tensor, of which each rank holds as much.
#[derive(Clone, Copy)]
struct Tensor {
    position: usize,
    size_bytes: usize,
    /// Of each row a rank holds a part; of a tensor with rows of no bytes it holds a part of its bytes that lies together.
    row_bytes: usize,
}

/// Has `n_ranks` processes of one thread each take their shares of the tensors, until all have theirs.
pub fn sample(n_ranks: &str, path: &str, tensors: &[&str]) -> Outcome {
    let start = |rank: usize| -> io::Result<Child> {
        Command::new(env::current_exe()?)
            .args(["rank", &rank.to_string(), n_ranks, path])
            .args(tensors)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    };
    let ranks = (0..n_ranks.parse()?).map(start);
    let mut ranks = ranks.collect::<io::Result<Vec<Child>>>()?;
    let pipes = |rank: &mut Child| Some((rank.stdin.take()?, rank.stdout.take()?));
    let pipes = ranks.iter_mut().map(pipes).collect::<Option<Vec<_>>>();
    let (mut asking, mut answering): (Vec<ChildStdin>, Vec<ChildStdout>) =
        pipes.expect("both are piped").into_iter().unzip();
    hear(&mut answering)?;
    memory::wake()?;
    let resident = residency::resident(&[path.into()])?;
    let work = || {
        for rank in &mut asking {
            rank.write_all(b"\n").expect("the rank listens");
        }
        hear(&mut answering).expect("each rank says when it has its share");
    };
    let sample = Sample::take(work, |()| None);
    drop(asking);
    for mut rank in ranks {
        if !rank.wait()?.success() {
            return Err("a rank failed".into());
        }
    }
    Ok(sample.to_json_with(&format!("\"resident\": {resident}")))
}

/// Waits for a word of each.
fn hear(ranks: &mut [ChildStdout]) -> io::Result<()> {
    ranks
        .iter_mut()
        .try_for_each(|rank| rank.read_exact(&mut [0]))
}

/// One of them: says that it is there, takes its share when it is told to, says so, and keeps it until the other side is gone.
pub fn rank(rank: &str, n_ranks: &str, path: &Path, tensors: &[&str]) -> Outcome {
    let (rank, n_ranks): (usize, usize) = (rank.parse()?, n_ranks.parse()?);
    let tensors = tensors.iter().map(|text| parse(text));
    let tensors = tensors.collect::<Result<Vec<Tensor>, _>>()?;
    let file = File::open(path)?;
    let mut told = BufReader::new(io::stdin());
    let mut line = String::new();
    say("r")?;
    told.read_line(&mut line)?;
    let map = Map::new(&file)?;
    let held = tensors.iter().map(|tensor| tensor.size_bytes / n_ranks);
    let mut memory = HugePages::new(held.sum())?;
    let mut rest = &mut memory[..];
    for tensor in &tensors {
        let (into, later) = rest.split_at_mut(tensor.size_bytes / n_ranks);
        take(*tensor, rank, n_ranks, &file, &map, into)?;
        rest = later;
    }
    drop(map);
    say("d")?;
    told.read_line(&mut line)?;
    drop(memory);
    Ok(String::new())
}

fn say(word: &str) -> io::Result<()> {
    io::stdout().write_all(word.as_bytes())?;
    io::stdout().flush()
}

/// `POSITION:SIZE:ROW`, in bytes.
fn parse(text: &str) -> Result<Tensor, Box<dyn std::error::Error>> {
    let numbers = text.split(':').map(str::parse);
    match numbers.collect::<Result<Vec<usize>, _>>()?[..] {
        [position, size_bytes, row_bytes] => Ok(Tensor {
            position,
            size_bytes,
            row_bytes,
        }),
        _ => Err(format!("`{text}` is no tensor").into()),
    }
}

fn take(
    tensor: Tensor,
    rank: usize,
    n_ranks: usize,
    file: &File,
    map: &Map,
    into: &mut [u8],
) -> io::Result<()> {
    if tensor.row_bytes == 0 {
        let position = tensor.position + rank * into.len();
        return file.read_exact_at(into, position as u64);
    }
    let run = tensor.row_bytes / n_ranks;
    let n_rows = BLOCK_BYTES / tensor.row_bytes;
    let blocks = into.chunks_mut(n_rows * run);
    for (number, into) in blocks.enumerate() {
        let n_bytes = into.len() / run * tensor.row_bytes;
        let position = tensor.position + number * n_rows * tensor.row_bytes;
        gather(
            &map.shown(position, n_bytes)?[rank * run..],
            tensor.row_bytes,
            run,
            into,
        );
    }
    Ok(())
}

/// What is on its way from memory before it is copied.
const AHEAD_BYTES: usize = 16 << 10;

/// The first `run` bytes of each of the `rows`.
fn gather(rows: &[u8], row_bytes: usize, run: usize, into: &mut [u8]) {
    let n_ahead = AHEAD_BYTES.div_ceil(run);
    let mut later = rows.chunks(row_bytes).skip(n_ahead);
    for (into, row) in into.chunks_mut(run).zip(rows.chunks(row_bytes)) {
        if let Some(later) = later.next() {
            fetch(&later[..run]);
        }
        into.copy_from_slice(&row[..run]);
    }
}

fn fetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

        // SAFETY: all processors of this architecture have it, and it reads nothing that the program could tell.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// A file that nobody changes meanwhile, as the files of the benchmark are.
struct Map {
    start: *mut libc::c_void,
    size_bytes: usize,
}

impl Map {
    fn new(file: &File) -> io::Result<Map> {
        let size_bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let descriptor = file.as_raw_fd();
        // SAFETY: a new map at an address of the kernel's choice touches no memory that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_bytes,
                protection,
                flags,
                descriptor,
                0,
            )
        };
        match start == libc::MAP_FAILED {
            true => Err(io::Error::last_os_error()),
            false => Ok(Map { start, size_bytes }),
        }
    }

    /// Some bytes, with their pages in the tables.
    fn shown(&self, position: usize, n_bytes: usize) -> io::Result<&[u8]> {
        assert!(position + n_bytes <= self.size_bytes, "the file has them");
        let page = position / PAGE_BYTES * PAGE_BYTES;
        // SAFETY: the position lies in the map.
        let first = unsafe { self.start.add(page) };
        let n_populated = position + n_bytes - page;
        // SAFETY: these pages lie in the map; the advice changes no byte.
        match unsafe { libc::madvise(first, n_populated, libc::MADV_POPULATE_READ) } {
            // SAFETY: the bytes lie in the map, which lives as long as `self`; nobody changes or cuts the file.
            0 => Ok(unsafe {
                std::slice::from_raw_parts(self.start.cast::<u8>().add(position), n_bytes)
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this is the map that `new` made, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.start, self.size_bytes) };
    }
}
