//! How fast a header is read, and in how much memory, beside crate `safetensors` 0.8.0.
//!
//! `cargo run --release -p tensorhold-core --example parse_speed` times both, in turns.
//! With `memory ours | reference | neither` it reads one header of 99 MB once and prints the peak
//! of the process.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use tensorhold_core::{Header, Rules};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory", who] => memory(who),
        ["ours", n_tensors] => only_ours(n_tensors.parse().unwrap_or(100_000)),
        _ => {
            for n_tensors in [1_000, 10_000, 100_000] {
                speed(n_tensors);
            }
        }
    }
}

/// A header of `n_tensors` F32 tensors of one element with names as models have them.
fn header(n_tensors: usize) -> String {
    let mut text = String::with_capacity(n_tensors * 128);
    text.push('{');
    for index in 0..n_tensors {
        let comma = if index > 0 { "," } else { "" };
        let (start, end) = (index * 4, index * 4 + 4);
        let layer = index % 61;
        let _ = write!(
            text,
            "{comma}\"model.layers.{layer}.self_attn.q_proj.weight.{index}\":{{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[{start},{end}]}}"
        );
    }
    text.push('}');
    text.extend(std::iter::repeat_n(
        ' ',
        text.len().next_multiple_of(8) - text.len(),
    ));
    text
}

fn file(n_tensors: usize) -> Vec<u8> {
    let text = header(n_tensors);
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    file.resize(file.len() + n_tensors * 4, 0);
    file
}

fn speed(n_tensors: usize) {
    let file = file(n_tensors);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        ours.push(timed(|| {
            Header::parse_file(&file, Rules::Strict)
                .expect("it is right")
                .len()
        }));
        theirs.push(timed(|| {
            SafeTensors::read_metadata(&file)
                .expect("it is right")
                .1
                .data_len()
        }));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "{n_tensors:>7} tensors: ours {ours:>10.3?}  safetensors {theirs:>10.3?}  ratio {ratio:.1}"
    );
}

fn only_ours(n_tensors: usize) {
    let file = file(n_tensors);
    let times = (0..200).map(|_| {
        timed(|| {
            Header::parse_file(&file, Rules::Strict)
                .expect("it is right")
                .len()
        })
    });
    println!("{:?}", median(times.collect()));
}

/// The time to make a value; dropping it counts too, as callers pay for it.
fn timed<T>(make: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(make());
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn memory(who: &str) {
    let n_tensors = 850_000;
    match who {
        "ours" => {
            let text = header(n_tensors).into_bytes();
            let file_size = 8 + text.len() as u64 + n_tensors as u64 * 4;
            let size = text.len();
            let header = Header::parse(text, file_size, Rules::Strict).expect("it is right");
            report(size, header.len());
        }
        "reference" => {
            let file = file(n_tensors);
            let metadata = SafeTensors::read_metadata(&file).expect("it is right").1;
            report(file.len(), metadata.tensors().len());
        }
        _ => report(header(n_tensors).len(), n_tensors),
    }
}

fn report(size: usize, n_tensors: usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or("VmHWM unknown");
    println!("{n_tensors} tensors, header of {size} bytes, {peak}");
}
