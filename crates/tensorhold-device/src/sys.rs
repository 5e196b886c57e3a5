//! The functions of a runtime, as its library exports them.
//!
//! Streams, events and addresses on a device are never followed here, and so they are plain numbers, as wide as
//! the pointers that the runtime calls them.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem;

use crate::result::Failure;
use crate::runtime::Vendor;

/// What every function returns; 0 is success.
pub(crate) type Status = c_int;
/// `cudaStream_t`, `hipStream_t`.
pub(crate) type StreamHandle = usize;
/// `cudaEvent_t`, `hipEvent_t`.
pub(crate) type EventHandle = usize;
/// An address in the memory of a device.
pub(crate) type Address = usize;

pub(crate) const SUCCESS: Status = 0;
/// `cudaErrorMemoryAllocation`, `hipErrorOutOfMemory`.
pub(crate) const OUT_OF_MEMORY: Status = 2;
/// `cudaErrorNoDevice`, `hipErrorNoDevice`.
pub(crate) const NO_DEVICE: Status = 100;
/// `cudaErrorNotReady`, `hipErrorNotReady`.
pub(crate) const NOT_READY: Status = 600;

/// `cudaMemcpyHostToDevice`, `hipMemcpyHostToDevice`.
pub(crate) const HOST_TO_DEVICE: c_int = 1;
/// `cudaMemcpyDeviceToHost`, `hipMemcpyDeviceToHost`.
pub(crate) const DEVICE_TO_HOST: c_int = 2;
/// `cudaStreamNonBlocking`, `hipStreamNonBlocking`.
pub(crate) const STREAM_NON_BLOCKING: c_uint = 1;
/// `cudaEventBlockingSync | cudaEventDisableTiming`, and HIP's: who waits sleeps.
pub(crate) const EVENT_FOR_WAITING: c_uint = 1 | 2;
/// `cudaHostAllocPortable`, `cudaHostRegisterPortable` and HIP's: pinned for all devices.
pub(crate) const PORTABLE: c_uint = 1;
/// `cudaDevAttrIntegrated`.
pub(crate) const CUDA_INTEGRATED: c_int = 18;
/// `hipDeviceAttributeIntegrated`.
pub(crate) const HIP_INTEGRATED: c_int = 16;

/// Finds the address of a function by its name.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<*mut c_void>;

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) = $cuda:literal, $hip:literal;)*) => {
        /// The functions of one runtime.
        pub(crate) struct Functions {
            pub(crate) vendor: Vendor,
            error_string: unsafe extern "C" fn(Status) -> *const c_char,
            last_error: unsafe extern "C" fn() -> Status,
            $($name: unsafe extern "C" fn($($type),*) -> Status,)*
        }

        impl Functions {
            /// Looks all functions up.
            ///
            /// # Errors
            /// The name of the first that there is not.
            ///
            /// # Safety
            /// What `lookup` finds under a runtime's name is that runtime's function, and stays loaded for ever.
            pub(crate) unsafe fn load(
                vendor: Vendor,
                lookup: Lookup<'_>,
            ) -> Result<Functions, &'static str> {
                let find = |cuda: &'static str, hip: &'static str| {
                    let name = vendor.choose(cuda, hip);
                    lookup(name).ok_or(name)
                };
                Ok(Functions {
                    vendor,
                    // SAFETY: by the runtime's documentation these are the types of its functions, and a pointer to a
                    // function is as wide as one to data.
                    error_string: unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn(Status) -> *const c_char>(find("cudaGetErrorString", "hipGetErrorString")?) },
                    // SAFETY: as above.
                    last_error: unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn() -> Status>(find("cudaGetLastError", "hipGetLastError")?) },
                    // SAFETY: as above.
                    $($name: unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> Status>(find($cuda, $hip)?) },)*
                })
            }

            $(
                $(#[$doc])*
                ///
                /// # Safety
                /// As the runtime's documentation asks: pointers are valid for what is read or written through them,
                /// handles are alive.
                #[allow(clippy::too_many_arguments, reason = "the parameters are the runtime's")]
                pub(crate) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), Failure> {
                    // SAFETY: the function is the runtime's, as `load` was vouched for; the caller vouches for the arguments.
                    let status = unsafe { (self.$name)($($argument),*) };
                    self.check(status, self.vendor.choose($cuda, $hip))
                }
            )*
        }
    };
}

