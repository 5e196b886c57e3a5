//! Hands memory to a framework as a DLPack capsule.
//!
//! # Source
//! `dlpack.h` of DLPack 1.1, the unversioned `DLManagedTensor`, which every framework takes.

use std::ffi::{CStr, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use tensorhold::Dtype;

use crate::memory::{Memory, Owner};

const NAME: &CStr = c"dltensor";
const DEVICE_CPU: i32 = 1;

/// An element type in DLPack's words.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataType {
    code: u8,
    bits: u8,
    lanes: u16,
}

impl DataType {
    /// A byte.
    pub(crate) const U8: DataType = DataType {
        code: 1,
        bits: 8,
        lanes: 1,
    };

    /// `dtype` in DLPack's words; F4 as PyTorch has it, two to an element.
    pub(crate) fn of(dtype: Dtype) -> Option<DataType> {
        let (code, lanes) = match dtype {
            Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => (0, 1),
            Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => (1, 1),
            Dtype::F16 | Dtype::F32 | Dtype::F64 => (2, 1),
            Dtype::BF16 => (4, 1),
            Dtype::C64 => (5, 1),
            Dtype::BOOL => (6, 1),
            Dtype::F8_E4M3 => (10, 1),
            Dtype::F8_E4M3FNUZ => (11, 1),
            Dtype::F8_E5M2 => (12, 1),
            Dtype::F8_E5M2FNUZ => (13, 1),
            Dtype::F8_E8M0 => (14, 1),
            Dtype::F4 => (17, 2),
            _ => return None,
        };
        let bits = u8::try_from(dtype.width_bits()).ok()?;
        Some(DataType { code, bits, lanes })
    }
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    dtype: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct ManagedTensor {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut ManagedTensor)>,
}

/// What a capsule points to: the tensor, its shape and what keeps its bytes alive.
#[repr(C)]
struct Managed {
    tensor: ManagedTensor,
    shape: Box<[i64]>,
    owner: Owner,
}

/// A capsule that owns `memory` until a framework takes it over.
pub(crate) fn capsule<'py>(
    py: Python<'py>,
    memory: Memory,
    dtype: DataType,
    shape: Box<[i64]>,
) -> PyResult<Bound<'py, PyAny>> {
    let ndim = i32::try_from(shape.len())?;
    let data = memory.as_ptr().cast();
    let mut managed = Box::new(Managed {
        tensor: ManagedTensor {
            tensor: Tensor {
                data,
                device_type: DEVICE_CPU,
                device_id: 0,
                ndim,
                dtype,
                shape: ptr::null_mut(),
                strides: ptr::null_mut(),
                byte_offset: 0,
            },
            context: ptr::null_mut(),
            deleter: Some(delete),
        },
        shape,
        owner: memory.into_owner(),
    });
    managed.tensor.tensor.shape = managed.shape.as_mut_ptr();
    let pointer = Box::into_raw(managed).cast::<c_void>();
    // SAFETY: `pointer` is valid until `delete` runs, which the destructor or the taker calls once.
    unsafe {
        let capsule = ffi::PyCapsule_New(pointer, NAME.as_ptr(), Some(destroy));
        if capsule.is_null() {
            delete(pointer.cast());
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

/// Frees what a capsule points to. DLPack's taker calls it when the last tensor is gone.
unsafe extern "C" fn delete(tensor: *mut ManagedTensor) {
    // SAFETY: `Managed` begins with its `ManagedTensor`, was made by `Box::into_raw`, and DLPack asks for
    // exactly one call.
    drop(unsafe { Box::from_raw(tensor.cast::<Managed>()) });
}

/// Frees a capsule that nobody took: a taker renames it.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this once with a capsule of ours; the name tells whether it was taken.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 1 {
            delete(ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()).cast());
        }
    }
}
