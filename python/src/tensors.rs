//! Tensors of any framework out of memory.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tensorhold::{Bounds, Buffer, Dtype, Error, Result, Selection, Tensor};

use crate::device::Device;
use crate::error;
use crate::framework::{Framework, Ownership};
use crate::memory::Memory;
use crate::narrow::Part;
use crate::{ndarray, torch};

/// What kind of tensors are made, and where.
#[derive(Debug, Clone)]
pub(crate) struct Maker {
    pub(crate) framework: Framework,
    pub(crate) device: Device,
}

impl Maker {
    /// The maker for what a caller named.
    pub(crate) fn new(
        py: Python<'_>,
        framework: &str,
        device: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Maker> {
        let maker = Maker {
            framework: Framework::parse(py, framework)?,
            device: Device::parse(device)?,
        };
        maker.device.check(py, maker.framework)?;
        Ok(maker)
    }

    /// The same on another device, if one is named.
    pub(crate) fn on(&self, py: Python<'_>, device: Option<&Bound<'_, PyAny>>) -> PyResult<Maker> {
        let Some(device) = device else {
            return Ok(self.clone());
        };
        let maker = Maker {
            framework: self.framework,
            device: Device::parse(Some(device))?,
        };
        maker.device.check(py, maker.framework)?;
        Ok(maker)
    }

    /// Refuses a type that the framework has none for, before any byte is read.
    pub(crate) fn check(&self, py: Python<'_>, dtype: Dtype) -> PyResult<()> {
        match self.framework {
            Framework::Torch if !torch::has(py, dtype)? => {
                let message =
                    format!("prefetch cannot hand out dtype {dtype}: torch has no matching dtype");
                Err(error::new(
                    py,
                    tensorhold::ErrorKind::InvalidArgument,
                    message,
                ))
            }
            _ => Ok(()),
        }
    }

    /// A tensor of the framework over `memory`.
    pub(crate) fn make<'py>(
        &self,
        py: Python<'py>,
        memory: Memory,
        dtype: Dtype,
        shape: &[u64],
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.framework {
            Framework::Torch => {
                let tensor = torch::tensor(py, memory, dtype, shape)?;
                match &self.device {
                    Device::Cpu => Ok(tensor),
                    Device::Other { argument, .. } => {
                        tensor.call_method1(intern!(py, "to"), (argument,))
                    }
                }
            }
            Framework::Numpy => ndarray::array(py, memory, dtype, shape),
            other => {
                let array = ndarray::array(py, memory, dtype, shape)?;
                let front_end = py.import(format!("tensorhold.{}", other.module()))?;
                let from_numpy = front_end.getattr(intern!(py, "_from_numpy"))?;
                from_numpy.call1((array, dtype.name(), self.device.name()))
            }
        }
    }

    /// The whole tensor.
    pub(crate) fn whole<'py>(
        &self,
        py: Python<'py>,
        tensor: &Tensor<'_>,
        ownership: Ownership,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(narrow) = tensor.narrow() {
            let part = narrow.select(&[], Bounds::Clamped);
            let part = part.map_err(|error| error::to_py(py, &error))?;
            return self.part(py, tensor, Part::Narrow(part));
        }
        let info = tensor.info();
        let memory = match ownership {
            Ownership::View => view(py, tensor),
            Ownership::Own => own(py, tensor),
        };
        let memory = memory.map_err(|error| error::to_py(py, &error))?;
        self.make(py, memory, info.dtype, info.shape)
    }

    /// A part of the tensor, in memory of its own.
    pub(crate) fn part<'py>(
        &self,
        py: Python<'py>,
        tensor: &Tensor<'_>,
        part: Part,
    ) -> PyResult<Bound<'py, PyAny>> {
        let buffer = read(py, tensor, part.stored().clone());
        let buffer = buffer.map_err(|error| error::to_py(py, &error))?;
        match &part {
            Part::Narrow(narrow) => self.make_narrow(py, &buffer, narrow),
            Part::Plain(selection) => {
                let memory = Memory::of_owned(buffer);
                self.make(py, memory, tensor.info().dtype, selection.shape())
            }
        }
    }
}

/// Adds `name` and its tensor to a dict that is being filled.
pub(crate) fn insert(
    dict: &Bound<'_, PyDict>,
    name: &str,
    tensor: Bound<'_, PyAny>,
) -> PyResult<()> {
    dict.set_item(PyString::new(dict.py(), name), tensor)
}

/// The tensor's bytes in the map, where there is one and elements may be read in place; else read.
fn view(py: Python<'_>, tensor: &Tensor<'_>) -> Result<Memory> {
    let (file, info) = (tensor.file(), tensor.info());
    let start = file.header().data_start() + info.offsets.start;
    if let Some(map) = file.map().filter(|_| cfg!(target_endian = "little")) {
        let memory = Memory::of_map(map, start, info.size_bytes());
        let memory =
            memory.ok_or_else(|| Error::truncated(start, info.size_bytes(), map.len() as u64))?;
        if memory.is_aligned(alignment(info.dtype)) {
            return Ok(memory);
        }
    }
    own(py, tensor)
}

fn own(py: Python<'_>, tensor: &Tensor<'_>) -> Result<Memory> {
    let info = tensor.info();
    let selection = Selection::whole(info.dtype, info.shape)?;
    read(py, tensor, selection).map(Memory::of_owned)
}

/// Fewer bytes are copied out of a map sooner than the interpreter is let go of and taken again.
const AT_ONCE_BYTES: u64 = 64 << 10;

/// From so many bytes on several threads are worth their start.
const TOGETHER_BYTES: u64 = 1 << 20;

/// Reads into memory of its own without holding the interpreter, in the machine's byte order.
fn read(py: Python<'_>, tensor: &Tensor<'_>, selection: Selection) -> Result<Buffer> {
    let width = alignment(tensor.info().dtype);
    let size_bytes = selection.size_bytes();
    if size_bytes >= TOGETHER_BYTES {
        let mut buffer = py.detach(|| tensor.load(selection))?;
        to_native_order(&mut buffer, width);
        return Ok(buffer);
    }
    let fill = || {
        let mut buffer = Buffer::allocate(size_bytes)?;
        tensor.read_into(&selection, &mut buffer)?;
        to_native_order(&mut buffer, width);
        Ok(buffer)
    };
    let read = match tensor.file().source().as_bytes().is_some() && size_bytes < AT_ONCE_BYTES {
        true => fill(),
        false => py.detach(fill),
    };
    let path = tensor.file().path().to_string_lossy();
    read.map_err(|error: Error| error.with_file(path).with_tensor(tensor.info().name))
}

/// The file's little-endian numbers of `width` bytes in the machine's order.
pub(crate) fn to_native_order(bytes: &mut [u8], width: u32) {
    if cfg!(target_endian = "big") && width > 1 {
        bytes
            .chunks_exact_mut(width as usize)
            .for_each(<[u8]>::reverse);
    }
}

/// The boundary that elements must start on; a complex number's parts count each.
pub(crate) fn alignment(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::C64 => 4,
        other => other.width_bytes().unwrap_or(1),
    }
}
