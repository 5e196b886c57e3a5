//! The devices that tensors are made on.

use pyo3::prelude::*;
use pyo3::types::PyString;
use tensorhold::ErrorKind;

use crate::error;
use crate::framework::Framework;

/// The kinds of device whose names may carry an index.
const INDEXED: [&str; 8] = ["cuda", "musa", "npu", "xpu", "xla", "mlu", "hpu", "mps"];

/// Where tensors are made.
#[derive(Debug)]
pub(crate) enum Device {
    /// Host memory.
    Cpu,
    /// What the framework is asked to move tensors to: a name, or an index of its accelerator.
    Other { name: String, argument: Py<PyAny> },
}

impl Clone for Device {
    fn clone(&self) -> Self {
        match self {
            Device::Cpu => Device::Cpu,
            Device::Other { name, argument } => Device::Other {
                name: name.clone(),
                argument: Python::attach(|py| argument.clone_ref(py)),
            },
        }
    }
}

impl Device {
    /// The device that a caller's `device` stands for: a name, an index, a `torch.device`, or None for the host.
    pub(crate) fn parse(device: Option<&Bound<'_, PyAny>>) -> PyResult<Device> {
        let Some(device) = device else {
            return Ok(Device::Cpu);
        };
        let py = device.py();
        if let Ok(index) = device.extract::<usize>() {
            return Ok(Device::Other {
                name: index.to_string(),
                argument: device.clone().unbind(),
            });
        }
        let is_torch_device = || device.get_type().name().is_ok_and(|name| name == "device");
        if !device.is_instance_of::<PyString>() && !is_torch_device() {
            let message = format!("device {} is invalid", device.repr()?);
            return Err(error::new(py, ErrorKind::InvalidArgument, message));
        }
        let name = device.str()?.to_string();
        match parse_name(&name) {
            Ok(true) => Ok(Device::Cpu),
            Ok(false) => {
                let argument = match name.split_once(':') {
                    None if INDEXED.contains(&name.as_str()) && name != "mps" => {
                        format!("{name}:0")
                    }
                    _ => name.clone(),
                };
                Ok(Device::Other {
                    argument: PyString::new(py, &argument).into_any().unbind(),
                    name: argument,
                })
            }
            Err(message) => Err(error::new(py, ErrorKind::InvalidArgument, message)),
        }
    }

    /// Refuses a device that `framework` gives no tensors on.
    pub(crate) fn check(&self, py: Python<'_>, framework: Framework) -> PyResult<()> {
        match (self, framework) {
            (Device::Cpu, _) | (_, Framework::Torch | Framework::Paddle) => Ok(()),
            (Device::Other { name, .. }, framework) => {
                let message = format!(
                    "Device {name} is not supported for framework {}",
                    framework.title()
                );
                Err(error::new(py, ErrorKind::InvalidArgument, message))
            }
        }
    }

    /// Which device of CUDA, or of HIP under that name, it is.
    pub(crate) fn cuda_ordinal(&self) -> Option<usize> {
        match self {
            Device::Cpu => None,
            Device::Other { name, .. } => name.strip_prefix("cuda:").unwrap_or(name).parse().ok(),
        }
    }

    /// The name that a front end is given.
    pub(crate) fn name(&self) -> &str {
        match self {
            Device::Cpu => "cpu",
            Device::Other { name, .. } => name,
        }
    }
}

/// Whether `name` is the host; an error's message where it is no device.
fn parse_name(name: &str) -> Result<bool, String> {
    let invalid = || format!("device {name} is invalid");
    match name.split_once(':') {
        None if name == "cpu" => Ok(true),
        None if name == "meta" || INDEXED.contains(&name) => Ok(false),
        Some(("cpu", "0")) => Ok(true),
        Some(("mps", index)) if index != "0" => Err(format!(
            "device {name} is invalid: only mps or mps:0 is supported"
        )),
        Some((kind, index)) if INDEXED.contains(&kind) => {
            index.parse::<usize>().map(|_| false).map_err(|_| invalid())
        }
        _ => Err(invalid()),
    }
}
