//! The physical limits: the plainest programs that move the bytes of files, by a few threads or processes, nothing checked.
//!
//! - `bare read buffered|direct WARM_UP FILE...` reads files into huge pages: `pread` of a contiguous range a thread,
//!   or past the page cache, 8 MiB at a time.
//! - `bare write buffered|direct none|data SOURCE TARGET` writes the bytes of `SOURCE`, which are in memory, to
//!   `TARGET`, and with `data` waits until they are on disk.
//! - `bare ranks N FILE POSITION:SIZE:ROW...` has N processes take a part each of tensors in the page cache: of the bytes by
//!   `pread`, or, where ROW is not 0, of each row of so many bytes, out of a map.
//! - `bare widen streamed|cached GROWTH FILE` looks at every byte of a file in the page cache and stores GROWTH times as many in huge pages.
//!
//! Each prints one sample as JSON. What is in the page cache is the caller's affair; `resident` says how much was.

mod memory;
mod ranks;
mod read;
mod residency;
mod widen;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;

/// How a program reaches the file.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Through the page cache.
    Buffered,
    /// Past it, with `O_DIRECT`.
    Direct,
}

const N_THREADS: usize = 2;
const BLOCK_BYTES: usize = 8 << 20;
const PAGE_BYTES: usize = 4096;

type Outcome = Result<String, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(sample) => {
            println!("{sample}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["read", way, warm_up, paths @ ..] if !paths.is_empty() => {
            read::sample(parse(way)?, warm_up.as_ref(), &owned(paths))
        }
        ["write", way, durability @ ("none" | "data"), source, target] => write::sample(
            parse(way)?,
            *durability == "data",
            source.as_ref(),
            target.as_ref(),
        ),
        ["widen", stores @ ("streamed" | "cached"), growth, path] => {
            let stores = match *stores {
                "streamed" => widen::Stores::Streamed,
                _ => widen::Stores::Cached,
            };
            widen::sample(stores, growth.parse()?, path.as_ref())
        }
        ["ranks", n_ranks, path, tensors @ ..] => ranks::sample(n_ranks, path, tensors),
        ["rank", rank, n_ranks, path, tensors @ ..] => {
            ranks::rank(rank, n_ranks, path.as_ref(), tensors)
        }
        _ => Err("usage: bare read buffered|direct WARM_UP FILE... | write buffered|direct none|data SOURCE TARGET | ranks N FILE POSITION:SIZE:ROW... | widen streamed|cached GROWTH FILE".into()),
    }
}

fn parse(way: &str) -> Result<Way, String> {
    match way {
        "buffered" => Ok(Way::Buffered),
        "direct" => Ok(Way::Direct),
        _ => Err(format!("`{way}` is no way to a file")),
    }
}

fn owned(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}
