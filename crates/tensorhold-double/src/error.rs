//! The codes of both runtimes, which share their numbers, and their names.

use std::ffi::CStr;

/// What a call of the runtime came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub i32);

pub(crate) type Result<T = ()> = std::result::Result<T, Code>;

impl Code {
    pub(crate) const INVALID_VALUE: Code = Code(1);
    pub(crate) const MEMORY: Code = Code(2);
    pub(crate) const INITIALIZATION: Code = Code(3);
    pub(crate) const INVALID_PITCH: Code = Code(12);
    pub(crate) const INVALID_DIRECTION: Code = Code(21);
    pub(crate) const INVALID_DEVICE: Code = Code(101);
    pub(crate) const INVALID_HANDLE: Code = Code(400);
    pub(crate) const NOT_FOUND: Code = Code(500);
    pub(crate) const NOT_READY: Code = Code(600);
    pub(crate) const ALREADY_REGISTERED: Code = Code(712);
    pub(crate) const NOT_REGISTERED: Code = Code(713);
}

struct Known {
    code: i32,
    cuda: &'static CStr,
    hip: &'static CStr,
    text: &'static CStr,
}

const fn known(code: i32, cuda: &'static CStr, hip: &'static CStr, text: &'static CStr) -> Known {
    Known {
        code,
        cuda,
        hip,
        text,
    }
}

/// The codes that this library returns, and those that tests inject.
#[rustfmt::skip]
const KNOWN: [Known; 17] = [
    known(0, c"cudaSuccess", c"hipSuccess", c"no error"),
    known(1, c"cudaErrorInvalidValue", c"hipErrorInvalidValue", c"invalid argument"),
    known(2, c"cudaErrorMemoryAllocation", c"hipErrorOutOfMemory", c"out of memory"),
    known(3, c"cudaErrorInitializationError", c"hipErrorNotInitialized", c"initialization error"),
    known(12, c"cudaErrorInvalidPitchValue", c"hipErrorInvalidPitchValue", c"invalid pitch argument"),
    known(21, c"cudaErrorInvalidMemcpyDirection", c"hipErrorInvalidMemcpyDirection", c"invalid copy direction for memcpy"),
    known(35, c"cudaErrorInsufficientDriver", c"hipErrorInsufficientDriver", c"CUDA driver version is insufficient for CUDA runtime version"),
    known(100, c"cudaErrorNoDevice", c"hipErrorNoDevice", c"no CUDA-capable device is detected"),
    known(101, c"cudaErrorInvalidDevice", c"hipErrorInvalidDevice", c"invalid device ordinal"),
    known(400, c"cudaErrorInvalidResourceHandle", c"hipErrorInvalidHandle", c"invalid resource handle"),
    known(500, c"cudaErrorSymbolNotFound", c"hipErrorNotFound", c"named symbol not found"),
    known(600, c"cudaErrorNotReady", c"hipErrorNotReady", c"device not ready"),
    known(700, c"cudaErrorIllegalAddress", c"hipErrorIllegalAddress", c"an illegal memory access was encountered"),
    known(712, c"cudaErrorHostMemoryAlreadyRegistered", c"hipErrorHostMemoryAlreadyRegistered", c"part or all of the requested memory range is already mapped"),
    known(713, c"cudaErrorHostMemoryNotRegistered", c"hipErrorHostMemoryNotRegistered", c"pointer does not correspond to a registered memory region"),
    known(801, c"cudaErrorNotSupported", c"hipErrorNotSupported", c"operation not supported"),
    known(999, c"cudaErrorUnknown", c"hipErrorUnknown", c"unknown error"),
];

/// What `GetErrorName` returns.
pub(crate) fn name(code: i32, is_hip: bool) -> &'static CStr {
    match KNOWN.iter().find(|known| known.code == code) {
        Some(known) if is_hip => known.hip,
        Some(known) => known.cuda,
        None => c"unrecognized error code",
    }
}

/// What `GetErrorString` returns.
pub(crate) fn text(code: i32) -> &'static CStr {
    let known = KNOWN.iter().find(|known| known.code == code);
    known.map_or(c"unrecognized error code", |known| known.text)
}