functions! {
    /// Counts the devices.
    get_device_count(count: *mut c_int) = "cudaGetDeviceCount", "hipGetDeviceCount";
    /// This thread's device.
    get_device(device: *mut c_int) = "cudaGetDevice", "hipGetDevice";
    /// Makes a device this thread's, and may make a context on it.
    set_device(device: c_int) = "cudaSetDevice", "hipSetDevice";
    /// A number that describes a device.
    device_get_attribute(value: *mut c_int, attribute: c_int, device: c_int) = "cudaDeviceGetAttribute", "hipDeviceGetAttribute";
    /// Where a device sits, such as `0000:3b:00.0`.
    device_get_pci_bus_id(text: *mut c_char, len: c_int, device: c_int) = "cudaDeviceGetPCIBusId", "hipDeviceGetPCIBusId";
    /// Waits for everything on this thread's device.
    device_synchronize() = "cudaDeviceSynchronize", "hipDeviceSynchronize";
    /// Free and total memory of this thread's device.
    mem_get_info(free: *mut usize, total: *mut usize) = "cudaMemGetInfo", "hipMemGetInfo";
    /// Allocates on this thread's device.
    malloc(address: *mut Address, size: usize) = "cudaMalloc", "hipMalloc";
    /// Frees what `malloc` gave.
    free(address: Address) = "cudaFree", "hipFree";
    /// Allocates pinned host memory.
    host_alloc(start: *mut *mut c_void, size: usize, flags: c_uint) = "cudaHostAlloc", "hipHostMalloc";
    /// Frees what `host_alloc` gave.
    free_host(start: *mut c_void) = "cudaFreeHost", "hipHostFree";
    /// Pins host memory.
    host_register(start: *mut c_void, size: usize, flags: c_uint) = "cudaHostRegister", "hipHostRegister";
    /// Unpins what `host_register` pinned.
    host_unregister(start: *mut c_void) = "cudaHostUnregister", "hipHostUnregister";
    /// Copies when the stream comes to it.
    memcpy_async(to: Address, from: *const c_void, size: usize, kind: c_int, stream: StreamHandle) = "cudaMemcpyAsync", "hipMemcpyAsync";
    /// Copies rows when the stream comes to it, from `from_pitch` to `to_pitch` bytes apart.
    memcpy_2d_async(to: Address, to_pitch: usize, from: *const c_void, from_pitch: usize, width: usize, n_rows: usize, kind: c_int, stream: StreamHandle) = "cudaMemcpy2DAsync", "hipMemcpy2DAsync";
    /// Makes a stream on this thread's device.
    stream_create_with_flags(stream: *mut StreamHandle, flags: c_uint) = "cudaStreamCreateWithFlags", "hipStreamCreateWithFlags";
    /// Ends a stream.
    stream_destroy(stream: StreamHandle) = "cudaStreamDestroy", "hipStreamDestroy";
    /// Waits for a stream.
    stream_synchronize(stream: StreamHandle) = "cudaStreamSynchronize", "hipStreamSynchronize";
    /// Lets a stream wait for what was last recorded in an event.
    stream_wait_event(stream: StreamHandle, event: EventHandle, flags: c_uint) = "cudaStreamWaitEvent", "hipStreamWaitEvent";
    /// Makes an event on this thread's device.
    event_create_with_flags(event: *mut EventHandle, flags: c_uint) = "cudaEventCreateWithFlags", "hipEventCreateWithFlags";
    /// Lets an event stand for what a stream was given until now.
    event_record(event: EventHandle, stream: StreamHandle) = "cudaEventRecord", "hipEventRecord";
    /// Whether what was last recorded has happened.
    event_query(event: EventHandle) = "cudaEventQuery", "hipEventQuery";
    /// Waits until what was last recorded has happened.
    event_synchronize(event: EventHandle) = "cudaEventSynchronize", "hipEventSynchronize";
    /// Ends an event.
    event_destroy(event: EventHandle) = "cudaEventDestroy", "hipEventDestroy";
    /// The version of the runtime.
    runtime_get_version(version: *mut c_int) = "cudaRuntimeGetVersion", "hipRuntimeGetVersion";
}

impl Functions {
    fn check(&self, status: Status, function: &'static str) -> Result<(), Failure> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: it takes nothing. It forgets the error, which whoever asks this thread next would take for their own.
        unsafe { (self.last_error)() };
        Err(Failure { function, status })
    }

    /// What the runtime says of `status`: a text that lives as long as its library, or null.
    pub(crate) fn error_text(&self, status: Status) -> *const c_char {
        // SAFETY: every number is allowed.
        unsafe { (self.error_string)(status) }
    }
}
