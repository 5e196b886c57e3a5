//! Hands memory to a framework as a DLPack capsule.
//!
//! # Source
//! `dlpack.h` of DLPack 1.1, the unversioned `DLManagedTensor`, which every framework takes.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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
///
/// The capsule and its taker both hold it. A taker that fails may have called the deleter without renaming the capsule, as
/// PyTorch does, so the two count for themselves, and the bytes go with the first that lets go of them.
#[repr(C)]
struct Managed {
    tensor: ManagedTensor,
    shape: Box<[i64]>,
    owner: UnsafeCell<Option<Owner>>,
    is_released: AtomicBool,
    n_holders: AtomicU8,
}

impl Managed {
    /// Lets go of the bytes, if that was not done before.
    ///
    /// # Safety
    /// `this` must be alive.
    unsafe fn release(this: *const Managed) -> bool {
        // SAFETY: the caller's promise.
        let managed = unsafe { &*this };
        if managed.is_released.swap(true, Ordering::AcqRel) {
            return false;
        }
        // SAFETY: only the first to swap the flag comes here, and nothing else touches the owner.
        drop(unsafe { (*managed.owner.get()).take() });
        true
    }

    /// One holder less; the last frees it.
    ///
    /// # Safety
    /// `this` must come from `Box::into_raw`, and each holder may call this once.
    unsafe fn leave(this: *mut Managed) {
        // SAFETY: this holder still counts, so it is alive.
        if unsafe { (*this).n_holders.fetch_sub(1, Ordering::AcqRel) } == 1 {
            // SAFETY: nobody else holds it.
            drop(unsafe { Box::from_raw(this) });
        }
    }
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
        owner: UnsafeCell::new(Some(memory.into_owner())),
        is_released: AtomicBool::new(false),
        n_holders: AtomicU8::new(2),
    });
    managed.tensor.tensor.shape = managed.shape.as_mut_ptr();
    let pointer = Box::into_raw(managed);
    // SAFETY: `pointer` is valid until both holders have left. Where there is no capsule, there is no holder.
    unsafe {
        let capsule = ffi::PyCapsule_New(pointer.cast(), NAME.as_ptr(), Some(destroy));
        if capsule.is_null() {
            drop(Box::from_raw(pointer));
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

/// The taker lets go: DLPack asks it to call this once, when its last tensor is gone.
unsafe extern "C" fn delete(tensor: *mut ManagedTensor) {
    let managed = tensor.cast::<Managed>();
    // SAFETY: `Managed` begins with its `ManagedTensor`, and the taker counts until this call.
    unsafe {
        Managed::release(managed);
        Managed::leave(managed);
    }
}

/// The capsule lets go. If nobody took it, which its name tells, nobody else will.
unsafe extern "C" fn destroy(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this once with a capsule of ours, which counts until now; its name is the one it has.
    unsafe {
        let name = ffi::PyCapsule_GetName(capsule);
        let managed = ffi::PyCapsule_GetPointer(capsule, name).cast::<Managed>();
        let is_untaken = ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 1;
        if is_untaken && Managed::release(managed) {
            Managed::leave(managed);
        }
        Managed::leave(managed);
    }
}
