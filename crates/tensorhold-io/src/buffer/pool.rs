//! Memory of dropped buffers, kept for the next ones: fresh pages cost more than the bytes that are read into them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, TryLockError};

use super::region::Region;

/// Enough for the few buffers of a stream, little beside a model.
const DEFAULT_LIMIT_BYTES: usize = 256 << 20;

/// How often the lock is tried. A child of a process that forked while another thread held it never gets it,
/// and must do without the pool.
const MAX_TRIES: usize = 100;

struct Pool {
    /// The longest unused first.
    regions: VecDeque<Region>,
    size_bytes: usize,
    limit_bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    regions: VecDeque::new(),
    size_bytes: 0,
    limit_bytes: DEFAULT_LIMIT_BYTES,
});

/// Sets how much memory of dropped buffers this process keeps for new ones: 256 MiB unless set, none with 0. What is
/// over it is freed at once.
pub fn set_pool_limit(limit_bytes: usize) {
    let Some(mut pool) = lock() else { return };
    pool.limit_bytes = limit_bytes;
    let surplus = pool.take_surplus();
    drop(pool);
    surplus.into_iter().for_each(Region::free);
}

/// Frees what the pool holds, and gives its bytes.
pub fn release_pool() -> usize {
    let Some(mut pool) = lock() else { return 0 };
    let regions = std::mem::take(&mut pool.regions);
    let n_bytes = std::mem::take(&mut pool.size_bytes);
    drop(pool);
    regions.into_iter().for_each(Region::free);
    n_bytes
}

/// A region of at least `capacity` bytes and at most an eighth more.
pub(super) fn take(capacity: usize) -> Option<Region> {
    let mut pool = lock()?;
    let fitting = capacity..=capacity.saturating_add(capacity / 8);
    let sizes = pool.regions.iter().map(Region::capacity).enumerate();
    let (index, _) = sizes
        .filter(|(_, size)| fitting.contains(size))
        .min_by_key(|(_, size)| *size)?;
    let region = pool.regions.remove(index)?;
    pool.size_bytes -= region.capacity();
    Some(region)
}

/// Keeps `region`, and frees what is then too much.
pub(super) fn give(region: Region) {
    let Some(mut pool) = lock() else {
        return region.free();
    };
    if region.capacity() > pool.limit_bytes {
        drop(pool);
        return region.free();
    }
    pool.size_bytes += region.capacity();
    pool.regions.push_back(region);
    let surplus = pool.take_surplus();
    drop(pool);
    surplus.into_iter().for_each(Region::free);
}

impl Pool {
    fn take_surplus(&mut self) -> Vec<Region> {
        let mut surplus = Vec::new();
        while self.size_bytes > self.limit_bytes {
            let Some(region) = self.regions.pop_front() else {
                break;
            };
            self.size_bytes -= region.capacity();
            surplus.push(region);
        }
        surplus
    }
}

fn lock() -> Option<MutexGuard<'static, Pool>> {
    for _ in 0..MAX_TRIES {
        match POOL.try_lock() {
            Ok(pool) => return Some(pool),
            // The list and its size are changed together, without anything that panics between.
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}
