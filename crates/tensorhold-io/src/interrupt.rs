//! Whether a long read or write is still wanted.
//!
//! A program that must end when its user says so (Python, at Ctrl-C) sets a check once; reads and writes ask it
//! between pieces, and when a signal ends a system call early.

use std::io;
use std::sync::OnceLock;

use tensorhold_core::{Error, ErrorKind, Result};

/// What is read or written between two checks.
pub(crate) const PIECE_BYTES: usize = 16 << 20;

static CHECK: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets the check for this process, which gives `true` where work is to end; the first one set stays.
///
/// It is called in whatever thread reads or writes, and may block.
pub fn set_interrupt_check(check: fn() -> bool) {
    // A second check would be of a second binding in the process, which ends with the first.
    let _ = CHECK.set(check);
}

/// Gives `Interrupted` where the work is to end.
pub(crate) fn check() -> Result<()> {
    match CHECK.get() {
        Some(check) if check() => Err(Error::new(ErrorKind::Interrupted, "interrupted")),
        _ => Ok(()),
    }
}

/// What `call` gives, which is made again where a signal ended it early and the work is not to end for it.
pub(crate) fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && check().is_ok() => {}
            result => return result,
        }
    }
}

/// Asks whether the work of this process is to end, for who waits rather than reads.
///
/// # Errors
/// `Interrupted` if it is.
pub fn check_interrupt() -> Result<()> {
    check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_a_signal_ended_is_made_again() {
        let mut n_calls = 0;
        let called = retried(|| {
            n_calls += 1;
            match n_calls {
                1 | 2 => Err(io::ErrorKind::Interrupted.into()),
                _ => Ok(n_calls),
            }
        });
        assert_eq!(called.unwrap(), 3);
        let refused = retried(|| Err::<(), _>(io::ErrorKind::OutOfMemory.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
