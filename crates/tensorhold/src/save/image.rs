//! A copy of the last bytes of a file that is yet to be written.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tensorhold_core::{Result, SavePlan};
use tensorhold_io::Buffer;

use super::arriving::for_each_write;
use super::parallel::{Content, n_workers};

/// The bytes of the last writes of a plan, each let go of as soon as it is written.
pub(super) struct Image {
    /// The number of the first write in it.
    first: u64,
    chunks: Vec<Mutex<Option<Buffer>>>,
}

impl Image {
    /// As many of the last writes of `plan` as `limit_bytes`, and the memory, have room for.
    pub(super) fn allocate(plan: &SavePlan, limit_bytes: u64) -> Image {
        let mut chunks = Vec::new();
        let mut first = plan.n_writes();
        let mut held = 0;
        while let Some(write) = first.checked_sub(1) {
            held += plan.range(write).len();
            if held > limit_bytes {
                break;
            }
            let Ok(buffer) = Buffer::allocate(plan.range(write).len()) else {
                break;
            };
            chunks.push(Mutex::new(Some(buffer)));
            first = write;
        }
        chunks.reverse();
        Image { first, chunks }
    }

    /// The writes that it has the bytes of.
    pub(super) fn writes(&self) -> Range<u64> {
        self.first..self.first + self.chunks.len() as u64
    }

    pub(super) fn size_bytes(&self, plan: &SavePlan) -> u64 {
        self.writes().map(|write| plan.range(write).len()).sum()
    }

    /// Copies the bytes, by several threads.
    pub(super) fn fill(&self, content: &dyn Content) -> Result<()> {
        let next = AtomicU64::new(self.first);
        let end = self.writes().end;
        let take = || {
            let write = next.fetch_add(1, Ordering::Relaxed);
            (write < end).then_some(write)
        };
        let run = || {
            for_each_write(content, take, |write, parts| {
                self.copy(write, parts);
                Ok(())
            })
        };
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..n_workers(self.chunks.len() as u64))
                .filter_map(|_| thread::Builder::new().spawn_scoped(scope, run).ok())
                .collect();
            let own = run();
            let others = helpers.into_iter().map(|helper| {
                helper
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            others.fold(own, Result::and)
        })
    }

    fn copy(&self, write: u64, parts: &[&[u8]]) {
        let mut chunk = self.chunk(write);
        let mut rest = chunk.as_deref_mut().unwrap_or_default();
        for part in parts {
            let (front, back) = rest.split_at_mut(part.len());
            front.copy_from_slice(part);
            rest = back;
        }
    }

    fn chunk(&self, write: u64) -> std::sync::MutexGuard<'_, Option<Buffer>> {
        let index = usize::try_from(write - self.first).expect("one of those in memory");
        // A chunk is bytes, whatever became of who held it.
        let chunk = self.chunks[index].lock();
        chunk.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content for Image {
    fn with_parts(&self, write: u64, put: &mut dyn FnMut(&[&[u8]]) -> Result<()>) -> Result<()> {
        let bytes = self.chunk(write).take();
        put(&[bytes.as_deref().unwrap_or_default()])
    }
}
