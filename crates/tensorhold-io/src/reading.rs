//! One file, as one transfer reads it: the way is chosen once, by what was asked for and what the system can do.

mod behind;
mod calls;
mod choice;
mod copy;
mod direct;
mod lease;
mod ring;
mod speeds;
mod warm;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tensorhold_core::{ByteRange, Result, Source};

use behind::Behind;
use calls::{Calls, SYSTEM};
use choice::Facts;
use direct::{Direct, Failure};
use warm::{Copying, FORGET_BYTES, MIN_COPY_BYTES, Warm};

use crate::{Map, Pread, is_network, platform};

pub use copy::fetch;

/// How a caller wants its bytes read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// By what is fastest for this file now.
    #[default]
    Auto,
    /// As `Auto`, leaving none of the bytes in the page cache, as far as the system lets us: for bytes that go where it is.
    Sparing,
    /// From a map of the file.
    Mapped,
    /// Through the page cache.
    Buffered,
    /// Past the page cache, where the file system lets us.
    Direct,
    /// As `Auto`, but never past the page cache, where others find what was read.
    Shared,
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

/// Less than this, side by side, is short.
const SHORT_BYTES: u64 = 16 << 20;

/// Of fewer, what the system reads ahead is little, and a descriptor of its own is much.
const MIN_EXACT_BYTES: u64 = 1 << 20;

/// How many reads keep a network file system busy: most of the time they wait.
const N_NETWORK_READERS: usize = 16;

/// More threads than this only wait for the memory.
const MAX_LOCAL_READERS: usize = 8;

/// Fewer than this, with nothing read ahead, leave the disk idle while they copy.
const MIN_DIRECT_READERS: usize = 4;

/// What a transfer wants of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How many bytes.
    pub n_bytes: u64,
    /// From the first to the last of them.
    pub span: ByteRange,
}

impl Wanted {
    /// Whether a read or two bring it, which are over before anything was found out about the file.
    fn is_short(&self) -> bool {
        self.n_bytes < SHORT_BYTES && !self.is_sparse()
    }

    /// Whether most bytes between the wanted ones are not.
    fn is_sparse(&self) -> bool {
        self.n_bytes < self.span.len() / 2
    }

    /// Whether the system is not to read ahead in a file of `size_bytes`: of what it would fetch, too much may be wanted by nobody.
    fn is_part(&self, size_bytes: u64) -> bool {
        self.n_bytes >= MIN_EXACT_BYTES && self.n_bytes < size_bytes / 20 * 19
    }
}

/// A file that one transfer reads from, by any number of threads at once.
#[derive(Debug)]
pub struct Reading {
    file: Arc<Pread>,
    method: Method,
    is_network: bool,
    is_sparse: bool,
    /// Whether the page cache fetches what is read and no more.
    is_exact: bool,
    calls: &'static Calls,
    /// What is to be left in no page cache. It is behind the method, whose map must be gone when it goes.
    behind: Option<Box<Behind>>,
}

#[derive(Debug)]
enum Method {
    Mapped(Arc<Map>),
    Copied(Warm),
    Buffered,
    Direct(Direct),
}

impl Reading {
    /// A reading of `wanted` of `file`, with `map` if the caller has one. What the system refuses is done in another way.
    #[must_use]
    pub fn new(
        file: &Arc<Pread>,
        map: Option<&Arc<Map>>,
        access: Access,
        wanted: Wanted,
    ) -> Reading {
        Reading::with_calls(file, map, access, wanted, &SYSTEM)
    }

    fn with_calls(
        file: &Arc<Pread>,
        map: Option<&Arc<Map>>,
        access: Access,
        wanted: Wanted,
        calls: &'static Calls,
    ) -> Reading {
        let is_network = is_network(file.file());
        let way = match access {
            Access::Auto | Access::Sparing | Access::Shared if wanted.is_short() => Way::Buffered,
            Access::Auto => choice::preferred(&facts(file, is_network, wanted, calls)),
            Access::Sparing => choice::sparing(&facts(file, is_network, wanted, calls)),
            Access::Shared => choice::shared(&facts(file, is_network, wanted, calls)),
            Access::Mapped => Way::Mapped,
            Access::Buffered => Way::Buffered,
            Access::Direct => Way::Direct,
        };
        let is_sparing = access == Access::Sparing;
        // What is in the tables of a process is not given back.
        let max_shown = if is_sparing { 0 } else { FORGET_BYTES };
        let method = match way {
            Way::Mapped => map.cloned().map(Method::Mapped),
            Way::Copied => {
                Warm::open(file.file(), file.size_bytes(), max_shown, calls).map(Method::Copied)
            }
            Way::Direct => Direct::open(file.file(), calls).map(Method::Direct),
            Way::Buffered => None,
        };
        let exact = match method {
            None if !is_network && wanted.is_part(file.size_bytes()) => exact(file, calls),
            _ => None,
        };
        Reading {
            is_exact: exact.is_some(),
            file: exact.unwrap_or_else(|| Arc::clone(file)),
            method: method.unwrap_or(Method::Buffered),
            is_network,
            is_sparse: wanted.is_sparse(),
            calls,
            behind: is_sparing.then(|| Box::new(Behind::new(file, calls))),
        }
    }

