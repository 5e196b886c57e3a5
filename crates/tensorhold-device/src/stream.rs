//! Streams and events, destroyed when they are dropped.

use tensorhold_core::Result;

use crate::device::Device;
use crate::runtime::Vendor;
use crate::sys::{self, EventHandle, StreamHandle};

/// A stream that waits for no other unless it is told to.
#[derive(Debug)]
pub(crate) struct Stream {
    device: Device,
    handle: StreamHandle,
}

impl Stream {
    pub(crate) fn new(device: Device) -> Result<Stream> {
        let handle = device.with(|functions| {
            let mut handle = 0;
            // SAFETY: `handle` is alive and of the type that is written.
            unsafe {
                functions.stream_create_with_flags(&raw mut handle, sys::STREAM_NON_BLOCKING)
            }?;
            Ok(handle)
        })?;
        Ok(Stream { device, handle })
    }

    pub(crate) fn handle(&self) -> StreamHandle {
        self.handle
    }

    pub(crate) fn synchronize(&self) -> Result<()> {
        let handle = self.handle;
        self.device
            // SAFETY: the stream is alive.
            .with(|functions| unsafe { functions.stream_synchronize(handle) })
    }

    /// Waits for its work; `false` where nobody can say that it is done.
    pub(crate) fn settle(&self) -> bool {
        self.synchronize().is_ok() || self.device.settle()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let handle = self.handle;
        // CUDA lets a destroyed stream finish its work; HIP's documentation does not promise it.
        if self.device.runtime().vendor() == Vendor::Hip {
            self.settle();
        }
        // SAFETY: the stream is alive, and used no more. Where it cannot be destroyed, it stays.
        let _ = self
            .device
            .with(|functions| unsafe { functions.stream_destroy(handle) });
    }
}

/// A point in the work of a stream, for which others wait.
#[derive(Debug)]
pub(crate) struct Event {
    device: Device,
    handle: EventHandle,
}

impl Event {
    pub(crate) fn new(device: Device) -> Result<Event> {
        let handle = device.with(|functions| {
            let mut handle = 0;
            // SAFETY: `handle` is alive and of the type that is written.
            unsafe { functions.event_create_with_flags(&raw mut handle, sys::EVENT_FOR_WAITING) }?;
            Ok(handle)
        })?;
        Ok(Event { device, handle })
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    pub(crate) fn handle(&self) -> EventHandle {
        self.handle
    }

    /// Whether what was recorded last has happened.
    ///
    /// # Errors
    /// As the runtime says: then nobody knows.
    pub(crate) fn query(&self) -> Result<bool> {
        let handle = self.handle;
        self.device
            // SAFETY: the event is alive.
            .with(|functions| match unsafe { functions.event_query(handle) } {
                Err(failure) if failure.status == sys::NOT_READY => Ok(false),
                asked => asked.map(|()| true),
            })
    }

    /// The same; `false` where nobody can say so.
    pub(crate) fn has_happened(&self) -> bool {
        self.query().unwrap_or(false)
    }

    /// Waits, asleep, until what was recorded last has happened.
    ///
    /// # Errors
    /// As the runtime says, be it for an earlier failure; then it may not have happened, or not well.
    pub(crate) fn synchronize(&self) -> Result<()> {
        let handle = self.handle;
        self.device
            // SAFETY: the event is alive.
            .with(|functions| unsafe { functions.event_synchronize(handle) })
    }

    /// Waits, asleep, until what was recorded last is over, well or not.
    ///
    /// # Errors
    /// As the runtime says; then it may not be over.
    pub(crate) fn wait(&self) -> Result<()> {
        match self.synchronize() {
            Err(error) if !self.device.settle() => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let handle = self.handle;
        // SAFETY: the event is alive, and used no more. Where it cannot be destroyed, it stays.
        let _ = self
            .device
            .with(|functions| unsafe { functions.event_destroy(handle) });
    }
}
