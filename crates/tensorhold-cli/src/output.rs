//! What is printed, and where.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use tensorhold::{Checkpoint, Error, ErrorKind, Escaped, Exact};

/// What stands out.
pub(crate) const BOLD: Style = Style::new().bold();
/// What stands back.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What is good.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What is wrong.
pub(crate) const WRONG: Style = AnsiColor::Red.on_default().bold();

/// Why a command ended early.
pub(crate) enum Failure {
    /// Nobody reads stdout any more, as with `| head`: no error.
    ReaderGone,
    /// Something went wrong.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Error(
                Error::new(ErrorKind::Io, format!("cannot write to stdout: {error}"))
                    .with_os_error(error.raw_os_error()),
            ),
        }
    }
}

/// How a command ends: with an exit code, or early.
pub(crate) type Done<T = u8> = Result<T, Failure>;

/// Stdout, without colour where it is no terminal.
pub(crate) fn stdout() -> BufWriter<impl Write> {
    BufWriter::new(anstream::stdout().lock())
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &Value) -> Done<()> {
    let mut out = stdout();
    writeln!(out, "{value:#}")?;
    Ok(out.flush()?)
}

/// Prints paths, one a line.
pub(crate) fn list(paths: &[PathBuf]) -> Done<()> {
    let mut out = stdout();
    for path in paths {
        writeln!(out, "{}", Escaped(&path.to_string_lossy()))?;
    }
    Ok(out.flush()?)
}

/// What would be written over.
pub(crate) fn is_there(path: &Path) -> Error {
    Error::new(ErrorKind::InvalidArgument, "is there already")
        .with_file(path.to_string_lossy())
        .with_hint("give `--force` to replace it")
}

/// An error with its parts, for machines.
pub(crate) fn error_json(error: &Error) -> Value {
    json!({
        "kind": format!("{:?}", error.kind()),
        "message": error.message(),
        "file": error.file(),
        "tensor": error.tensor(),
        "bytes": error.bytes().map(|bytes| [bytes.start, bytes.end]),
        "hint": error.hint(),
    })
}

/// Prints an error and its hint on stderr.
pub(crate) fn print_error(error: &Error) {
    // Where stderr is closed there is nobody left to tell.
    let _ = writeln!(anstream::stderr(), "{WRONG}error:{WRONG:#} {error}");
}

/// Prints a remark on stderr.
pub(crate) fn print_note(note: &str) {
    // As for errors.
    let _ = writeln!(anstream::stderr(), "{BOLD}note:{BOLD:#} {note}");
}

/// Says which texts of a checkpoint's metadata count only as its first file has them.
pub(crate) fn note_ambiguous_metadata(path: &Path, checkpoint: &Checkpoint) {
    let path = path.to_string_lossy();
    for key in checkpoint.ambiguous_metadata() {
        print_note(&format!(
            "{}: the files differ in the metadata `{}`; the first file's counts",
            Escaped(&path),
            Escaped(key)
        ));
    }
}

/// A count with its noun: `1 tensor`, `90,305 tensors`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!(
        "{} {noun}{}",
        Exact(count),
        if count == 1 { "" } else { "s" }
    )
}
