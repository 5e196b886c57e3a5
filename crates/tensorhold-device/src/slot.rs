//! A slot of the ring in the hands of one thread.

use std::fmt;
use std::ops::{Deref, DerefMut};

use tensorhold_core::Result;

use crate::copies::{self, Run, SlotCopy};
use crate::device::Device;
use crate::fetch::{self, Fetching, SlotFetch};
use crate::fork;
use crate::pinned::with_address;
use crate::queue::CopyQueue;
use crate::ring::{self, Memory};
use crate::rows::{self, SlotRows};
use crate::stream::{Event, Stream};
use crate::sys::{self, EventHandle};

/// Pinned host memory, to be filled and [sent](Slot::send) to a device, or [fetched](Slot::fetch) into from one.
///
/// It derefs to its bytes, which hold whatever was there before. Dropped unsent, be it by a panic, it goes back to the ring.
pub struct Slot {
    /// `None` once it was given on.
    memory: Option<Memory>,
    /// Whether copies from it may be under way that its event does not stand for.
    is_under_way: Option<Device>,
}

impl Slot {
    /// The size of a slot, in bytes.
    pub const BYTES: usize = 8 << 20;

    /// A slot of the process's ring: a free one, one whose copies have happened, or a new one, as long as the ring is under its
    /// limit. Else it waits, asleep, for copies that are under way, or for another thread to send or drop its slot:
    /// who has one must not wait for a second.
    ///
    /// # Errors
    /// `InvalidArgument` if `TENSORHOLD_PINNED_MB` is no number; `NoMemory` where the host has none; `Device` as the
    /// runtime says, or after a fork.
    pub fn take(device: Device) -> Result<Slot> {
        Slot::over(ring::take(device, None)?, device)
    }

    /// A slot as [`take`](Slot::take) gives it; while it waits, it asks `patience` some times a second whether to go on.
    ///
    /// # Errors
    /// Those of [`take`](Slot::take) and of `patience`.
    pub fn take_while(device: Device, patience: &mut dyn FnMut() -> Result<()>) -> Result<Slot> {
        Slot::over(ring::take(device, Some(patience))?, device)
    }

    /// A slot as [`take`](Slot::take) gives it, where that needs no waiting: for who has a slot already. The ring may grow
    /// meanwhile, for the next to ask.
    ///
    /// # Errors
    /// Those of [`take`](Slot::take).
    pub fn try_take(device: Device) -> Result<Option<Slot>> {
        let memory = ring::try_take(device)?;
        memory.map(|memory| Slot::over(memory, device)).transpose()
    }

    fn over(memory: Memory, device: Device) -> Result<Slot> {
        let mut slot = Slot {
            memory: Some(memory),
            is_under_way: None,
        };
        slot.prepare(device)?;
        Ok(slot)
    }

