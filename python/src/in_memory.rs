//! Files that lie in memory: `deserialize` and `load_bytes`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyList};
use tensorhold::{Bounds, Buffer, Error, Header, NarrowTensors, Result, Rules, TensorInfo};

use crate::buffer::View;
use crate::collector::Paused;
use crate::error;
use crate::memory::Memory;
use crate::tensors::{self, Maker, insert};

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
    let narrow = NarrowTensors::of(&header);
    for (index, info) in header.tensors().enumerate() {
        let to_py = |error| error::to_py(py, &error);
        let tensor = match narrow.get(index) {
            None => {
                let memory = memory_of(py, &view, &header, &info).map_err(to_py)?;
                maker.make(py, memory, info.dtype, info.shape)?
            }
            Some(narrow) => {
                let all = narrow.select(&[], Bounds::Clamped).map_err(to_py)?;
                let stored = copy_of(&view, &header, &info).map_err(to_py)?;
                maker.make_narrow(py, &stored, &all)?
            }
        };
        insert(&dict, info.name, tensor)?;
    }
    Ok(dict)
}

fn copy_of(view: &View, header: &Header, info: &TensorInfo<'_>) -> Result<Buffer> {
    let mut stored = Buffer::allocate(info.size_bytes())?;
    // SAFETY: the bytes are copied at once.
    stored.copy_from_slice(part(unsafe { view.bytes() }, header, info)?);
    Ok(stored)
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
