//! Finished weights, put where they go.

/// How weights go to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Store {
    /// Through the processor's caches, in which they stay: for what is read again soon.
    #[default]
    Through,
    /// Past them, where the processor can and weights begin at a multiple of 16 bytes: for more than they hold.
    Past,
}

/// Sees to it that other threads see what was stored past the caches, once this goes.
pub(super) struct Fence(pub(super) Store);

impl Drop for Fence {
    fn drop(&mut self) {
        if self.0 == Store::Past {
            fence();
        }
    }
}

/// Fills `into` with `from`, which is as long, past the caches where both are whole vectors and that is asked for.
#[inline(always)]
pub(super) fn put<const PAST: bool>(from: &[u8], into: &mut [u8]) {
    match PAST && into.as_ptr().addr().is_multiple_of(VECTOR) && into.len().is_multiple_of(VECTOR) {
        true => vectors_past(from.as_chunks().0, into.as_chunks_mut().0),
        false => into.copy_from_slice(from),
    }
}

/// [`put`] as `store` says.
pub(super) fn put_all(store: Store, from: &[u8], into: &mut [u8]) {
    match store {
        Store::Through => put::<false>(from, into),
        Store::Past => put::<true>(from, into),
    }
}

const VECTOR: usize = 16;

/// `into` begins at a multiple of `VECTOR`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn vectors_past(from: &[[u8; VECTOR]], into: &mut [[u8; VECTOR]]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_stream_si128};

    for (from, into) in from.iter().zip(into) {
        debug_assert!(into.as_ptr().addr().is_multiple_of(VECTOR));
        // SAFETY: all processors of this architecture have SSE2. Both are 16 bytes; the load needs no alignment, and the store
        // has it, as `put` calls this only for what begins at a multiple of 16, and each vector begins 16 bytes behind the last.
        // Nobody else reads the bytes before the borrow of `into` ends, and `Fence` comes before that.
        unsafe {
            let vector = _mm_loadu_si128(from.as_ptr().cast());
            _mm_stream_si128(into.as_mut_ptr().cast(), vector);
        }
    }
}

/// The other processors have no such stores that are stable here.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn vectors_past(from: &[[u8; VECTOR]], into: &mut [[u8; VECTOR]]) {
    into.copy_from_slice(from);
}

fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: all processors of this architecture have the instruction, which touches no memory of the program.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
