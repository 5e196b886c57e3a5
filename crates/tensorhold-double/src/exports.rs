//! The functions that the library exports: each of the runtimes' under both names, and those of its own.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use crate::call::{Kind, call, calls_after_fork, give, is_child, last, take_last};
use crate::copy::{Rows, Shape};
use crate::memory::PointerAttributes;
use crate::{copy, device, error, event, memory, report, state, stream};

/// The version of the double: of its configuration and of its report.
const VERSION: c_int = 1;

/// A function with a name of its own: the name that it is counted by, its kind, its symbols, its own part.
macro_rules! exports {
    ($($name:ident $kind:ident [$($symbol:ident)+] $parameters:tt => $own:expr;)+) => {
        /// The names that calls are counted by: CUDA's, without their prefix.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),+];

        $($(exports! { @one $symbol $name $kind $parameters $own })+)+
    };
    (@one $symbol:ident $name:ident $kind:ident ($($parameter:ident: $type:ty),*) $own:expr) => {
        // SAFETY: the symbol is the runtime's, which the library stands in for; nothing else of ours has it.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the names and parameters are the runtime's")]
        pub(crate) unsafe extern "C" fn $symbol($($parameter: $type),*) -> c_int {
            call(stringify!($name), Kind::$kind, || $own)
        }
    };
}

// Addresses and handles are numbers here, of the size of a pointer.
exports! {
    GetDeviceCount Query [cudaGetDeviceCount hipGetDeviceCount] (count: *mut c_int) => device::count(count);
    GetDevice Query [cudaGetDevice hipGetDevice] (device: *mut c_int) => device::get(device);
    SetDevice Query [cudaSetDevice hipSetDevice] (device: c_int) => device::set(device);
    DeviceGetAttribute Query [cudaDeviceGetAttribute] (value: *mut c_int, attribute: c_int, device: c_int)
        => device::attribute(value, attribute, device, false);
    DeviceGetAttribute Query [hipDeviceGetAttribute] (value: *mut c_int, attribute: c_int, device: c_int)
        => device::attribute(value, attribute, device, true);
    DeviceGetPCIBusId Query [cudaDeviceGetPCIBusId hipDeviceGetPCIBusId]
        (text: *mut c_char, length: c_int, device: c_int) => device::pci_bus_id(text, length, device);
    DeviceSynchronize Work [cudaDeviceSynchronize hipDeviceSynchronize] () => device::synchronize();
    DeviceGetDefaultMemPool Query [cudaDeviceGetDefaultMemPool hipDeviceGetDefaultMemPool]
        (pool: *mut usize, device: c_int) => device::default_pool(pool, device);
    MemPoolSetAttribute Query [cudaMemPoolSetAttribute hipMemPoolSetAttribute]
        (pool: usize, _attribute: c_int, _value: *mut c_void) => device::use_pool(pool);
    MemPoolTrimTo Query [cudaMemPoolTrimTo hipMemPoolTrimTo]
        (pool: usize, _size: usize) => device::use_pool(pool);
    MemGetInfo Query [cudaMemGetInfo hipMemGetInfo] (free: *mut usize, total: *mut usize)
        => device::memory_info(free, total);

    Malloc Work [cudaMalloc hipMalloc] (address: *mut usize, size: usize) => memory::device::allocate(address, size);
    Free Query [cudaFree hipFree] (address: usize) => memory::device::free(address);
    MallocAsync Work [cudaMallocAsync hipMallocAsync] (address: *mut usize, size: usize, stream: usize)
        => memory::device::allocate_in_order(address, size, stream);
    FreeAsync Query [cudaFreeAsync hipFreeAsync] (address: usize, stream: usize)
        => memory::device::free_later(address, stream);
    HostAlloc Work [cudaHostAlloc hipHostMalloc hipHostAlloc]
        (address: *mut usize, size: usize, _flags: c_uint) => memory::host::allocate(address, size);
    FreeHost Query [cudaFreeHost hipHostFree] (address: usize) => memory::host::free(address);
    HostRegister Work [cudaHostRegister hipHostRegister] (address: usize, size: usize, flags: c_uint)
        => memory::host::register(address, size, flags);
    HostUnregister Query [cudaHostUnregister hipHostUnregister] (address: usize) => memory::host::unregister(address);
    PointerGetAttributes Query [cudaPointerGetAttributes hipPointerGetAttributes]
        (attributes: *mut PointerAttributes, address: usize) => memory::attributes(attributes, address);

    Memcpy Work [cudaMemcpy hipMemcpy] (to: usize, from: usize, size: usize, kind: c_int)
        => copy::waited(to, from, size, kind);
    MemcpyAsync Work [cudaMemcpyAsync hipMemcpyAsync]
        (to: usize, from: usize, size: usize, kind: c_int, stream: usize)
        => copy::linear(to, from, size, kind, stream);
    Memcpy2DAsync Work [cudaMemcpy2DAsync hipMemcpy2DAsync]
        (to: usize, to_pitch: usize, from: usize, from_pitch: usize, width: usize, n_rows: usize, kind: c_int,
            stream: usize)
        => copy::pitched(
            Rows { address: to, pitch: to_pitch },
            Rows { address: from, pitch: from_pitch },
            Shape { width, n_rows },
            kind,
            stream,
        );

    StreamCreate Work [cudaStreamCreate hipStreamCreate] (stream: *mut usize) => stream::create(stream, 0);
    StreamCreateWithFlags Work [cudaStreamCreateWithFlags hipStreamCreateWithFlags]
        (stream: *mut usize, flags: c_uint) => stream::create(stream, flags);
    StreamDestroy Query [cudaStreamDestroy hipStreamDestroy] (stream: usize) => stream::destroy(stream);
    StreamSynchronize Work [cudaStreamSynchronize hipStreamSynchronize] (stream: usize)
        => stream::synchronize(stream);
    StreamQuery Work [cudaStreamQuery hipStreamQuery] (stream: usize) => stream::query(stream);
    StreamWaitEvent Work [cudaStreamWaitEvent hipStreamWaitEvent]
        (stream: usize, event: usize, flags: c_uint) => stream::wait_event(stream, event, flags);

    EventCreate Work [cudaEventCreate hipEventCreate] (event: *mut usize) => event::create(event, 0);
    EventCreateWithFlags Work [cudaEventCreateWithFlags hipEventCreateWithFlags]
        (event: *mut usize, flags: c_uint) => event::create(event, flags);
    EventRecord Work [cudaEventRecord hipEventRecord] (event: usize, stream: usize)
        => event::record(event, stream);
    EventQuery Work [cudaEventQuery hipEventQuery] (event: usize) => event::query(event);
    EventSynchronize Work [cudaEventSynchronize hipEventSynchronize] (event: usize)
        => event::synchronize(event);
    EventDestroy Query [cudaEventDestroy hipEventDestroy] (event: usize) => event::destroy(event);

    RuntimeGetVersion Plain [cudaRuntimeGetVersion] (version: *mut c_int) => give(version, 13000);
    RuntimeGetVersion Plain [hipRuntimeGetVersion] (version: *mut c_int) => give(version, 70_000_000);
    DriverGetVersion Plain [cudaDriverGetVersion] (version: *mut c_int) => give(version, 13000);
    DriverGetVersion Plain [hipDriverGetVersion] (version: *mut c_int) => give(version, 70_000_000);
    GetDriverEntryPoint Plain [cudaGetDriverEntryPoint]
        (name: *const c_char, entry: *mut *mut c_void, _flags: c_ulonglong, status: *mut c_int)
        // SAFETY: the caller gives a C string, as the runtime wants it.
        => unsafe { device::driver_entry(name, entry, status) };
    GetDriverEntryPointByVersion Plain [cudaGetDriverEntryPointByVersion]
        (name: *const c_char, entry: *mut *mut c_void, _version: c_uint, _flags: c_ulonglong, status: *mut c_int)
        // SAFETY: as above.
        => unsafe { device::driver_entry(name, entry, status) };
    DevicePrimaryCtxGetState Query [cuDevicePrimaryCtxGetState hipDevicePrimaryCtxGetState]
        (device: c_int, flags: *mut c_uint, is_active: *mut c_int)
        => device::primary_context(device, flags, is_active);
}

