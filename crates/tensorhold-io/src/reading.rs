//! One file, as one transfer reads it: the way is chosen once, by what was asked for and what the system can do.

use std::fmt;
use std::sync::Arc;
use std::thread;

use tensorhold_core::{Result, Source};

use crate::{Map, Pread, is_network};

/// How a caller wants its bytes read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// By what is fastest for this file now.
    #[default]
    Auto,
    /// From a map of the file.
    Mapped,
    /// Through the page cache.
    Buffered,
    /// Past the page cache, where the file system lets us.
    Direct,
}

/// How a [`Reading`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the map that was given.
    Mapped,
    /// Copied out of the page cache.
    Copied,
    /// Read through the page cache.
    Buffered,
    /// Read past the page cache.
    Direct,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::Mapped => "mapped",
            Way::Copied => "copied",
            Way::Buffered => "buffered",
            Way::Direct => "direct",
        })
    }
}

/// How many reads keep a network file system busy: most of the time they wait.
const N_NETWORK_READERS: usize = 16;

/// More threads than this only wait for the memory.
const MAX_LOCAL_READERS: usize = 8;

/// A file that one transfer reads from, by any number of threads at once.
#[derive(Debug)]
pub struct Reading {
    file: Arc<Pread>,
    map: Option<Arc<Map>>,
    is_network: bool,
}

impl Reading {
    /// A reading of about `wanted_bytes` of `file`, with `map` if the caller has one. What the system refuses is done in
    /// another way.
    #[must_use]
    pub fn new(
        file: &Arc<Pread>,
        map: Option<&Arc<Map>>,
        access: Access,
        wanted_bytes: u64,
    ) -> Reading {
        let _ = wanted_bytes;
        Reading {
            file: Arc::clone(file),
            map: map.filter(|_| access == Access::Mapped).cloned(),
            is_network: is_network(file.file()),
        }
    }

    /// How it reads at the moment.
    #[must_use]
    pub fn way(&self) -> Way {
        match self.map {
            Some(_) => Way::Mapped,
            None => Way::Buffered,
        }
    }

    /// How many threads should read from it at once.
    #[must_use]
    pub fn n_readers(&self) -> usize {
        match self.is_network {
            true => N_NETWORK_READERS,
            false => thread::available_parallelism()
                .map_or(1, usize::from)
                .min(MAX_LOCAL_READERS),
        }
    }

    /// Whether each thread should read one contiguous stretch, as the page cache reads ahead for each.
    #[must_use]
    pub fn wants_contiguous(&self) -> bool {
        self.way() == Way::Buffered && !self.is_network
    }
}

impl Source for Reading {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        match &self.map {
            Some(map) => map.read_at(position, into),
            None => self.file.read_at(position, into),
        }
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        self.map.as_ref().map(|map| Map::as_bytes(map))
    }
}
