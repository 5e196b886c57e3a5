//! One stream of a queue, and what others know of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tensorhold_core::Result;

use super::RawStream;
use crate::device::Device;
use crate::stream::{Event, Stream};

/// A stream, and the event that consumers wait for.
pub(crate) struct Lane {
    stream: Stream,
    /// How many slots were sent: counted after their copies were submitted, so that who sees the number finds them.
    n_sent: AtomicU64,
    mark: Mutex<Mark>,
}

/// An event, recorded when some slots had been sent.
struct Mark {
    event: Event,
    n_sent: u64,
    has_happened: bool,
}

impl Lane {
    pub(crate) fn new(device: Device) -> Result<Lane> {
        let mark = Mark {
            event: Event::new(device)?,
            n_sent: 0,
            has_happened: true,
        };
        Ok(Lane {
            stream: Stream::new(device)?,
            n_sent: AtomicU64::new(0),
            mark: Mutex::new(mark),
        })
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Notes that all copies of a slot were submitted.
    pub(crate) fn note_sent(&self) {
        self.n_sent.fetch_add(1, Ordering::Release);
    }

    /// Lets `consumer` wait for what was sent until now: with few calls, as each tensor of a slot may ask for it.
    pub(super) fn signal(&self, device: Device, consumer: RawStream) -> Result<()> {
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let n_sent = self.n_sent.load(Ordering::Acquire);
        let is_new = n_sent != mark.n_sent;
        if !is_new && mark.has_happened() {
            return Ok(());
        }
        let (stream, event) = (self.stream.handle(), mark.event.handle());
        device.with(|functions| {
            if is_new {
                // SAFETY: event and stream live as long as the lane, and are of the device; the lock is held.
                unsafe { functions.event_record(event, stream) }?;
            }
            // SAFETY: the event is alive, and the caller gave a stream of the device; no flags are defined.
            unsafe { functions.stream_wait_event(consumer, event, 0) }
        })?;
        // Only now: after a failure it is recorded again.
        if is_new {
            mark.n_sent = n_sent;
            mark.has_happened = false;
        }
        Ok(())
    }
}

impl Mark {
    fn has_happened(&mut self) -> bool {
        self.has_happened = self.has_happened || self.event.has_happened();
        self.has_happened
    }
}
