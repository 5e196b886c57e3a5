//! The bytes of anything that exports a buffer.

use pyo3::ffi;
use pyo3::prelude::*;

// The buffer functions joined the stable ABI with Python 3.11, unchanged since 3.3 in name, layout and
// meaning, and every interpreter from 3.10 on exports them; the bindings leave them out for 3.10. (On
// Windows the library of the stable ABI forwards them from 3.11 on, so there the wheel needs that.)
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
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: the exporter vouches for the range; the caller for the rest.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // A tensor can outlive the interpreter; its buffer is then left as it is.
        Python::try_attach(|_| {
            // SAFETY: the view was filled by `PyObject_GetBuffer` and is released once, with the interpreter held.
            unsafe { PyBuffer_Release(&mut *self.0) }
        });
    }
}
