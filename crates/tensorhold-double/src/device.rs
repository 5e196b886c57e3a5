//! Devices: how many, what they are, which one a thread uses.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::call::give;
use crate::error::{Code, Result};
use crate::state::state;
use crate::stream::wait_for_device;

/// A handle of a device's pool of memory is its number over this.
const POOLS: usize = 0x8000;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

pub(crate) fn current() -> usize {
    CURRENT.get()
}

fn checked(device: c_int) -> Result<usize> {
    let n_devices = state().config.devices;
    let device = usize::try_from(device).map_err(|_| Code::INVALID_DEVICE)?;
    if device < n_devices {
        Ok(device)
    } else {
        Err(Code::INVALID_DEVICE)
    }
}

pub(crate) fn count(place: *mut c_int) -> Result {
    let n_devices = state().config.devices as c_int;
    give(place, n_devices)?;
    match n_devices {
        0 => Err(Code(100)),
        _ => Ok(()),
    }
}

pub(crate) fn get(place: *mut c_int) -> Result {
    give(place, current() as c_int)
}

/// As since CUDA 12, a device that is selected has a context at once.
pub(crate) fn set(device: c_int) -> Result {
    let device = checked(device)?;
    CURRENT.set(device);
    state().contexts.insert(device);
    Ok(())
}

/// The attributes that loaders ask for, by each runtime's number of them; the rest are 0.
pub(crate) fn attribute(
    place: *mut c_int,
    attribute: c_int,
    device: c_int,
    is_hip: bool,
) -> Result {
    let device = checked(device)? as c_int;
    let integrated = c_int::from(state().config.is_integrated);
    let value = match (is_hip, attribute) {
        (false, 18) | (true, 16) => integrated,
        // Copy engines; can map host memory; addresses are unified; host memory can be registered, and has the
        // same address on the device; there are pools of memory.
        (false, 40) | (true, 2) => 2,
        (false, 19 | 41 | 91 | 99 | 115) | (true, 3 | 4) => 1,
        (false, 33) => device + 1,
        // The nearest NUMA node: none.
        (false, 134) => -1,
        (_, 0..) => 0,
        _ => return Err(Code::INVALID_VALUE),
    };
    give(place, value)
}

/// An address that no bus has.
pub(crate) fn pci_bus_id(place: *mut c_char, length: c_int, device: c_int) -> Result {
    let device = checked(device)?;
    let text = format!("ffff:{:02x}:00.0\0", device + 1);
    if place.is_null() || usize::try_from(length).is_ok_and(|length| length < text.len()) {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's array has room for `length` characters, and the text is no longer.
    unsafe {
        place
            .cast::<u8>()
            .copy_from_nonoverlapping(text.as_ptr(), text.len())
    };
    Ok(())
}

pub(crate) fn memory_info(free: *mut usize, total: *mut usize) -> Result {
    let mut state = state();
    let device = state.context()?;
    let total_bytes = state.config.memory_bytes;
    let used = state.device_memory.used(device);
    give(free, total_bytes.saturating_sub(used) as usize)?;
    give(total, total_bytes as usize)
}

pub(crate) fn synchronize() -> Result {
    let device = state().context()?;
    wait_for_device(device);
    state().late_fault.map_or(Ok(()), Err)
}

pub(crate) fn default_pool(place: *mut usize, device: c_int) -> Result {
    give(place, POOLS + checked(device)?)
}

/// Accepts what a pool is asked for, as this one keeps nothing.
pub(crate) fn use_pool(pool: usize) -> Result {
    match pool.checked_sub(POOLS) {
        Some(device) if device < state().config.devices => Ok(()),
        _ => Err(Code::INVALID_VALUE),
    }
}

/// Whether a device has a context, which asking does not make.
pub(crate) fn primary_context(device: c_int, flags: *mut c_uint, is_active: *mut c_int) -> Result {
    let device = checked(device)?;
    let has_context = state().contexts.contains(&device);
    give(flags, 0)?;
    give(is_active, c_int::from(has_context))
}

/// The functions of the driver that the runtime hands out.
///
/// # Safety
///
/// `name` is null or a C string.
pub(crate) unsafe fn driver_entry(
    name: *const c_char,
    place: *mut *mut c_void,
    status: *mut c_int,
) -> Result {
    if name.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: it is not null, so by the function's contract a C string.
    let name = unsafe { std::ffi::CStr::from_ptr(name) };
    let entry = match name.to_bytes() {
        b"cuDevicePrimaryCtxGetState" => crate::exports::cuDevicePrimaryCtxGetState as *mut c_void,
        _ => std::ptr::null_mut(),
    };
    give(place, entry)?;
    if !status.is_null() {
        // `cudaDriverEntryPointSymbolNotFound` is 1.
        give(status, c_int::from(entry.is_null()))?;
    }
    match entry.is_null() {
        true => Err(Code::NOT_FOUND),
        false => Ok(()),
    }
}