/// A function that is no call of the runtime in the sense that it is counted or fails.
macro_rules! plain {
    ($($symbol:ident ($($parameter:ident: $type:ty),*) -> $result:ty { $own:expr })+) => {
        $(
            // SAFETY: the symbol is the runtime's or the double's own; nothing else of ours has it.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the names are the runtime's")]
            pub(crate) unsafe extern "C" fn $symbol($($parameter: $type),*) -> $result {
                $own
            }
        )+
    };
}

plain! {
    cudaGetErrorName(code: c_int) -> *const c_char { error::name(code, false).as_ptr() }
    hipGetErrorName(code: c_int) -> *const c_char { error::name(code, true).as_ptr() }
    cudaGetErrorString(code: c_int) -> *const c_char { error::text(code).as_ptr() }
    hipGetErrorString(code: c_int) -> *const c_char { error::text(code).as_ptr() }
    cudaGetLastError() -> c_int { take_last() }
    hipGetLastError() -> c_int { take_last() }
    cudaPeekAtLastError() -> c_int { last() }
    hipPeekAtLastError() -> c_int { last() }
    tensorhold_double_version() -> c_int { VERSION }
    tensorhold_double_reset() -> () { if !is_child() { state::state().reset() } }
    // SAFETY: the caller gives a C string.
    tensorhold_double_configure(text: *const c_char) -> c_int { unsafe { configure(text) } }
    // SAFETY: the caller gives an array with room for `length` bytes.
    tensorhold_double_report(buffer: *mut c_char, length: usize) -> usize { unsafe { write_report(buffer, length) } }
}

/// # Safety
///
/// `text` is null or a C string.
unsafe fn configure(text: *const c_char) -> c_int {
    if text.is_null() || is_child() {
        return 1;
    }
    // SAFETY: it is not null, so by the function's contract a C string.
    let text = unsafe { CStr::from_ptr(text) };
    let changed = state::state().configure(&text.to_string_lossy());
    c_int::from(changed.is_err())
}

/// # Safety
///
/// `buffer` is null or has room for `length` bytes.
unsafe fn write_report(buffer: *mut c_char, length: usize) -> usize {
    let text = match is_child() {
        true => report::of_child(calls_after_fork()),
        false => report::of(&state::state()),
    };
    if !buffer.is_null() && length > 0 {
        let n_bytes = text.len().min(length - 1);
        // SAFETY: the buffer has room for `length` bytes, which is at least one more.
        unsafe {
            buffer
                .cast::<u8>()
                .copy_from_nonoverlapping(text.as_ptr(), n_bytes);
            buffer.add(n_bytes).write(0);
        }
    }
    text.len()
}
