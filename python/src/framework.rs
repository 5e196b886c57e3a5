//! The frameworks that tensors are made for.

use pyo3::prelude::*;
use tensorhold::ErrorKind;

use crate::error;

/// The framework of the tensors that a file gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framework {
    Torch,
    Numpy,
    Tensorflow,
    Flax,
    Mlx,
    Paddle,
}

/// Whether tensors may be views of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// A view of the map where there is one.
    View,
    /// Memory of their own.
    Own,
}

impl Framework {
    /// The framework that a caller's `name` stands for.
    pub(crate) fn parse(py: Python<'_>, name: &str) -> PyResult<Framework> {
        Ok(match name {
            "pt" | "torch" | "pytorch" => Framework::Torch,
            "np" | "numpy" => Framework::Numpy,
            "tf" | "tensorflow" => Framework::Tensorflow,
            "jax" | "flax" => Framework::Flax,
            "mlx" => Framework::Mlx,
            "paddle" => Framework::Paddle,
            _ => {
                let message = format!("framework {name} is invalid");
                return Err(error::new(py, ErrorKind::InvalidArgument, message));
            }
        })
    }

    /// What the drop-in's tensors hold: views of the map where the reference gives them, or where the framework copies
    /// them at once. NumPy's and TensorFlow's keep what they are given, and programs that use them truncate a file whose
    /// arrays they hold.
    pub(crate) fn drop_in_ownership(self) -> Ownership {
        match self {
            Framework::Torch | Framework::Paddle | Framework::Flax | Framework::Mlx => {
                Ownership::View
            }
            Framework::Numpy | Framework::Tensorflow => Ownership::Own,
        }
    }

    /// The name of the front end `tensorhold.<name>`.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Framework::Torch => "torch",
            Framework::Numpy => "numpy",
            Framework::Tensorflow => "tensorflow",
            Framework::Flax => "flax",
            Framework::Mlx => "mlx",
            Framework::Paddle => "paddle",
        }
    }

    /// How messages call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Framework::Torch => "pytorch",
            other => other.module(),
        }
    }
}
