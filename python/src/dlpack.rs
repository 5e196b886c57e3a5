//! Hands memory to a framework by DLPack: by its table of functions, where it has one, or as a capsule.
//!
//! # Source
//! `dlpack.h`: of 1.1 the unversioned `DLManagedTensor`, which every framework takes, and of 1.3 `DLPackExchangeAPI`, which saves
//! the capsule and a call through Python.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use tensorhold::Dtype;

use crate::memory::{Memory, Owner};

const NAME: &CStr = c"dltensor";
const EXCHANGE_NAME: &CStr = c"dlpack_exchange_api";
/// Where in the structures of this version the fields lie.
const MAJOR: u32 = 1;

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

#[repr(C)]
#[derive(Clone, Copy)]
struct Version {
    major: u32,
    minor: u32,
}

#[repr(C)]
struct VersionedTensor {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut VersionedTensor)>,
    flags: u64,
    tensor: Tensor,
}

/// What a taker is given a pointer to.
trait Head {
    fn of(tensor: Tensor) -> Self;
    fn tensor(&mut self) -> &mut Tensor;
}

impl Head for ManagedTensor {
    fn of(tensor: Tensor) -> ManagedTensor {
        ManagedTensor {
            tensor,
            context: ptr::null_mut(),
            deleter: Some(delete),
        }
    }

    fn tensor(&mut self) -> &mut Tensor {
        &mut self.tensor
    }
}

impl Head for VersionedTensor {
    fn of(tensor: Tensor) -> VersionedTensor {
        VersionedTensor {
            // From 1.2 on, strides must be said.
            version: Version {
                major: MAJOR,
                minor: 1,
            },
            context: ptr::null_mut(),
            deleter: Some(delete),
            flags: 0,
            tensor,
        }
    }

    fn tensor(&mut self) -> &mut Tensor {
        &mut self.tensor
    }
}

/// As many dimensions take no memory of their own.
const FEW_DIMS: usize = 4;

/// The sizes in each dimension.
pub(crate) struct Dims {
    n: usize,
    few: [i64; FEW_DIMS],
    many: Box<[i64]>,
}

impl Dims {
    /// Of as many dimensions as there are in `shape`, as `dim` gives them.
    pub(crate) fn of<E>(shape: &[u64], dim: impl Fn(u64) -> Result<i64, E>) -> Result<Dims, E> {
        let mut few = [0; FEW_DIMS];
        let mut many = Box::default();
        if shape.len() <= FEW_DIMS {
            for (dim_of, &size) in few.iter_mut().zip(shape) {
                *dim_of = dim(size)?;
            }
        } else {
            many = shape
                .iter()
                .map(|&size| dim(size))
                .collect::<Result<_, _>>()?;
        }
        Ok(Dims {
            n: shape.len(),
            few,
            many,
        })
    }

    /// One dimension.
    pub(crate) fn one(size: i64) -> Dims {
        Dims {
            n: 1,
            few: [size, 0, 0, 0],
            many: Box::default(),
        }
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut i64> {
        match self.n {
            0..=FEW_DIMS => self.few[..self.n].last_mut(),
            _ => self.many.last_mut(),
        }
    }
}

impl Deref for Dims {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        match self.n {
            0..=FEW_DIMS => &self.few[..self.n],
            _ => &self.many,
        }
    }
}

/// What a taker is given: the tensor, its shape and what keeps its bytes alive.
///
/// The giver and the taker both hold it. A taker that fails may have called the deleter without saying so, as
/// PyTorch does, so the two count for themselves, and the bytes go with the first that lets go of them.
#[repr(C)]
struct Managed<H> {
    head: H,
    dims: Dims,
    owner: UnsafeCell<Option<Owner>>,
    is_released: AtomicBool,
    n_holders: AtomicU8,
}

impl<H: Head> Managed<H> {
    /// For two holders, both of whom are to [leave](Managed::leave) it.
    fn new(memory: Memory, dtype: DataType, dims: Dims) -> PyResult<NonNull<Managed<H>>> {
        let managed = Box::new(Managed {
            head: H::of(Tensor {
                data: memory.as_ptr().cast(),
                device_type: memory.device().kind,
                device_id: memory.device().index,
                ndim: i32::try_from(dims.n)?,
                dtype,
                shape: ptr::null_mut(),
                strides: ptr::null_mut(),
                byte_offset: 0,
            }),
            dims,
            owner: UnsafeCell::new(Some(memory.into_owner())),
            is_released: AtomicBool::new(false),
            n_holders: AtomicU8::new(2),
        });
        let this = NonNull::from(Box::leak(managed));
        // SAFETY: it was just made, and nobody else knows of it; it does not move any more.
        let managed = unsafe { &mut *this.as_ptr() };
        managed.head.tensor().shape = managed.dims.as_ptr().cast_mut();
        Ok(this)
    }
}

