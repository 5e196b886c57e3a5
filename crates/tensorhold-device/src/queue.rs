//! The copies of one transfer to one device.

mod lane;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tensorhold_core::{Error, ErrorKind, Result};

use crate::buffer::{DeviceBuffer, allocate};
use crate::device::Device;
use crate::stream::{Event, Stream};
use crate::sys::StreamHandle;

pub(crate) use lane::Lane;

/// A stream of the framework that the bytes are for, by its `cudaStream_t` or `hipStream_t`; 0 is the default stream of
/// the device. (2, the default stream of each thread, is the calling thread's only where the queue's device is its
/// current one.)
pub type RawStream = usize;

/// Two streams ("lanes") of one device, for the copies of one transfer. Neither waits for any other stream unless it is
/// told to.
pub struct CopyQueue {
    device: Device,
    lanes: [Lane; CopyQueue::N_LANES],
    /// What the lanes are to wait for: recorded again each time, by whoever has the lock.
    before: Mutex<Event>,
    /// How often that was: counted when all lanes were told.
    n_begun: AtomicU64,
    /// The last of these that the host has waited for.
    n_awaited: AtomicU64,
}

impl CopyQueue {
    /// How many streams it has: two, so that one is never idle while the next copy is submitted.
    pub const N_LANES: usize = 2;

    /// A queue for copies to `device`.
    ///
    /// # Errors
    /// `Device` or `NoMemory` as the runtime says, or after a fork.
    pub fn new(device: Device) -> Result<Arc<CopyQueue>> {
        Ok(Arc::new(CopyQueue {
            device,
            lanes: [Lane::new(device)?, Lane::new(device)?],
            before: Mutex::new(Event::new(device)?),
            n_begun: AtomicU64::new(0),
            n_awaited: AtomicU64::new(0),
        }))
    }

    /// Lets copies that are submitted from now on begin after what `consumer` has been given until now: memory from
    /// an allocator that goes by streams may still be in use by it.
    ///
    /// # Errors
    /// `Device` as the runtime says; copies must not be submitted then.
    pub fn begin_after(&self, consumer: RawStream) -> Result<()> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let event = before.handle();
        let lanes = self.handles();
        self.device.with(|functions| {
            // SAFETY: the event lives as long as the queue, the lock is held, and the caller gave a stream of the device.
            unsafe { functions.event_record(event, consumer) }?;
            lanes.into_iter().try_for_each(|lane| {
                // SAFETY: the lanes and the event live as long as the queue; no flags are defined.
                unsafe { functions.stream_wait_event(lane, event, 0) }
            })
        })?;
        self.n_begun.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Lets what `consumer` is given from now on come after all copies that were submitted until now. The host does
    /// not wait, and where nothing was submitted since the last time, little is done.
    ///
    /// # Errors
    /// `Device` as the runtime says; the bytes must not be used then before [`synchronize`](CopyQueue::synchronize).
    pub fn signal(&self, consumer: RawStream) -> Result<()> {
        let mut lanes = self.lanes.iter();
        lanes.try_for_each(|lane| lane.signal(self.device, consumer))
    }

    /// Waits for all copies that were submitted until now.
    ///
    /// # Errors
    /// `Device` as the runtime says, be it for an earlier copy.
    pub fn synchronize(&self) -> Result<()> {
        self.streams().try_for_each(Stream::synchronize)
    }

    /// The device that the copies go to.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// `size_bytes` bytes of the device, from the runtime itself, at a multiple of 256.
    ///
    /// # Errors
    /// `NoMemory` where the device has not so much, with what it has; `Device` as the runtime says, or after a fork.
    pub fn allocate(self: &Arc<CopyQueue>, size_bytes: u64) -> Result<DeviceBuffer> {
        allocate(self, size_bytes)
    }

    /// Lets the host wait for what [`begin_after`](CopyQueue::begin_after) was told of until now, for who writes to the
    /// device by other means than a stream.
    pub(crate) fn wait_for_begin(&self) -> Result<()> {
        let n_begun = self.n_begun.load(Ordering::Acquire);
        if self.n_awaited.load(Ordering::Acquire) >= n_begun {
            return Ok(());
        }
        // All lanes were told of it, each time; a consumer may have had other streams before.
        self.lanes[0].stream().synchronize()?;
        self.n_awaited.fetch_max(n_begun, Ordering::Release);
        Ok(())
    }

    /// Waits for all copies; `false` where nobody can say that they are done.
    pub(crate) fn settle(&self) -> bool {
        self.streams().all(Stream::settle)
    }

    /// The lane of this number.
    pub(crate) fn lane(&self, lane: usize) -> Result<&Lane> {
        self.lanes.get(lane).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("there is no lane {lane}: a queue has {}", Self::N_LANES),
            )
        })
    }
}

impl CopyQueue {
    fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.lanes.iter().map(Lane::stream)
    }

    fn handles(&self) -> [StreamHandle; CopyQueue::N_LANES] {
        self.lanes.each_ref().map(|lane| lane.stream().handle())
    }
}

impl fmt::Debug for CopyQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CopyQueue({})", self.device)
    }
}
