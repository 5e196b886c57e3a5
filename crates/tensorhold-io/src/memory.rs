//! How much memory is free.

use crate::platform;

/// The memory that can be had without pushing anything out, in bytes, by what the system and the limits of the container
/// say; `None` where they say nothing.
#[must_use]
pub fn available_memory() -> Option<u64> {
    platform::free_memory_bytes()
}
