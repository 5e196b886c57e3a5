//! What a buffer of a plan lies in: the host's memory, or a device's.

use std::ops::Range;

use tensorhold_device::{Device, DeviceBuffer, DevicePart};
use tensorhold_io::{Buffer, Part};

/// The memory of one buffer.
#[derive(Debug)]
pub enum Memory {
    /// Of the host.
    Host(Buffer),
    /// Of a device. Copies to it may be under way until its queue's [`signal`](tensorhold_device::CopyQueue::signal).
    Device(DeviceBuffer),
}

impl Memory {
    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Memory::Host(buffer) => buffer.len(),
            Memory::Device(buffer) => buffer.len(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is of a device.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device().is_some()
    }

    /// The device that it is of, if it is not the host's.
    #[must_use]
    pub fn device(&self) -> Option<Device> {
        match self {
            Memory::Host(_) => None,
            Memory::Device(buffer) => Some(buffer.queue().device()),
        }
    }

    /// The host's memory, if it is that.
    #[must_use]
    pub fn as_host(&self) -> Option<&Buffer> {
        match self {
            Memory::Host(buffer) => Some(buffer),
            Memory::Device(_) => None,
        }
    }

    /// The host's memory, if it is that.
    #[must_use]
    pub fn into_host(self) -> Option<Buffer> {
        match self {
            Memory::Host(buffer) => Some(buffer),
            Memory::Device(_) => None,
        }
    }

    /// The device's memory, if it is that.
    #[must_use]
    pub fn into_device(self) -> Option<DeviceBuffer> {
        match self {
            Memory::Host(_) => None,
            Memory::Device(buffer) => Some(buffer),
        }
    }

    /// The parts that `ranges` name, to be filled by different threads.
    pub(super) fn split(self, ranges: &[Range<usize>]) -> Vec<Share> {
        match self {
            Memory::Host(buffer) => buffer.split(ranges).into_iter().map(Share::Host).collect(),
            Memory::Device(buffer) => buffer
                .split(ranges)
                .into_iter()
                .map(Share::Device)
                .collect(),
        }
    }
}

impl From<Buffer> for Memory {
    fn from(buffer: Buffer) -> Memory {
        Memory::Host(buffer)
    }
}

impl From<DeviceBuffer> for Memory {
    fn from(buffer: DeviceBuffer) -> Memory {
        Memory::Device(buffer)
    }
}

/// A part of a buffer, in the hands of one worker.
#[derive(Debug)]
pub(super) enum Share {
    Host(Part),
    Device(DevicePart),
}

impl Share {
    /// The memory, if this was the last part of it to be given back.
    pub(super) fn join(self) -> Option<Memory> {
        match self {
            Share::Host(part) => part.join().map(Memory::Host),
            Share::Device(part) => part.join().map(Memory::Device),
        }
    }
}
