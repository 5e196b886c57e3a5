//! Devices do not survive a fork: the process that used one first keeps them.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use tensorhold_core::{Error, ErrorKind, Result};

/// The process that uses devices, or 0.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Makes this process the one that uses devices.
///
/// # Errors
/// `Device` if a process that this one was forked from has used one.
pub(crate) fn enter() -> Result<()> {
    let this = process::id();
    // The number stands for itself; nothing else is ordered by it.
    match OWNER.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed) {
        Err(owner) if owner != this => Err(refused()),
        _ => Ok(()),
    }
}

/// # Errors
/// As [`enter`], for who only looks.
pub(crate) fn check() -> Result<()> {
    match is_child() {
        true => Err(refused()),
        false => Ok(()),
    }
}

/// Whether this process was forked from one that has used devices.
pub(crate) fn is_child() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != process::id()
}

fn refused() -> Error {
    Error::new(
        ErrorKind::Device,
        "devices do not survive a fork; start the process with spawn",
    )
}
