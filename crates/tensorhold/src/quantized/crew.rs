//! Threads that share work out: each takes the next unit that nobody has taken.

#[cfg(all(test, loom))]
mod model;

use std::sync::PoisonError;
use std::thread;

use tensorhold_core::{Error, Result};

use crate::transfer::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, check_interrupt, lock};

/// Units of work that are taken in their order, until one fails.
struct Queue {
    next: AtomicUsize,
    n_units: usize,
    is_over: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Queue {
    fn new(n_units: usize) -> Queue {
        Queue {
            next: AtomicUsize::new(0),
            n_units,
            is_over: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    fn take(&self) -> Option<usize> {
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let unit = self.next.fetch_add(1, Ordering::Relaxed);
        (unit < self.n_units).then_some(unit)
    }

    /// Ends the work; what failed first is kept.
    fn fail(&self, error: Error) {
        self.is_over.store(true, Ordering::Relaxed);
        lock(&self.failure).get_or_insert(error);
    }

    fn done(self) -> Result<()> {
        let failure = self.failure.into_inner();
        match failure.unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Does `work` for every unit, in the calling thread and others, `n_threads` in all; each has a `room` of its own. `after` is called in the
/// calling thread now and then, and ends the work by an error.
///
/// # Errors
/// Whatever failed first.
pub(super) fn share_out<R>(
    n_units: usize,
    n_threads: usize,
    room: impl Fn() -> R + Sync,
    work: impl Fn(usize, &mut R) -> Result<()> + Sync,
    after: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let queue = Queue::new(n_units);
    let help = |after: &mut dyn FnMut() -> Result<()>| {
        let mut room = room();
        while let Some(unit) = queue.take() {
            let done = check_interrupt().and_then(|()| work(unit, &mut room));
            if let Err(error) = done.and_then(|()| after()) {
                queue.fail(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..n_threads.min(n_units) {
            let thread = thread::Builder::new().name("tensorhold".to_owned());
            // Where the system gives no more threads, fewer do it.
            if thread.spawn_scoped(scope, || help(&mut || Ok(()))).is_err() {
                break;
            }
        }
        help(after);
    });
    after()?;
    queue.done()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

    use tensorhold_core::ErrorKind;

    use super::*;

    #[test]
    fn each_unit_is_done_once() {
        let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        let work = |unit: usize, _: &mut ()| {
            counts[unit].fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        share_out(100, 4, || (), work, &mut || Ok(())).unwrap();
        assert!(
            counts
                .iter()
                .all(|count| count.load(Ordering::Relaxed) == 1)
        );
    }

    #[test]
    fn a_failure_ends_the_work_and_is_told() {
        let n_done = AtomicUsize::new(0);
        let work = |unit: usize, _: &mut ()| {
            n_done.fetch_add(1, Ordering::Relaxed);
            match unit {
                3 => Err(Error::new(ErrorKind::Io, "unit 3")),
                _ => Ok(()),
            }
        };
        let error = share_out(1000, 1, || (), work, &mut || Ok(())).unwrap_err();
        assert_eq!(error.message(), "unit 3");
        assert_eq!(n_done.into_inner(), 4);
    }
}
