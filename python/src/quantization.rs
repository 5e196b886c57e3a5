//! What of a checkpoint is quantized, for Python.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tensorhold::{QuantFinding, QuantLayout, n_elements};

/// What of a checkpoint is quantized.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct Quantization {
    #[pyo3(get)]
    config: Option<String>,
    weights: Vec<Py<QuantizedWeight>>,
    #[pyo3(get)]
    companions: Vec<String>,
    #[pyo3(get)]
    findings: Vec<Finding>,
}

impl Quantization {
    pub(crate) fn of(
        py: Python<'_>,
        checkpoint: &tensorhold::Checkpoint,
        found: &tensorhold::Quantization,
    ) -> PyResult<Quantization> {
        let weights = found
            .weights
            .iter()
            .map(|weight| Py::new(py, QuantizedWeight::of(checkpoint, weight)));
        Ok(Quantization {
            config: found.config.clone(),
            weights: weights.collect::<PyResult<_>>()?,
            companions: found.companions.clone(),
            findings: found.findings.iter().map(Finding::of).collect(),
        })
    }
}

#[pymethods]
impl Quantization {
    /// Returns the quantized weights by their names.
    #[getter]
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let weights = PyDict::new(py);
        for weight in &self.weights {
            weights.set_item(&weight.get().name, weight)?;
        }
        Ok(weights)
    }

    /// Returns the number of weights in each scheme.
    #[getter]
    fn schemes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut schemes: Vec<(&str, u64)> = Vec::new();
        for weight in &self.weights {
            let scheme = weight.get().scheme;
            match schemes.iter_mut().find(|(name, _)| *name == scheme) {
                Some((_, n_weights)) => *n_weights += 1,
                None => schemes.push((scheme, 1)),
            }
        }
        let dict = PyDict::new(py);
        for (scheme, n_weights) in schemes {
            dict.set_item(scheme, n_weights)?;
        }
        Ok(dict)
    }

    fn __len__(&self) -> usize {
        self.weights.len()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let schemes = self.schemes(py)?.repr()?;
        let config = self
            .config
            .as_ref()
            .map_or("no configuration", |config| config);
        Ok(format!("Quantization({schemes}, {config})"))
    }
}

/// One quantized weight.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct QuantizedWeight {
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    scheme: &'static str,
    #[pyo3(get)]
    dtype: &'static str,
    shape: Option<Vec<u64>>,
    #[pyo3(get)]
    size_bytes: u64,
    parts: Vec<(String, String)>,
    #[pyo3(get)]
    error: Option<String>,
    #[pyo3(get)]
    findings: Vec<Finding>,
}

impl QuantizedWeight {
    fn of(checkpoint: &tensorhold::Checkpoint, weight: &tensorhold::QuantizedWeight) -> Self {
        let parts = weight.parts.iter();
        QuantizedWeight {
            name: weight.name.clone(),
            scheme: weight.scheme.name(),
            dtype: weight.dtype.name(),
            shape: weight.shape().map(<[u64]>::to_vec),
            size_bytes: checkpoint.quantized_size_bytes(weight),
            parts: parts
                .map(|(part, name)| (part.clone(), name.clone()))
                .collect(),
            error: match &weight.layout {
                QuantLayout::Known(_) | QuantLayout::Sparse(_) => None,
                QuantLayout::Opaque(why) => Some(format!("it is not read: {why}")),
                QuantLayout::Broken(error) => Some(error.to_string()),
            },
            findings: weight.findings.iter().map(Finding::of).collect(),
        }
    }
}

#[pymethods]
impl QuantizedWeight {
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.shape
            .as_ref()
            .map(|shape| PyTuple::new(py, shape))
            .transpose()
    }

    /// Returns the names of the tensors by what the scheme calls them.
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let parts = PyDict::new(py);
        for (part, name) in &self.parts {
            parts.set_item(part, name)?;
        }
        Ok(parts)
    }

    /// Returns the bits that an element takes with its part of scales and zeros, if the shape is known.
    #[getter]
    fn bits_per_weight(&self) -> Option<f64> {
        let n_weights = n_elements(self.shape.as_ref()?).filter(|n_weights| *n_weights > 0)?;
        Some(self.size_bytes as f64 * 8.0 / n_weights as f64)
    }

    fn __repr__(&self) -> String {
        let QuantizedWeight {
            name,
            scheme,
            dtype,
            shape,
            ..
        } = self;
        let shape = shape
            .as_ref()
            .map_or("unknown".to_owned(), |shape| format!("{shape:?}"));
        format!("QuantizedWeight(name={name:?}, scheme={scheme:?}, dtype={dtype:?}, shape={shape})")
    }
}

/// Something that is worth knowing: its kind, what it is, and the tensor that shows it.
#[derive(Clone)]
#[pyclass(
    frozen,
    from_py_object,
    module = "tensorhold._native",
    name = "QuantFinding"
)]
pub(crate) struct Finding {
    #[pyo3(get)]
    kind: &'static str,
    #[pyo3(get)]
    message: String,
    #[pyo3(get)]
    tensor: Option<String>,
}

impl Finding {
    fn of(finding: &QuantFinding) -> Finding {
        Finding {
            kind: finding.kind.name(),
            message: finding.message.clone(),
            tensor: finding.tensor.clone(),
        }
    }
}

#[pymethods]
impl Finding {
    fn __str__(&self) -> String {
        format!("{}: {}", self.kind, self.message)
    }

    fn __repr__(&self) -> String {
        format!("QuantFinding({:?}, {:?})", self.kind, self.message)
    }
}

/// A weight as it is without quantization.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct Logical {
    #[pyo3(get)]
    dtype: String,
    shape: Vec<u64>,
    #[pyo3(get)]
    scheme: Option<&'static str>,
}

impl Logical {
    pub(crate) fn of(logical: tensorhold::Logical) -> Logical {
        Logical {
            dtype: match logical.narrow {
                Some(narrow) => narrow.to_string(),
                None => logical.dtype.name().to_owned(),
            },
            shape: logical.shape,
            scheme: logical.scheme.map(tensorhold::SchemeName::name),
        }
    }
}

#[pymethods]
impl Logical {
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    fn __repr__(&self) -> String {
        let Logical {
            dtype,
            shape,
            scheme,
        } = self;
        let scheme = scheme.map_or("None".to_owned(), |scheme| format!("{scheme:?}"));
        format!("Logical(dtype={dtype:?}, shape={shape:?}, scheme={scheme})")
    }
}
