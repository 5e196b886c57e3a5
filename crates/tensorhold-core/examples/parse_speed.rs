//! How fast a header is read, and in how much memory, beside crate `safetensors` 0.8.0.
//!
//! `cargo run --release -p tensorhold-core --example parse_speed` times both, in turns.
//! With `memory ours | reference | neither` it reads one header of 99 MB once and prints the peak
//! of the process, in which `neither` has the text alone.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use tensorhold_core::{Header, Rules};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory", who] => memory(who),
        ["ours", "spaced"] => only_ours(&header(100_000).replace("\":", "\": ").replace(',', ", ")),
        ["ours", _] => only_ours(&header(100_000)),
        _ => {
            for n_tensors in [1_000, 10_000, 100_000] {
                speed("compact", n_tensors, &header(n_tensors));
            }
            // As Python's json module writes.
            let spaced = header(100_000).replace("\":", "\": ").replace(',', ", ");
            speed("spaced", 100_000, &spaced);
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

fn file(n_tensors: usize, text: &str) -> Vec<u8> {
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    file.resize(file.len() + n_tensors * 4, 0);
    file
}

fn speed(form: &str, n_tensors: usize, text: &str) {
    let file = file(n_tensors, text);
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
        "{n_tensors:>7} tensors, {form:>7}: ours {ours:>10.3?}  safetensors {theirs:>10.3?}  ratio {ratio:.1}"
    );
}

fn only_ours(text: &str) {
    let file = file(100_000, text);
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
    let n_tensors = 1_760_000;
    let text = short_header(n_tensors);
    let size = text.len();
    let n_read = match who {
        "ours" => {
            let file_size = 8 + size as u64;
            let header = Header::parse(text.into_bytes(), file_size, Rules::Strict);
            header.expect("it is right").len()
        }
        "reference" => {
            let file = [&(size as u64).to_le_bytes(), text.as_bytes()].concat();
            drop(text);
            let (_, metadata) = SafeTensors::read_metadata(&file).expect("it is right");
            metadata.offset_keys().len()
        }
        _ => 0,
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = peak
        .and_then(|peak| peak.trim().strip_suffix(" kB"))
        .unwrap_or("0");
    let ratio = kilobytes.parse::<f64>().unwrap_or(0.0) * 1024.0 / size as f64;
    println!(
        "{n_read} tensors from {size} bytes, peak {kilobytes} KiB, {ratio:.2} times the header"
    );
}

/// A header with as many tensors as the limit on its size allows.
fn short_header(n_tensors: usize) -> String {
    let mut text = String::with_capacity(100_000_000);
    text.push('{');
    for index in 0..n_tensors {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(
            text,
            "{comma}\"{index:x}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}"
        );
    }
    text.push('}');
    text.extend(std::iter::repeat_n(
        ' ',
        text.len().next_multiple_of(8) - text.len(),
    ));
    text
}