    /// Submits `copies` to one of the lanes of `queue`, and gives the slot back to the ring, which uses it again when they have
    /// happened. Copies to neighbours become one where that is the same.
    ///
    /// # Errors
    /// `InvalidArgument`, with nothing submitted, if a copy passes the end of the slot or of its part, if a part is of a buffer of
    /// another queue, or if there is no such lane. `Device` as the runtime says: then some of the copies may have happened,
    /// and none is under way.
    pub fn send(self, queue: &CopyQueue, lane: usize, copies: &[SlotCopy<'_>]) -> Result<()> {
        let runs = copies::runs(copies, queue)?;
        self.send_runs(queue, lane, &runs)
    }

    /// Submits `rows` as [`send`](Slot::send) does copies: what lies between them in the slot stays behind.
    ///
    /// # Errors
    /// As [`send`](Slot::send), and if rows overlap.
    pub fn send_rows(self, queue: &CopyQueue, lane: usize, rows: &[SlotRows<'_>]) -> Result<()> {
        let runs = rows::runs(rows, queue)?;
        self.send_runs(queue, lane, &runs)
    }

    fn send_runs(mut self, queue: &CopyQueue, lane: usize, runs: &[Run]) -> Result<()> {
        let lane = queue.lane(lane)?;
        if runs.is_empty() {
            return Ok(());
        }
        let event = self.prepare(queue.device())?;
        let start = self.memory().start().as_ptr().expose_provenance();
        self.is_under_way = Some(queue.device());
        if let Err(error) = submit(queue.device(), lane.stream(), event, start, runs) {
            if lane.stream().settle() {
                self.is_under_way = None;
            }
            return Err(error);
        }
        lane.note_sent();
        if let Some(memory) = self.memory.take() {
            ring::fly(memory);
        }
        Ok(())
    }

    /// Submits copies from the device to the slot, on one of the lanes of `queue`. Who waits for them gets the slot back.
    /// Several may be under way, each in a slot of its own. Neighbours become one copy.
    ///
    /// # Errors
    /// `InvalidArgument`, with nothing submitted, if a fetch passes the end of the slot or is of another queue, or if there is
    /// no such lane. `Device` as the runtime says: then none is under way.
    pub fn fetch<'a>(
        mut self,
        queue: &CopyQueue,
        lane: usize,
        fetches: &[SlotFetch<'a>],
    ) -> Result<Fetching<'a>> {
        let runs = fetch::runs(fetches, queue)?;
        let lane = queue.lane(lane)?.stream();
        let device = queue.device();
        if runs.is_empty() {
            return Ok(Fetching::new(self, device));
        }
        let event = self.prepare(device)?;
        let start = self.memory().start().as_ptr().expose_provenance();
        self.is_under_way = Some(device);
        if let Err(error) = submit_fetch(device, lane, event, start, &runs) {
            if lane.settle() {
                self.is_under_way = None;
            }
            return Err(error);
        }
        Ok(Fetching::new(self, device))
    }

    /// The slot, when the copies to it have happened.
    pub(crate) fn arrived(mut self) -> Result<Slot> {
        if self.is_under_way.is_some() {
            // Where this fails, dropping the slot waits for the device, or loses the memory.
            self.memory()
                .event
                .as_ref()
                .expect(RECORDED)
                .synchronize()?;
            self.is_under_way = None;
        }
        Ok(self)
    }

    /// The slot's event, which is made where it has none of this device.
    fn prepare(&mut self, device: Device) -> Result<EventHandle> {
        let memory = self.memory.as_mut().expect(HELD);
        match &memory.event {
            Some(event) if event.device() == device => Ok(event.handle()),
            _ => {
                let event = Event::new(device)?;
                Ok(memory.event.insert(event).handle())
            }
        }
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect(HELD)
    }
}

const HELD: &str = "a slot has its memory until it is sent or dropped";

const RECORDED: &str = "a slot with copies under way has recorded its event";

fn submit(
    device: Device,
    lane: &Stream,
    event: EventHandle,
    start: usize,
    runs: &[Run],
) -> Result<()> {
    let stream = lane.handle();
    device.with(|functions| {
        for run in runs {
            let &Run {
                to,
                len,
                n_rows,
                pitch,
                ..
            } = run;
            let from = with_address(start + run.from);
            let kind = sys::HOST_TO_DEVICE;
            // SAFETY: who made the runs has checked that all their bytes lie in the slot and in a part of a buffer, which waits
            // for this queue's copies before it goes; that rows do not overlap, so that no pitch is below the width. The slot
            // is not written to before its event has happened, or the lane is idle. Slot, event and stream are alive.
            unsafe {
                match n_rows {
                    1 => functions.memcpy_async(to, from, len, kind, stream),
                    _ => functions.memcpy_2d_async(to, len, from, pitch, len, n_rows, kind, stream),
                }
            }?;
        }
        // SAFETY: event and stream are alive and of this device.
        unsafe { functions.event_record(event, stream) }
    })
}

fn submit_fetch(
    device: Device,
    lane: &Stream,
    event: EventHandle,
    start: usize,
    runs: &[fetch::Run],
) -> Result<()> {
    let stream = lane.handle();
    device.with(|functions| {
        for run in runs {
            let (to, from) = (start + run.to, with_address(run.from));
            // SAFETY: `runs` has checked that the bytes fit into the slot, which nobody reads or writes before its event has
            // happened, or the lane is idle. Who made the views vouches for what is read. Slot, event and stream are alive.
            unsafe { functions.memcpy_async(to, from, run.len, sys::DEVICE_TO_HOST, stream) }?;
        }
        // SAFETY: event and stream are alive and of this device.
        unsafe { functions.event_record(event, stream) }
    })
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes were zero when they were mapped, and are this slot's alone: the ring gives them out once, and not
        // before all copies from them have happened.
        unsafe { std::slice::from_raw_parts(self.memory().start().as_ptr(), Slot::BYTES) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory().start().as_ptr(), Slot::BYTES) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        match self.is_under_way {
            // The ring is the parent's.
            _ if fork::is_child() => std::mem::forget(memory),
            Some(device) if !device.settle() => ring::lose(memory),
            _ => ring::give(memory),
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({:p})", self.memory().start())
    }
}
