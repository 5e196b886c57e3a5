//! The command `tensorhold`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tensorhold_cli::run(std::env::args_os().skip(1).collect()))
}
