//! How tables grow: by what the rest of the text will need, not by doubling.

use alloc::vec::Vec;

/// How much of a text has been read.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    pub read_bytes: usize,
    pub total_bytes: usize,
}

/// Makes room for `n_more` items, and for those that the rest of the text brings if it goes on as
/// it began; at most for eight times those that are there, as it need not.
#[inline]
pub(super) fn make_room<T>(items: &mut Vec<T>, n_more: usize, progress: Progress) {
    if items.capacity() - items.len() < n_more {
        grow(items, n_more, progress);
    }
}

#[cold]
fn grow<T>(items: &mut Vec<T>, n_more: usize, progress: Progress) {
    let n_items = items.len() as u64;
    let expected = n_items * progress.total_bytes as u64 / progress.read_bytes.max(1) as u64;
    let missing = expected
        .saturating_sub(n_items)
        .clamp(n_items / 4, n_items * 7);
    items.reserve_exact(n_more.max(4) + missing as usize);
}
