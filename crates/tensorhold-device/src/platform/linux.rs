//! Linux.

mod libraries;
mod memory;
mod storage;

use std::fs;

pub(crate) use libraries::{Library, loaded_libraries};
pub(crate) use memory::{map_memory, prefault, prefer_node, unmap_memory};
pub(crate) use storage::{StandardInput, descriptor, lacks_storage_device};

/// Whether devices can be used on this system at all.
pub(crate) const HAS_DEVICES: bool = true;

/// The node of memory that is nearest to what sits at `bus_id`, where the system says one.
pub(crate) fn numa_node(bus_id: &str) -> Option<u32> {
    let is_plain = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    if !bus_id.chars().all(is_plain) {
        return None;
    }
    let bus_id = bus_id.to_ascii_lowercase();
    let text = fs::read_to_string(format!("/sys/bus/pci/devices/{bus_id}/numa_node")).ok()?;
    // It is -1 where there is only one.
    text.trim().parse().ok()
}