impl<H> Managed<H> {
    /// Lets go of the bytes, if that was not done before.
    ///
    /// # Safety
    /// `this` must be alive.
    unsafe fn release(this: *const Managed<H>) -> bool {
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
    /// `this` must come from [`Managed::new`], and each holder may call this once.
    unsafe fn leave(this: *mut Managed<H>) {
        // SAFETY: this holder still counts, so it is alive.
        if unsafe { (*this).n_holders.fetch_sub(1, Ordering::AcqRel) } == 1 {
            // SAFETY: nobody else holds it.
            drop(unsafe { Box::from_raw(this) });
        }
    }

    /// The giver leaves, and does so for a taker who will not.
    ///
    /// # Safety
    /// As for [`leave`](Managed::leave), once for the giver.
    unsafe fn give_up(this: *mut Managed<H>, is_taken: bool) {
        // SAFETY: the giver counts until now. Who did not take it, and did not release it, leaves in nobody's call but this.
        unsafe {
            if !is_taken && Managed::release(this) {
                Managed::leave(this);
            }
            Managed::leave(this);
        }
    }
}

/// A capsule that owns `memory` until a framework takes it over.
pub(crate) fn capsule<'py>(
    py: Python<'py>,
    memory: Memory,
    dtype: DataType,
    dims: Dims,
) -> PyResult<Bound<'py, PyAny>> {
    let managed = Managed::<ManagedTensor>::new(memory, dtype, dims)?.as_ptr();
    // SAFETY: `managed` is valid until both holders have left. Where there is no capsule, there is no holder.
    unsafe {
        let capsule = ffi::PyCapsule_New(managed.cast(), NAME.as_ptr(), Some(destroy));
        if capsule.is_null() {
            drop(Box::from_raw(managed));
        }
        Bound::from_owned_ptr_or_err(py, capsule)
    }
}

/// The taker lets go: DLPack asks it to call this once, when its last tensor is gone.
unsafe extern "C" fn delete<H>(head: *mut H) {
    let managed = head.cast::<Managed<H>>();
    // SAFETY: `Managed` begins with its head, and the taker counts until this call.
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
        let managed = ffi::PyCapsule_GetPointer(capsule, name).cast::<Managed<ManagedTensor>>();
        let is_taken = ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) == 0;
        Managed::give_up(managed, is_taken);
    }
}

type ToObject = unsafe extern "C" fn(*mut VersionedTensor, *mut *mut ffi::PyObject) -> c_int;

/// `DLPackExchangeAPI` as far as it is used.
#[repr(C)]
struct Table {
    version: Version,
    older: *const Table,
    allocate: *const c_void,
    from_object: *const c_void,
    to_object: Option<ToObject>,
}

/// A framework's own functions for DLPack.
pub(crate) struct Exchange {
    to_object: ToObject,
}

impl Exchange {
    /// That of the tensors of `tensor_type`, if they have one.
    pub(crate) fn of(tensor_type: &Bound<'_, PyAny>) -> Option<Exchange> {
        let attribute = tensor_type.getattr("__dlpack_c_exchange_api__").ok()?;
        // SAFETY: what bears this name is such a table, says DLPack, and lives as long as the process. The fields
        // up to `to_object` are those of every version 1.
        unsafe {
            if ffi::PyCapsule_IsValid(attribute.as_ptr(), EXCHANGE_NAME.as_ptr()) == 0 {
                return None;
            }
            let table = ffi::PyCapsule_GetPointer(attribute.as_ptr(), EXCHANGE_NAME.as_ptr());
            let mut table = table.cast::<Table>().cast_const();
            while !table.is_null() && (*table).version.major != MAJOR {
                table = (*table).older;
            }
            let to_object = table.as_ref()?.to_object?;
            Some(Exchange { to_object })
        }
    }

    /// A tensor over `memory`, which it keeps alive.
    pub(crate) fn tensor<'py>(
        &self,
        py: Python<'py>,
        memory: Memory,
        dtype: DataType,
        dims: Dims,
    ) -> PyResult<Bound<'py, PyAny>> {
        let managed = Managed::<VersionedTensor>::new(memory, dtype, dims)?.as_ptr();
        let mut made = ptr::null_mut();
        // SAFETY: the interpreter is held, as `py` shows. `managed` begins with a tensor that is right, and is valid until both holders have
        // left; a framework that fails gives no object.
        unsafe {
            let is_taken = (self.to_object)(managed.cast(), &raw mut made) == 0;
            Managed::give_up(managed, is_taken);
            Bound::from_owned_ptr_or_err(py, made)
        }
    }
}
