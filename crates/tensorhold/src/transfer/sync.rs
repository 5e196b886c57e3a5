//! The primitives that threads meet at, so that a model checker can stand in for them.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use std::sync::PoisonError;

use tensorhold_core::Result;

/// A signal is answered at most so much later.
#[cfg(not(loom))]
const INTERRUPT_CHECK: std::time::Duration = std::time::Duration::from_millis(50);

/// The guard of `mutex`; its state is whole whenever the lock is let go, so a panic elsewhere is no reason to stop.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condvar` is rung, or a while.
#[cfg(not(loom))]
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    let waited = condvar.wait_timeout(guard, INTERRUPT_CHECK);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(loom)]
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Whether the process is to end.
pub(crate) fn check_interrupt() -> Result<()> {
    #[cfg(loom)]
    return Ok(());
    #[cfg(not(loom))]
    tensorhold_io::check_interrupt()
}
