//! Which files this process has mapped, so that it never writes into its own memory from behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::open::FileIdentity;
use crate::platform;

/// Device and inode: a mapped file keeps both, even when its last name goes.
type Key = (u64, u64);

static N_MAPS: Mutex<BTreeMap<Key, usize>> = Mutex::new(BTreeMap::new());

/// Marks a file as mapped for as long as it lives.
#[derive(Debug)]
pub(crate) struct Live(Key);

impl Live {
    pub(crate) fn mark(identity: &FileIdentity) -> Live {
        let key = (identity.device, identity.inode);
        *n_maps().entry(key).or_default() += 1;
        Live(key)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut n_maps = n_maps();
        match n_maps.get_mut(&self.0) {
            Some(n @ 2..) => *n -= 1,
            _ => {
                n_maps.remove(&self.0);
            }
        }
    }
}

/// Whether a [`Map`](crate::Map) of the file is alive in this process.
pub(crate) fn is_mapped(file: &File) -> bool {
    // A file that cannot be identified could not be mapped either.
    platform::identity(file)
        .is_ok_and(|identity| n_maps().contains_key(&(identity.device, identity.inode)))
}

fn n_maps() -> MutexGuard<'static, BTreeMap<Key, usize>> {
    // The counts are whole whenever the lock is let go.
    N_MAPS.lock().unwrap_or_else(PoisonError::into_inner)
}
