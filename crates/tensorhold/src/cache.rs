//! Headers that were parsed already in this process.
//!
//! Programs open the same file once per tensor (accelerate, peft), so a header is parsed once per
//! file, not once per opening. A file is known by device, inode, size and times; one that was written a moment
//! ago is not remembered, since a second write within the clock's tick would look the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tensorhold_core::{Header, Rules};
use tensorhold_io::FileIdentity;

/// The headers kept take at most this many bytes of text; entries and names about double it.
const CAPACITY_BYTES: u64 = 64 << 20;
const SETTLED: Duration = Duration::from_millis(50);

struct Entry {
    identity: FileIdentity,
    rules: Rules,
    header: Arc<Header>,
}

/// Least recently used first.
static CACHE: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// The header of the file with this `identity`, if it was parsed before under the same `rules`.
pub(crate) fn find(identity: &FileIdentity, rules: Rules) -> Option<Arc<Header>> {
    let mut entries = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let at = entries
        .iter()
        .position(|entry| entry.rules == rules && entry.identity == *identity)?;
    let entry = entries.remove(at);
    let header = Arc::clone(&entry.header);
    entries.push(entry);
    Some(header)
}

/// Remembers `header`, and forgets the least recently used ones over the capacity.
pub(crate) fn remember(identity: FileIdentity, rules: Rules, header: &Arc<Header>) {
    if !is_settled(&identity) || header.data_start() > CAPACITY_BYTES {
        return;
    }
    let mut entries = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    entries.push(Entry {
        identity,
        rules,
        header: Arc::clone(header),
    });
    let mut total: u64 = entries.iter().map(|entry| entry.header.data_start()).sum();
    while total > CAPACITY_BYTES {
        total -= entries.remove(0).header.data_start();
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
