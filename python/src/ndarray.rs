//! NumPy arrays over memory, and memory under NumPy arrays.

use std::ffi::c_int;
use std::ptr;

use numpy::npyffi::{
    NPY_ARRAY_WRITEABLE, NpyTypes, PY_ARRAY_API, PyArray_Descr, PyArrayObject, get_type_object,
    npy_intp,
};
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyDict, PyList, PyString};
use tensorhold::Dtype;

use crate::collector::Paused;
use crate::memory::Memory;
use crate::spec::TensorSpec;

static DESCRIPTORS: PyOnceLock<[PyOnceLock<Py<PyAny>>; Dtype::ALL.len()]> = PyOnceLock::new();

/// NumPy's type for `dtype`, from the front end's table.
fn descriptor<'py>(py: Python<'py>, dtype: Dtype) -> PyResult<&'py Bound<'py, PyAny>> {
    let cells = DESCRIPTORS.get_or_init(py, || std::array::from_fn(|_| PyOnceLock::new()));
    let descriptor = cells[dtype as usize].get_or_try_init(py, || {
        let front_end = py.import("tensorhold.numpy")?;
        let object = front_end.getattr("_getdtype")?.call1((dtype.name(),))?;
        py.import("numpy")?
            .getattr("dtype")?
            .call1((object,))
            .map(Bound::unbind)
    })?;
    Ok(descriptor.bind(py))
}

/// A writable array over `memory`, which it keeps alive; of sub-byte types, an array of their values.
pub(crate) fn array<'py>(
    py: Python<'py>,
    memory: Memory,
    dtype: Dtype,
    shape: &[u64],
) -> PyResult<Bound<'py, PyAny>> {
    if dtype.width_bytes().is_some() {
        return over(py, memory, descriptor(py, dtype)?, shape);
    }
    let n_bytes = memory.len() as u64;
    let packed = over(py, memory, descriptor(py, Dtype::U8)?, &[n_bytes])?;
    let unpack = py.import("tensorhold.numpy")?.getattr("_unpack")?;
    unpack.call1((packed, dtype.name(), shape.to_vec()))
}

fn over<'py>(
    py: Python<'py>,
    memory: Memory,
    descriptor: &Bound<'py, PyAny>,
    shape: &[u64],
) -> PyResult<Bound<'py, PyAny>> {
    let mut dims: Vec<npy_intp> = shape
        .iter()
        .map(|&dim| npy_intp::try_from(dim))
        .collect::<Result<_, _>>()?;
    let ndim = c_int::try_from(dims.len())?;
    let data = memory.as_ptr().cast();
    let base = PyCapsule::new_with_value(py, memory, c"tensorhold.memory")?;
    // SAFETY: the memory has as many bytes as descriptor and shape ask for (checked when the header was read) and lives as long as
    // `base`; `NewFromDescr` steals the descriptor, `SetBaseObject` the base.
    unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            get_type_object(py, NpyTypes::PyArray_Type),
            descriptor.clone().into_ptr().cast::<PyArray_Descr>(),
            ndim,
            dims.as_mut_ptr(),
            ptr::null_mut(),
            data,
            NPY_ARRAY_WRITEABLE,
            ptr::null_mut(),
        );
        let array = Bound::from_owned_ptr_or_err(py, array)?;
        let set = PY_ARRAY_API.PyArray_SetBaseObject(
            py,
            array.as_ptr().cast::<PyArrayObject>(),
            base.into_ptr(),
        );
        match set {
            0 => Ok(array),
            _ => Err(PyErr::fetch(py)),
        }
    }
}

/// Descriptions of contiguous arrays of the machine's byte order; `None` where anything is otherwise, which the front end then
/// looks into.
#[pyfunction]
pub(crate) fn numpy_flatten<'py>(
    py: Python<'py>,
    arrays: &Bound<'py, PyAny>,
    hold: &Bound<'py, PyList>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Ok(arrays) = arrays.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    if cfg!(target_endian = "big") {
        return Ok(None);
    }
    let mut known: Vec<(Py<PyAny>, Dtype)> = Vec::new();
    let _paused = Paused::new(py);
    let specs = PyDict::new(py);
    for (name, array) in arrays.iter() {
        let Some(spec) = describe(py, &array, &mut known)? else {
            return Ok(None);
        };
        if !name.is_instance_of::<PyString>() {
            return Ok(None);
        }
        specs.set_item(&name, Bound::new(py, spec)?)?;
        hold.append(array)?;
    }
    Ok(Some(specs))
}

fn describe(
    py: Python<'_>,
    array: &Bound<'_, PyAny>,
    known: &mut Vec<(Py<PyAny>, Dtype)>,
) -> PyResult<Option<TensorSpec>> {
    let Ok(array) = array.cast_exact::<PyUntypedArray>() else {
        return Ok(None);
    };
    if !array.is_c_contiguous() {
        return Ok(None);
    }
    let Some(dtype) = dtype_of(py, &array.dtype(), known)? else {
        return Ok(None);
    };
    let shape: Vec<u64> = array.shape().iter().map(|&dim| dim as u64).collect();
    let data_len = array.len() * array.dtype().itemsize();
    // SAFETY: `array` is a live NumPy array.
    let data_ptr = unsafe { (*array.as_array_ptr()).fields.data } as u64;
    Ok(Some(TensorSpec {
        dtype,
        shape,
        data_ptr,
        data_len,
        device: None,
        narrow: None,
    }))
}

/// The element type of an array, where its bytes are as the file has them. `known` remembers types that were looked up.
fn dtype_of(
    py: Python<'_>,
    object: &Bound<'_, numpy::PyArrayDescr>,
    known: &mut Vec<(Py<PyAny>, Dtype)>,
) -> PyResult<Option<Dtype>> {
    if let Some((_, dtype)) = known.iter().find(|(other, _)| object.is(other)) {
        return Ok(Some(*dtype));
    }
    let name: String = object.getattr("name")?.extract()?;
    let Some(dtype) = Dtype::from_framework_name(&name) else {
        return Ok(None);
    };
    if dtype.width_bytes().is_none() || !object.as_any().eq(descriptor(py, dtype)?)? {
        return Ok(None);
    }
    known.push((object.clone().into_any().unbind(), dtype));
    Ok(Some(dtype))
}
