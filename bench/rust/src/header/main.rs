//! Times what a Rust crate does with a header, and prints it as JSON.
//!
//! `header-bench WORK SIDE WARM_UP FILE` does the work once on `WARM_UP`, outside the clock, then once on `FILE`.
//! One process takes one sample, so that no memory of an earlier one is used again.
//!
//! - `parse`: the file's bytes are in memory; ends with the table of all tensors, and one of them looked up by name.
//! - `walk`: `parse`, and then each tensor's name, shape and place is asked for.
//! - `open`: `parse`, but the file is read too.

mod floor;
mod peer;
mod table;
mod tensorhold;

use std::path::Path;
use std::process::ExitCode;

use bench_programs::clock::Sample;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, side, warm_up, file] = arguments.as_slice() else {
        return failure("usage: header-bench WORK SIDE WARM_UP FILE");
    };
    let Some(run) = run(work, side) else {
        return failure(&format!("`{side}` has no work `{work}`"));
    };
    match run(warm_up.as_ref()).and_then(|_| run(file.as_ref())) {
        Ok(sample) => {
            println!("{}", sample.to_json());
            ExitCode::SUCCESS
        }
        Err(error) => failure(&error.to_string()),
    }
}

type Run = fn(&Path) -> Result<Sample, Box<dyn std::error::Error>>;

fn run(work: &str, side: &str) -> Option<Run> {
    Some(match (work, side) {
        ("parse", "tensorhold") => tensorhold::parse,
        ("walk", "tensorhold") => tensorhold::walk,
        ("open", "tensorhold") => tensorhold::open,
        ("parse", "safetensors") => peer::parse,
        ("walk", "safetensors") => peer::walk,
        ("open", "safetensors") => peer::open,
        ("parse", "bare") => floor::parse,
        ("open", "bare") => floor::open,
        _ => return None,
    })
}

fn failure(message: &str) -> ExitCode {
    eprintln!("header-bench: {message}");
    ExitCode::FAILURE
}
