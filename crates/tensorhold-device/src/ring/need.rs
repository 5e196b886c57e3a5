//! How much of the ring is needed, as far as those who need it say so.

use super::{CHANGED, lock};
use crate::fork;
use crate::slot::Slot;

/// Keeps the ring small: while such live, it grows to no more than all of them together name, and to no more than its
/// limit. Slots that there are already are used.
#[derive(Debug)]
pub struct RingNeed {
    n_slots: usize,
}

impl RingNeed {
    /// The need for slots for `bytes` bytes; for one slot at least.
    #[must_use]
    pub fn new(bytes: u64) -> RingNeed {
        let n_slots = usize::try_from(bytes.div_ceil(Slot::BYTES as u64));
        let n_slots = n_slots.unwrap_or(usize::MAX).max(1);
        if !fork::is_child() {
            let mut state = lock();
            state.needs.push(n_slots);
            drop(state);
            // Who waits for a slot may let the ring grow now.
            CHANGED.notify_all();
        }
        RingNeed { n_slots }
    }
}

impl Drop for RingNeed {
    fn drop(&mut self) {
        // The ring is the parent's.
        if fork::is_child() {
            return;
        }
        let needs = &mut lock().needs;
        if let Some(index) = needs.iter().position(|&need| need == self.n_slots) {
            needs.swap_remove(index);
        }
    }
}
