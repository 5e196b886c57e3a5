//! Saves of one process to one target, one after the other in the order in which they began.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use tensorhold_core::Result;
use tensorhold_io::{check_interrupt, real_target};

/// How often a waiting save asks whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(50);

static LINES: Mutex<Lines> = Mutex::new(Lines {
    of: None,
    n_tickets: 0,
});
static MOVED: Condvar = Condvar::new();

/// Who waits for which target; the front of each line has its turn.
struct Lines {
    of: Option<HashMap<PathBuf, VecDeque<Waiting>>>,
    n_tickets: u64,
}

struct Waiting {
    ticket: u64,
    /// A child that was forked has none of the threads that would end these saves.
    process: u32,
    /// Who saves, once it is its turn.
    thread: Option<ThreadId>,
}

/// A place in the line for a target; given up when it is dropped.
///
/// Saves to one target are ordered by their places; saves to different targets do not wait for each other. A device, FIFO or
/// socket has no line. A save that a thread begins within another of its own to the same target goes first, as
/// the outer one could never end otherwise.
#[derive(Debug)]
pub struct Turn {
    place: Option<(PathBuf, u64)>,
}

impl Turn {
    /// Takes a place in the line for `target`, and does not wait.
    #[must_use]
    pub fn queue(target: &Path) -> Turn {
        let Some(target) = real_target(target) else {
            return Turn { place: None };
        };
        let mut lines = lines();
        let ticket = lines.n_tickets;
        lines.n_tickets += 1;
        let line = lines.line(&target);
        let process = std::process::id();
        line.retain(|waiting| waiting.process == process);
        let thread = thread::current().id();
        if line
            .front()
            .is_some_and(|front| front.thread == Some(thread))
        {
            return Turn { place: None };
        }
        line.push_back(Waiting {
            ticket,
            process,
            thread: None,
        });
        Turn {
            place: Some((target, ticket)),
        }
    }

    /// Takes a place and waits until it is the first.
    pub(crate) fn take(target: &Path) -> Result<Turn> {
        let turn = Turn::queue(target);
        turn.wait()?;
        Ok(turn)
    }

    /// Waits until this place is the first; from then on it is this thread's.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn wait(&self) -> Result<()> {
        let Some((target, ticket)) = &self.place else {
            return Ok(());
        };
        loop {
            let mut lines = lines();
            if let Some(front) = lines.line(target).front_mut()
                && front.ticket == *ticket
            {
                front.thread = Some(thread::current().id());
                return Ok(());
            }
            drop(MOVED.wait_timeout(lines, PATIENCE));
            check_interrupt()?;
        }
    }

    /// Leaves the turn to whatever thread waits for it next.
    pub(super) fn hand_over(&self) {
        let Some((target, ticket)) = &self.place else {
            return;
        };
        for waiting in lines().line(target) {
            if waiting.ticket == *ticket {
                waiting.thread = None;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((target, ticket)) = &self.place else {
            return;
        };
        let mut lines = lines();
        let line = lines.line(target);
        line.retain(|waiting| waiting.ticket != *ticket);
        if line.is_empty() {
            lines.of.get_or_insert_default().remove(target);
        }
        MOVED.notify_all();
    }
}

impl Lines {
    fn line(&mut self, target: &Path) -> &mut VecDeque<Waiting> {
        self.of
            .get_or_insert_default()
            .entry(target.to_owned())
            .or_default()
    }
}

fn lines() -> MutexGuard<'static, Lines> {
    // The lines are whole whenever the lock is let go.
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}
