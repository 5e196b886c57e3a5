//! Whether a long read or write is still wanted.
//!
//! A program that must end when its user says so (Python, at Ctrl-C) sets a check once; reads and writes ask it
//! between pieces, and when a signal ends a system call early.

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

/// Asks whether the work of this process is to end, for who waits rather than reads.
///
/// # Errors
/// `Interrupted` if it is.
pub fn check_interrupt() -> Result<()> {
    check()
}
