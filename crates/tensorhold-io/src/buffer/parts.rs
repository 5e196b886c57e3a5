//! A buffer in the hands of several threads.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Buffer;

/// A range of a [`Buffer`], and the only way to its bytes.
///
/// A part that is dropped without being joined was not filled: the buffer is then never given back, and goes with
/// its last part.
pub struct Part {
    start: NonNull<u8>,
    len: usize,
    /// `None` only while it is dropped.
    whole: Option<Arc<Whole>>,
}

struct Whole {
    buffer: Buffer,
    is_abandoned: AtomicBool,
}

// SAFETY: the range is no other part's, as `split` checks, and the buffer itself is not touched before all parts are
// gone; so the part is the only way to its bytes, which stay valid as it holds the buffer.
unsafe impl Send for Part {}
// SAFETY: a shared part gives out only `&[u8]`.
unsafe impl Sync for Part {}

pub(super) fn split(buffer: Buffer, ranges: &[Range<usize>]) -> Vec<Part> {
    let mut end = 0;
    for range in ranges {
        assert!(
            end <= range.start && range.start <= range.end && range.end <= buffer.len(),
            "parts must be ascending, apart and inside the buffer"
        );
        end = range.end;
    }
    let first = buffer.start;
    let whole = Arc::new(Whole {
        buffer,
        is_abandoned: AtomicBool::new(false),
    });
    let part = |range: &Range<usize>| Part {
        // SAFETY: the range lies inside the buffer, which is one allocation.
        start: unsafe { first.add(range.start) },
        len: range.len(),
        whole: Some(Arc::clone(&whole)),
    };
    let parts = ranges.iter().map(part).collect();
    // Nobody else may hold the buffer: the last part to be joined must be able to take it.
    drop(whole);
    parts
}

impl Part {
    /// Gives the part back as filled: the buffer, if it is the last one of it and all others were given back before.
    #[must_use = "the last part's buffer is dropped here"]
    pub fn join(mut self) -> Option<Buffer> {
        let whole = Arc::into_inner(self.whole.take()?)?;
        (!whole.is_abandoned.into_inner()).then_some(whole.buffer)
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are valid and initialized, as the buffer's are, and this part's alone; `len` is within the buffer's.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Part {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(whole) = &self.whole {
            // Whoever takes the buffer sees it: letting go of the `Arc` orders it before.
            whole.is_abandoned.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({} bytes at {:p})", self.len, self.start)
    }
}
