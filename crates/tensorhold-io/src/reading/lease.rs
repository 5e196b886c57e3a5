//! A promise of the system that a file keeps its bytes and its length while we look at them.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::calls::Calls;

/// A file that can be leased for reading.
///
/// The lease is held only while somebody uses it, as whoever wants to write to the file meanwhile waits. Once one did, or
/// the system refused, it is not taken again.
#[derive(Debug)]
pub(super) struct Lease {
    /// With a description of its own, which a lease belongs to.
    file: File,
    state: Mutex<State>,
    calls: &'static Calls,
}

#[derive(Debug, Default)]
struct State {
    n_users: usize,
    /// The size of the file while the lease is held.
    size_bytes: u64,
    is_refused: bool,
}

/// While it lives, the file keeps its bytes and its length.
pub(super) struct Held<'a>(&'a Lease);

impl Lease {
    pub(super) fn new(file: File, calls: &'static Calls) -> Lease {
        Lease {
            file,
            state: Mutex::default(),
            calls,
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn is_refused(&self) -> bool {
        self.state().is_refused
    }

    /// The file held as it is, if it reaches to `end` at least. It must be let go within milliseconds.
    pub(super) fn hold(&self, end: u64) -> Option<Held<'_>> {
        let mut state = self.state();
        if !state.is_refused {
            state.is_refused = match state.n_users {
                0 => self.take(&mut state).is_none(),
                // Somebody waits to write: no new user, so that the last one to go lets go of the lease.
                _ => !(self.calls.has_lease)(&self.file),
            };
        }
        if state.is_refused {
            return None;
        }
        state.n_users += 1;
        let is_whole = end <= state.size_bytes;
        drop(state);
        let held = Held(self);
        is_whole.then_some(held)
    }

    fn take(&self, state: &mut State) -> Option<()> {
        (self.calls.take_lease)(&self.file).ok()?;
        let metadata = self.file.metadata();
        if metadata.is_err() || !(self.calls.has_lease)(&self.file) {
            (self.calls.release_lease)(&self.file);
            return None;
        }
        state.size_bytes = metadata.ok()?.len();
        Some(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.n_users -= 1;
        if state.n_users == 0 {
            (self.0.calls.release_lease)(&self.0.file);
        }
    }
}
