//! Memory from the runtime itself.

use std::any::Any;
use std::sync::Arc;

use tensorhold_core::{Error, ErrorKind, Result};

use super::DeviceBuffer;
use crate::device::Device;
use crate::queue::CopyQueue;
use crate::sys::Address;

/// What `cudaMalloc` gave, freed on drop.
struct Allocation {
    device: Device,
    address: Address,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let Allocation { device, address } = *self;
        // Who took it from its buffer may have work on it under way. Both runtimes wait when they free, but promise it nowhere.
        if device.settle() {
            // SAFETY: it is from `malloc`, freed once, and nothing on the device uses it. Where it cannot be freed, it stays.
            let _ = device.with(|functions| unsafe { functions.free(address) });
        }
    }
}

pub(crate) fn allocate(queue: &Arc<CopyQueue>, size_bytes: u64) -> Result<DeviceBuffer> {
    let device = queue.device();
    let len = usize::try_from(size_bytes).map_err(|_| no_room(device, size_bytes))?;
    let (address, owner): (_, Box<dyn Any + Send>) = match len {
        0 => (0, Box::new(())),
        _ => {
            let address = malloc(device, len)?;
            (address, Box::new(Allocation { device, address }))
        }
    };
    // SAFETY: the memory is fresh, and lives as long as its owner.
    Ok(unsafe { DeviceBuffer::from_raw(queue, address, len, owner) }.with_free_gaps())
}

fn malloc(device: Device, len: usize) -> Result<Address> {
    let given = device.with(|functions| {
        let mut address = 0;
        // SAFETY: `address` is alive and of the type that is written.
        unsafe { functions.malloc(&raw mut address, len) }?;
        Ok(address)
    });
    given.map_err(|error| match error.kind() {
        ErrorKind::NoMemory => no_room(device, len as u64),
        _ => error,
    })
}

fn no_room(device: Device, size_bytes: u64) -> Error {
    let has = match device.memory_bytes() {
        Ok((free, total)) => format!(": {free} of {total} are free"),
        Err(_) => String::new(),
    };
    Error::new(
        ErrorKind::NoMemory,
        format!("device {device} has no room for {size_bytes} bytes{has}"),
    )
}
