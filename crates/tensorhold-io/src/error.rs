//! What the operating system refuses, told as this project's errors.

use std::io;
use std::path::Path;

use tensorhold_core::{Error, ErrorKind};

/// The error for `error`, which came up while `doing` (a verb such as `open`) something with `path`.
///
/// It keeps the system's own text and number: `` model.safetensors: cannot open: No such file or directory ``.
#[must_use]
pub fn io_error(error: io::Error, path: &Path, doing: &str) -> Error {
    cannot(&error, doing).with_file(path.display().to_string())
}

/// As [`io_error`], where the caller knows the file's name better.
pub(crate) fn cannot(error: &io::Error, doing: &str) -> Error {
    Error::new(kind(error), format!("cannot {doing}: {}", text(error)))
        .with_os_error(error.raw_os_error())
}

pub(crate) fn kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::IsADirectory => ErrorKind::NotRegularFile,
        io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
        io::ErrorKind::Interrupted => ErrorKind::Interrupted,
        _ => ErrorKind::Io,
    }
}

/// The system's words, without the number that std puts behind them.
pub(crate) fn text(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rfind(" (os error ")) {
        (Some(_), Some(end)) => text[..end].to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_keep_their_text_and_number() {
        let error = io_error(io::Error::from_raw_os_error(2), Path::new("a.bin"), "open");
        assert_eq!(
            error.to_string(),
            "a.bin: cannot open: No such file or directory"
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.os_error(), Some(2));
    }

    #[test]
    fn errors_without_a_number_keep_their_whole_text() {
        let error = io_error(io::Error::other("odd (os error"), Path::new("a"), "read");
        assert_eq!(error.to_string(), "a: cannot read: odd (os error");
        assert_eq!(error.os_error(), None);
    }
}
