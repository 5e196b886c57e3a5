//! Bytes of a write on their way from devices, while the write before is used.
//!
//! ```text
//! device ──lane──▶ slot of write n + 1          (under way)
//!                  slot of write n ──▶ file     (meanwhile, by the same thread)
//! ```
//!
//! A thread waits for a slot only while it has none, so that a ring of one slot is enough for any number of threads.

use std::ptr;

use tensorhold_core::Result;
use tensorhold_device::{CopyQueue, DeviceView, Fetching, RingNeed, Slot, SlotFetch};
use tensorhold_io::{Writer, check_interrupt};

use super::parallel::Content;

const _: () = assert!(
    Writer::WRITE_BYTES <= Slot::BYTES,
    "a slot has room for a write"
);

/// What a thread does where the ring has no slot for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::save) enum Patience {
    /// It waits; it has no other slot.
    Waits,
    /// It goes on without.
    None,
}

/// The first bytes of a slot, as they are to be written.
pub(in crate::save) struct Arrived {
    slot: Slot,
    len: usize,
}

/// Bytes on their way to a slot.
pub(in crate::save) struct Arriving<'a> {
    fetching: Fetching<'a>,
    /// Of other queues, fetched when those have arrived: a slot stands for the copies of one.
    rest: Vec<SlotFetch<'a>>,
    lane: usize,
    len: usize,
}

impl<'a> Arriving<'a> {
    /// Begins to fetch the bytes of write number `write`, of `len` bytes, from devices; `fill` puts those in the slot that are in
    /// host memory. `None` where there are none to fetch, or no slot for them.
    pub(in crate::save) fn begin(
        write: u64,
        len: usize,
        fetches: Vec<SlotFetch<'a>>,
        patience: Patience,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Option<Arriving<'a>>> {
        let Some(first) = fetches.first() else {
            return Ok(None);
        };
        let device = first.view.queue().device();
        let slot = match patience {
            Patience::Waits => Some(Slot::take_while(device, &mut check_interrupt)?),
            Patience::None => Slot::try_take(device)?,
        };
        let Some(mut slot) = slot else {
            return Ok(None);
        };
        fill(&mut slot[..len]);
        // Those that are under way at once go different ways.
        let lane = usize::from(!write.is_multiple_of(CopyQueue::N_LANES as u64));
        Arriving::fetch(slot, fetches, lane, len).map(Some)
    }

    fn fetch(
        slot: Slot,
        fetches: Vec<SlotFetch<'a>>,
        lane: usize,
        len: usize,
    ) -> Result<Arriving<'a>> {
        let queue = fetches[0].view.queue();
        let (now, rest): (Vec<_>, Vec<_>) = fetches
            .into_iter()
            .partition(|fetch| ptr::eq(fetch.view.queue(), queue));
        Ok(Arriving {
            fetching: slot.fetch(queue, lane, &now)?,
            rest,
            lane,
            len,
        })
    }

    /// Waits until all bytes are there.
    pub(in crate::save) fn wait(mut self) -> Result<Arrived> {
        loop {
            let slot = self.fetching.wait()?;
            if self.rest.is_empty() {
                return Ok(Arrived {
                    slot,
                    len: self.len,
                });
            }
            self = Arriving::fetch(slot, self.rest, self.lane, self.len)?;
        }
    }
}

/// Hands the parts of each write that `take` gives to `put`. While one is put, the bytes of the next are under way, where
/// they lie on devices.
pub(in crate::save) fn for_each_write(
    content: &dyn Content,
    mut take: impl FnMut() -> Option<u64>,
    mut put: impl FnMut(u64, &[&[u8]]) -> Result<()>,
) -> Result<()> {
    let mut next: Option<(u64, Option<Arriving<'_>>)> = None;
    loop {
        let (write, arriving) = match next.take() {
            Some(next) => next,
            None => match take() {
                Some(write) => (write, None),
                None => return Ok(()),
            },
        };
        let arriving = match arriving {
            Some(arriving) => Some(arriving),
            None => content.begin(write, Patience::Waits)?,
        };
        let Some(arriving) = arriving else {
            content.with_parts(write, &mut |parts| put(write, parts))?;
            continue;
        };
        let arrived = arriving.wait()?;
        if let Some(write) = take() {
            next = Some((write, content.begin(write, Patience::None)?));
        }
        put(write, &[&arrived.slot[..arrived.len]])?;
    }
}

/// The bytes of one tensor on a device, in writes of the size of a slot.
pub(crate) struct Pieces<'a>(pub(crate) DeviceView<'a>);

impl Pieces<'_> {
    /// Hands them to `put`, one after the other.
    pub(crate) fn for_each(&self, mut put: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let _need = RingNeed::new(self.0.len() as u64);
        let mut writes = 0..self.0.len().div_ceil(Slot::BYTES) as u64;
        for_each_write(
            self,
            || writes.next(),
            |_, parts| parts.iter().try_for_each(|part| put(part)),
        )
    }
}

impl Content for Pieces<'_> {
    fn with_parts(&self, _: u64, _: &mut dyn FnMut(&[&[u8]]) -> Result<()>) -> Result<()> {
        Ok(())
    }

    fn begin(&self, write: u64, patience: Patience) -> Result<Option<Arriving<'_>>> {
        let start = usize::try_from(write).expect("one of a view") * Slot::BYTES;
        let view = self.0.part(start..self.0.len().min(start + Slot::BYTES));
        let fetches = vec![SlotFetch { view, to: 0 }];
        Arriving::begin(write, view.len(), fetches, patience, |_| {})
    }
}
