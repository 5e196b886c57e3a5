//! Headers that were parsed already in this process.
//!
//! Programs open the same file once per tensor (accelerate, peft), so a header is parsed once per
//! file, not once per opening. A file is known by device, inode, size and times; one that was written a moment
//! ago is not remembered, since a second write within the clock's tick would look the same.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tensorhold_core::{Header, Rules};
use tensorhold_io::FileIdentity;

/// The headers kept take at most this many bytes of text; their tables take less than that again.
const CAPACITY_BYTES: u64 = 64 << 20;
/// Few programs have more large files open in turn; looking for the oldest stays cheap.
const MAX_HEADERS: usize = 256;
/// A smaller header is parsed sooner than it is kept.
const WORTH_BYTES: u64 = 16 << 10;
const SETTLED: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Cache {
    headers: HashMap<(FileIdentity, Rules), Entry>,
    size_bytes: u64,
    /// Counts the uses, so that the least recently used is known.
    clock: u64,
}

struct Entry {
    header: Arc<Header>,
    used: u64,
}

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

/// The header of the file with this `identity`, if it was parsed before under the same `rules`.
pub(crate) fn find(identity: &FileIdentity, rules: Rules) -> Option<Arc<Header>> {
    let mut cache = lock()?;
    cache.clock += 1;
    let now = cache.clock;
    let entry = cache.headers.get_mut(&(*identity, rules))?;
    entry.used = now;
    Some(Arc::clone(&entry.header))
}

/// Remembers `header`, and forgets the least recently used ones over the capacity.
pub(crate) fn remember(identity: FileIdentity, rules: Rules, header: &Arc<Header>) {
    let size = header.data_start();
    if !(WORTH_BYTES..=CAPACITY_BYTES).contains(&size) || !is_settled(&identity) {
        return;
    }
    let Some(mut cache) = lock() else { return };
    cache.clock += 1;
    let entry = Entry {
        header: Arc::clone(header),
        used: cache.clock,
    };
    cache.size_bytes += size;
    if let Some(before) = cache.headers.insert((identity, rules), entry) {
        cache.size_bytes -= before.header.data_start();
    }
    while cache.size_bytes > CAPACITY_BYTES || cache.headers.len() > MAX_HEADERS {
        cache.forget_oldest();
    }
}

/// The cache, unless somebody else has it: nothing waits for what saves time, and a process that was forked while
/// another thread had it, does without.
fn lock() -> Option<MutexGuard<'static, Cache>> {
    match CACHE.try_lock() {
        Ok(cache) => Some(cache),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Cache {
    fn forget_oldest(&mut self) {
        let oldest = self.headers.iter().min_by_key(|(_, entry)| entry.used);
        let key = oldest.map(|(key, _)| *key);
        if let Some(entry) = key.and_then(|key| self.headers.remove(&key)) {
            self.size_bytes -= entry.header.data_start();
        }
    }
}

fn is_settled(identity: &FileIdentity) -> bool {
    // The time of a write can be set back; that of a change cannot.
    let last = identity.modified_ns.max(identity.changed_ns);
    let changed = Duration::from_nanos(u64::try_from(last).unwrap_or(u64::MAX));
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(now) => now.checked_sub(changed).is_some_and(|age| age >= SETTLED),
        Err(_) => false,
    }
}
