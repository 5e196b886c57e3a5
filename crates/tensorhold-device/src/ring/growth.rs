//! How the ring gets its segments: the first while its taker waits, the others beside the transfer that wants them.

use std::sync::MutexGuard;
use std::thread;

use tensorhold_core::Result;

use super::state::State;
use super::{CHANGED, lock};
use crate::device::Device;
use crate::pinned::Segment;

/// Says that the ring has stopped to grow, when it is dropped; the lock is not held then.
struct Growing;

impl Drop for Growing {
    fn drop(&mut self) {
        lock().is_growing = false;
        CHANGED.notify_all();
    }
}

/// Makes the first segment, with the lock let go meanwhile: of memory that is not pinned where none can be.
pub(super) fn first(
    mut state: MutexGuard<'static, State>,
    device: Device,
    n_slots: usize,
) -> Result<MutexGuard<'static, State>> {
    state.is_growing = true;
    drop(state);
    let growing = Growing;
    let segment = match Segment::pinned(device, n_slots) {
        Some(segment) => segment,
        None => Segment::plain(device, n_slots)?,
    };
    let mut state = lock();
    // What is not pinned holds nothing up by being less.
    state.is_stuck = !segment.is_pinned();
    state.add(segment);
    drop(state);
    drop(growing);
    Ok(lock())
}

/// Lets a thread make one more segment, which ends with that.
pub(super) fn in_background(state: &mut State, device: Device, n_slots: usize) {
    state.is_growing = true;
    let grow = move || {
        let _growing = Growing;
        let segment = match device.select() {
            Ok(()) => Segment::pinned(device, n_slots),
            Err(_) => None,
        };
        let mut state = lock();
        match segment {
            // The limit may have been lowered meanwhile.
            Some(segment) if has_room(&state, &segment) => state.add(segment),
            Some(segment) => {
                drop(state);
                drop(segment);
            }
            None => state.is_stuck = true,
        }
    };
    let name = "tensorhold-ring".to_owned();
    if thread::Builder::new().name(name).spawn(grow).is_err() {
        // The slots that there are must do.
        state.is_growing = false;
    }
}

fn has_room(state: &State, segment: &Segment) -> bool {
    let limit_bytes = state.limit_bytes().unwrap_or(state.default_bytes);
    state.room(limit_bytes) >= segment.n_slots()
}