    /// The same for memory that is copied from at once, as by a device: what was read is left in the processor's caches.
    #[must_use]
    pub fn passed_on(mut self) -> Reading {
        self.method = match self.method {
            Method::Copied(warm) => Method::Copied(warm.passed_on()),
            method => method,
        };
        self
    }

    /// How it reads at the moment: where the system refuses a way only when it is used, this changes.
    #[must_use]
    pub fn way(&self) -> Way {
        match &self.method {
            Method::Mapped(_) => Way::Mapped,
            Method::Copied(warm) if !warm.is_refused() => Way::Copied,
            Method::Direct(direct) if !direct.is_refused() => Way::Direct,
            Method::Copied(_) | Method::Direct(_) | Method::Buffered => Way::Buffered,
        }
    }

    /// How many threads should read from it at once on a machine of `n_cores`.
    #[must_use]
    pub fn n_readers(&self, n_cores: usize) -> usize {
        let n_local = n_cores.min(MAX_LOCAL_READERS);
        match self.way() {
            _ if self.is_network => N_NETWORK_READERS,
            Way::Direct => n_local.max(MIN_DIRECT_READERS),
            _ if self.is_exact => n_local.max(MIN_DIRECT_READERS),
            _ => n_local,
        }
    }

    /// Whether each thread should read one contiguous stretch: because the page cache reads ahead for each, or because what is
    /// taken from neighbouring places is so little that it comes to lie in the same huge page, which the system
    /// would clear for each of two threads that are the first to touch it.
    #[must_use]
    pub fn wants_contiguous(&self) -> bool {
        match self.way() {
            Way::Buffered => !self.is_network,
            Way::Copied => self.is_sparse,
            Way::Mapped | Way::Direct => false,
        }
    }

    fn read(&self, position: u64, into: &mut [u8]) -> Result<()> {
        match &self.method {
            Method::Mapped(map) => map.read_at(position, into),
            Method::Direct(direct) => self.read_direct(direct, position, into),
            Method::Copied(warm) if into.len() >= MIN_COPY_BYTES && !warm.is_refused() => {
                self.read_copied(warm, position, into)
            }
            Method::Copied(_) | Method::Buffered => self.read_buffered(position, into),
        }
    }

    fn read_buffered(&self, position: u64, into: &mut [u8]) -> Result<()> {
        self.file.read_by(self.calls.read_at, position, into)
    }

    fn read_direct(&self, direct: &Direct, position: u64, into: &mut [u8]) -> Result<()> {
        let is_inside = position
            .checked_add(into.len() as u64)
            .is_some_and(|end| end <= self.file.size_bytes());
        if is_inside && !direct.is_refused() {
            match direct.read_at(position, into) {
                Ok(()) => return Ok(()),
                Err(Failure::Interrupted(error)) => return Err(error),
                Err(Failure::Refused) => {}
            }
        }
        self.read_buffered(position, into)
    }

    fn read_copied(&self, warm: &Warm, position: u64, into: &mut [u8]) -> Result<()> {
        let (copying, trial) = warm.next();
        let started = Instant::now();
        let is_read = copying == Copying::Read;
        if is_read || !warm.copy(position, into, copying) {
            self.read_buffered(position, into)?;
            if !is_read {
                return Ok(());
            }
        }
        warm.record(trial, into.len(), started.elapsed());
        Ok(())
    }
}

/// The file as it is read with nothing read ahead; `None` where the system has no such thing.
fn exact(file: &Pread, calls: &Calls) -> Option<Arc<Pread>> {
    let exact = (calls.open_exact)(file.file()).ok()?;
    Some(Arc::new(file.by(exact)))
}

/// Less than this has room in any machine's memory, and is not worth asking for it.
const ASK_FOR_ROOM_BYTES: u64 = 256 << 20;

fn facts(file: &Pread, is_network: bool, wanted: Wanted, calls: &'static Calls) -> Facts {
    let Wanted { n_bytes, span } = wanted;
    let share = |cached_bytes| cached_bytes as f64 / span.len().max(1) as f64;
    let is_large = n_bytes >= ASK_FOR_ROOM_BYTES;
    Facts {
        is_network,
        is_in_memory: platform::is_in_memory(file.file()),
        cached_share: (calls.cached_bytes)(file.file(), span.start, span.len()).map(share),
        wanted_bytes: n_bytes,
        free_bytes: is_large.then(calls.free_memory_bytes).flatten(),
    }
}

impl Source for Reading {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> Result<()> {
        self.read(position, into)?;
        if let Some(behind) = &self.behind {
            behind.note(ByteRange::new(position, position + into.len() as u64));
        }
        Ok(())
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        match &self.method {
            Method::Mapped(map) => Some(map.as_bytes()),
            _ => None,
        }
    }

    fn with_bytes(&self, range: ByteRange, use_: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let is_shown = match &self.method {
            Method::Mapped(map) => map.with_bytes(range, use_)?,
            Method::Copied(warm) => warm.with_bytes(range, use_),
            Method::Direct(_) | Method::Buffered => false,
        };
        if let Some(behind) = self.behind.as_ref().filter(|_| is_shown) {
            behind.note(range);
        }
        Ok(is_shown)
    }
}

#[cfg(all(test, unix))]
mod tests;
