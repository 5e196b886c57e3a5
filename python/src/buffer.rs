//! Files that lie in memory: anything that exports a buffer.

use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyList};
use tensorhold::{Error, Header, Result, Rules, TensorInfo};

use crate::collector::Paused;
use crate::error;
use crate::memory::Memory;
use crate::tensors::{self, Maker, insert};

// The buffer functions joined the stable ABI with Python 3.11, unchanged since 3.3 in name, layout and
// meaning, and every interpreter from 3.10 on exports them; the bindings leave them out for 3.10.
#[repr(C)]
struct PyBuffer {
    buf: *mut std::ffi::c_void,
    obj: *mut ffi::PyObject,
    len: ffi::Py_ssize_t,
    itemsize: ffi::Py_ssize_t,
    readonly: std::ffi::c_int,
    ndim: std::ffi::c_int,
    format: *mut std::ffi::c_char,
    shape: *mut ffi::Py_ssize_t,
    strides: *mut ffi::Py_ssize_t,
    suboffsets: *mut ffi::Py_ssize_t,
    internal: *mut std::ffi::c_void,
}

unsafe extern "C" {
    fn PyObject_GetBuffer(
        object: *mut ffi::PyObject,
        view: *mut PyBuffer,
        flags: std::ffi::c_int,
    ) -> std::ffi::c_int;
    fn PyBuffer_Release(view: *mut PyBuffer);
}

/// Contiguous bytes, read-only ones too.
const SIMPLE: std::ffi::c_int = 0;

/// The bytes of an object that exports a buffer, for as long as this lives.
pub(crate) struct View(Box<PyBuffer>);

// SAFETY: the exporter keeps the bytes in place until the view is released, which `drop` does with the
// interpreter held; nothing else of the view is touched.
unsafe impl Send for View {}
// SAFETY: as above; `&View` gives the address and length only.
unsafe impl Sync for View {}

impl View {
    /// The buffer of `object`; Python's TypeError where it has none.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<View> {
        let mut view = Box::new(PyBuffer {
            buf: std::ptr::null_mut(),
            obj: std::ptr::null_mut(),
            len: 0,
            itemsize: 0,
            readonly: 1,
            ndim: 0,
            format: std::ptr::null_mut(),
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            suboffsets: std::ptr::null_mut(),
            internal: std::ptr::null_mut(),
        });
        // SAFETY: `object` is live, and `view` is a Py_buffer that stays where it is until it is released.
        match unsafe { PyObject_GetBuffer(object.as_ptr(), &mut *view, SIMPLE) } {
            0 => Ok(View(view)),
            _ => Err(PyErr::fetch(object.py())),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.0.buf.cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len.unsigned_abs()
    }

    /// Whether the exporter forbids writing.
    pub(crate) fn is_readonly(&self) -> bool {
        self.0.readonly != 0
    }

    /// The bytes.
    ///
    /// # Safety
    /// Nobody may write to them meanwhile. Other Python code can, as with every buffer: what is then read is
    /// unspecified, but every number in it is checked after it was copied.
    unsafe fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: the exporter vouches for the range; the caller for the rest.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the view was filled by `PyObject_GetBuffer` and is released once, with the interpreter held.
        Python::attach(|_| unsafe { PyBuffer_Release(&mut *self.0) });
    }
}

fn parse(py: Python<'_>, view: &View) -> PyResult<Header> {
    // SAFETY: the header is copied before it is read.
    let header = py.detach(|| Header::parse_file(unsafe { view.bytes() }, Rules::Compatible));
    header.map_err(|error| error::to_py_reading(py, &error, "Error while deserializing"))
}

/// Returns every tensor of a file in memory: its name, and its shape, dtype and bytes.
#[pyfunction]
pub(crate) fn deserialize<'py>(
    py: Python<'py>,
    bytes: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyList>> {
    let view = View::of(bytes)?;
    let header = parse(py, &view)?;
    let items = PyList::empty(py);
    for info in header.tensors() {
        let item = PyDict::new(py);
        item.set_item("shape", info.shape)?;
        item.set_item("dtype", info.dtype.name())?;
        // SAFETY: the bytes are copied at once.
        let data = part(unsafe { view.bytes() }, &header, &info)
            .map_err(|error| error::to_py(py, &error))?;
        item.set_item("data", PyByteArray::new(py, data))?;
        items.append((info.name, item))?;
    }
    Ok(items)
}

fn part<'a>(bytes: &'a [u8], header: &Header, info: &TensorInfo<'_>) -> Result<&'a [u8]> {
    let start = header.data_start() + info.offsets.start;
    let range = usize::try_from(start)
        .ok()
        .zip(usize::try_from(start + info.size_bytes()).ok());
    range
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or_else(|| {
            Error::truncated(start, info.size_bytes(), bytes.len() as u64).with_tensor(info.name)
        })
}

/// Returns the tensors of a file in memory by name, in the order of their bytes. A writable buffer is
/// viewed and kept alive by them where elements may be read in place; any other is copied.
#[pyfunction]
#[pyo3(signature = (data, framework, device=None))]
pub(crate) fn load_bytes<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
    framework: &str,
    device: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let maker = Maker::new(py, framework, device)?;
    let view = Arc::new(View::of(data)?);
    let header = parse(py, &view)?;
    let _paused = Paused::new(py);
    let dict = PyDict::new(py);
    for info in header.tensors() {
        let memory =
            memory_of(py, &view, &header, &info).map_err(|error| error::to_py(py, &error))?;
        insert(
            &dict,
            info.name,
            maker.make(py, memory, info.dtype, info.shape)?,
        )?;
    }
    Ok(dict)
}

fn memory_of(
    py: Python<'_>,
    view: &Arc<View>,
    header: &Header,
    info: &TensorInfo<'_>,
) -> Result<Memory> {
    if !view.is_readonly() && cfg!(target_endian = "little") {
        let start = header.data_start() + info.offsets.start;
        let memory = Memory::of_buffer(view, start, info.size_bytes());
        if let Some(memory) =
            memory.filter(|memory| memory.is_aligned(tensors::alignment(info.dtype)))
        {
            return Ok(memory);
        }
    }
    // SAFETY: the bytes are copied at once.
    let bytes = part(unsafe { view.bytes() }, header, info)?;
    py.detach(|| {
        Memory::filled(info.size_bytes(), |into| {
            into.copy_from_slice(bytes);
            tensors::to_native_order(into, tensors::alignment(info.dtype));
            Ok(())
        })
    })
}
