//! Things that threads make ahead of the one who takes them, in their order.
//!
//! ```text
//! makers: take the next number, unless it is too far ahead of what was taken; make it; put it down
//! taker:  waits for the number that is next
//! ```

#[cfg(all(test, loom))]
mod model;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::transfer::sync::{self, Condvar, Mutex, MutexGuard, check_interrupt};

/// More threads than this wait for memory, and a disk takes less than a few make.
const MAX_THREADS: usize = 8;
/// So many things are made ahead of the one that is taken, for each thread.
const N_AHEAD: usize = 2;

/// The threads that make what is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Makers {
    n_threads: usize,
}

impl Makers {
    /// So many threads, or as many as the machine has, and never more than are of use.
    pub fn new(n_threads: Option<usize>) -> Makers {
        let there = thread::available_parallelism().map_or(1, NonZero::get);
        let n_threads = n_threads.unwrap_or(there).clamp(1, MAX_THREADS);
        Makers { n_threads }
    }

    /// Has them make so many things while `take` takes these, each in `room` of its thread's own.
    ///
    /// # Errors
    /// Those of `take`; `NoMemory` where the system gives not one thread.
    pub fn ahead<T: Send, R, S>(
        self,
        n_things: usize,
        room: impl Fn() -> R + Sync,
        make: impl Fn(usize, &mut R) -> Result<T> + Sync,
        take: impl FnOnce(&Ahead<T>) -> Result<S>,
    ) -> Result<S> {
        let ahead = Ahead::new(n_things, N_AHEAD * self.n_threads);
        ahead.while_making(self.n_threads.min(n_things), room, make, || take(&ahead))
    }

    /// Does `work` for each unit, some at once, and hands what comes of it to `put` in their order.
    ///
    /// # Errors
    /// Those of `work` and `put`.
    pub fn in_order<U: Sync, T: Send>(
        self,
        units: &[U],
        work: &(dyn Fn(&U) -> Result<T> + Sync),
        put: &mut dyn FnMut(T) -> Result<()>,
    ) -> Result<()> {
        if self.n_threads == 1 || units.len() < 2 {
            return units.iter().try_for_each(|unit| {
                check_interrupt()?;
                put(work(unit)?)
            });
        }
        let make = |number: usize, (): &mut ()| work(&units[number]);
        let room = || ();
        self.ahead(units.len(), room, make, |ahead| {
            units.iter().try_for_each(|_| put(ahead.next()?))
        })
    }
}

/// Things by their numbers, made by some threads and taken by one.
pub(crate) struct Ahead<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    n_things: usize,
    /// So many may be made, or being made, that were not taken.
    n_ahead: usize,
}

struct State<T> {
    next_to_make: usize,
    next_to_take: usize,
    made: BTreeMap<usize, Result<T>>,
    is_over: bool,
}

impl<T: Send> Ahead<T> {
    fn new(n_things: usize, n_ahead: usize) -> Ahead<T> {
        Ahead {
            state: Mutex::new(State {
                next_to_make: 0,
                next_to_take: 0,
                made: BTreeMap::new(),
                is_over: false,
            }),
            changed: Condvar::new(),
            n_things,
            n_ahead,
        }
    }

    /// Has `n_threads` threads make things while `take` takes them with [`next`](Ahead::next); ends them when it returns.
    fn while_making<R, S>(
        &self,
        n_threads: usize,
        room: impl Fn() -> R + Sync,
        make: impl Fn(usize, &mut R) -> Result<T> + Sync,
        take: impl FnOnce() -> Result<S>,
    ) -> Result<S> {
        let work = || self.make_all(room(), &make);
        thread::scope(|scope| {
            let _over = Over(self);
            for number in 0..n_threads.max(1) {
                let thread = thread::Builder::new().name("tensorhold".to_owned());
                if thread.spawn_scoped(scope, work).is_err() && number == 0 {
                    let message = "the system has no thread to work in";
                    return Err(Error::new(ErrorKind::NoMemory, message));
                }
            }
            take()
        })
    }

    /// Makes what no other thread makes, until there is no more.
    fn make_all<R>(&self, mut room: R, make: &impl Fn(usize, &mut R) -> Result<T>) {
        let _over = Over(self);
        while let Some(number) = self.number() {
            let made = make(number, &mut room);
            self.state().made.insert(number, made);
            self.changed.notify_all();
        }
    }

    /// The next thing.
    ///
    /// # Errors
    /// That of making it, and that of a signal meanwhile.
    ///
    /// # Panics
    /// If all were taken.
    pub fn next(&self) -> Result<T> {
        check_interrupt()?;
        let mut state = self.state();
        assert!(state.next_to_take < self.n_things, "there is a next one");
        loop {
            let number = state.next_to_take;
            if let Some(made) = state.made.remove(&number) {
                state.next_to_take += 1;
                drop(state);
                self.changed.notify_all();
                return made;
            }
            if state.is_over {
                let message = "a thread that was at work came to a sudden end";
                return Err(Error::new(ErrorKind::Io, message));
            }
            check_interrupt()?;
            state = sync::wait(&self.changed, state);
        }
    }

    /// The number that a maker is to make next; `None` when there is no more.
    fn number(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            if state.is_over || state.next_to_make == self.n_things {
                return None;
            }
            if state.next_to_make < state.next_to_take + self.n_ahead {
                state.next_to_make += 1;
                return Some(state.next_to_make - 1);
            }
            state = sync::wait(&self.changed, state);
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        sync::lock(&self.state)
    }
}

/// Ends everybody's waiting where a thread goes in the middle of its work, and where the taker goes.
struct Over<'a, T: Send>(&'a Ahead<T>);

impl<T: Send> Drop for Over<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        // A maker that has nothing left to make leaves the others to theirs.
        let is_left = state.next_to_make < self.0.n_things;
        state.is_over |= is_left || thread::panicking();
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn things_come_in_order_and_not_too_far_ahead() {
        let ahead = Ahead::new(200, 3);
        let (n_made, n_taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let make = |number: usize, _: &mut ()| {
            let apart = n_made.fetch_add(1, Ordering::SeqCst) + 1 - n_taken.load(Ordering::SeqCst);
            // The one that is being handed over is counted by neither.
            assert!(apart <= 4, "{apart} are made and not taken");
            Ok(number)
        };
        let taken = ahead.while_making(
            4,
            || (),
            make,
            || {
                (0..200)
                    .map(|_| {
                        let next = ahead.next();
                        n_taken.fetch_add(1, Ordering::SeqCst);
                        next
                    })
                    .collect::<Result<Vec<usize>>>()
            },
        );
        assert_eq!(taken.unwrap(), (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn a_failure_comes_where_its_thing_would() {
        let ahead = Ahead::new(9, 4);
        let make = |number: usize, _: &mut ()| match number {
            2 => Err(Error::new(ErrorKind::Io, "number 2")),
            _ => Ok(number),
        };
        let mut taken = Vec::new();
        let error = ahead.while_making(
            2,
            || (),
            make,
            || {
                loop {
                    taken.push(ahead.next()?);
                }
                #[allow(unreachable_code, reason = "the type of the closure")]
                Ok(())
            },
        );
        assert_eq!(error.unwrap_err().message(), "number 2");
        assert_eq!(taken, [0, 1]);
    }
}
