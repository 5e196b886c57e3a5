//! The command `tensorhold`: arguments in, calls out.
//!
//! ```
//! assert_eq!(tensorhold_cli::run(vec!["--version".into()]), 0);
//! assert_eq!(tensorhold_cli::run(vec!["no-such-command".into()]), 2);
//! ```
//!
//! Data goes to stdout, everything else to stderr. What the commands do is in the crate `tensorhold`; here is how it
//! is asked for and shown.

mod chunks;
mod convert;
mod dequantize;
mod diff;
mod division;
mod inspect;
mod output;
mod plan;
mod progress;
mod quantize;
mod quantized;
mod repack;
mod reshard;
mod rewrite;
mod scan;
mod verify;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::output::Failure;

/// All is well, and what was compared is the same.
const FINE: u8 = 0;
/// A file is wrong, or what was compared differs.
const DIFFERENT: u8 = 1;
/// The arguments are wrong, or something could not be read or written.
const FAILED: u8 = 2;

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well; what was compared is the same
  1  a file is wrong; what was compared differs; what was scanned is unknown or dangerous
  2  the arguments are wrong, or something cannot be read or written";

/// Looks into, checks, cuts, joins, compares and converts checkpoints of model weights.
#[derive(Parser)]
#[command(name = "tensorhold", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Plan(plan::Plan),
    Shard(reshard::Shard),
    Merge(reshard::Merge),
    Consolidate(chunks::Consolidate),
    Reshard(chunks::Reshard),
    Diff(diff::Diff),
    Convert(convert::Convert),
    Dequantize(dequantize::Dequantize),
    Quantize(quantize::Quantize),
    Repack(repack::Repack),
    Scan(scan::Scan),
}

/// Runs the command line; `arguments` without the program's name. Gives the exit code.
#[must_use]
pub fn run(arguments: Vec<OsString>) -> u8 {
    let program = std::iter::once(OsString::from("tensorhold"));
    let command = match Arguments::try_parse_from(program.chain(arguments)) {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // Help and version are no errors; where they cannot be printed, nobody reads them.
            let _ = error.print();
            return if error.use_stderr() { FAILED } else { FINE };
        }
    };
    let done = match command {
        Command::Inspect(inspect) => inspect.run(),
        Command::Verify(verify) => verify.run(),
        Command::Plan(plan) => plan.run(),
        Command::Shard(shard) => shard.run(),
        Command::Merge(merge) => merge.run(),
        Command::Consolidate(consolidate) => consolidate.run(),
        Command::Reshard(reshard) => reshard.run(),
        Command::Diff(diff) => diff.run(),
        Command::Convert(convert) => convert.run(),
        Command::Dequantize(dequantize) => dequantize.run(),
        Command::Quantize(quantize) => quantize.run(),
        Command::Repack(repack) => repack.run(),
        Command::Scan(scan) => scan.run(),
    };
    match done {
        Ok(code) => code,
        Err(Failure::ReaderGone) => FINE,
        Err(Failure::Error(error)) => {
            output::print_error(&error);
            FAILED
        }
    }
}
