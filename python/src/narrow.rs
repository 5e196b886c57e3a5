//! Integers narrower than a byte: one to a byte in frameworks, packed in files.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tensorhold::{
    Bounds, Buffer, DTYPE_KEY, Error, Index, NarrowInt, NarrowSelection, NarrowTensor, Request,
    Result, Selection, StreamWriter, Tensor, TensorData, TensorInfo, Widths,
};

use crate::error;
use crate::framework::Framework;
use crate::memory::Memory;
use crate::ndarray;
use crate::spec::{Named, Queues, TensorSpec};
use crate::tensors::Maker;

/// What the bytes of a description hold.
#[derive(Debug, Clone)]
pub(crate) enum Narrow {
    /// An integer in each byte, as frameworks have them.
    Values(NarrowInt),
    /// All of a tensor, as files have it.
    Packed(NarrowTensor),
}

/// A tensor that is wanted, or a part of it.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Its bytes are what is wanted.
    Plain(Selection),
    /// Integers are to be taken out of them.
    Narrow(NarrowSelection),
}

/// By the numbers of their requests, the tensors that are made of integers in the bytes that are read.
pub(crate) type NarrowParts = HashMap<usize, NarrowSelection>;

/// What is asked of a checkpoint for one tensor.
pub(crate) struct Piece {
    pub(crate) request: Request,
    pub(crate) narrow: Option<NarrowSelection>,
}

impl Piece {
    /// All of a tensor.
    pub(crate) fn whole(tensor: &Tensor<'_>) -> Result<Piece> {
        let narrow = tensor
            .narrow()
            .map(|narrow| narrow.select(&[], Bounds::Clamped));
        Ok(Piece {
            request: tensor.request(),
            narrow: narrow.transpose()?,
        })
    }

    /// The stored bytes of a request, whatever they hold.
    pub(crate) fn stored(request: Request) -> Piece {
        Piece {
            request,
            narrow: None,
        }
    }

    /// A part of a tensor.
    pub(crate) fn part(tensor: &Tensor<'_>, part: Part) -> Piece {
        match part {
            Part::Plain(selection) => Piece::stored(tensor.request().part(selection)),
            Part::Narrow(narrow) => Piece {
                request: tensor.request().part(narrow.stored().clone()),
                narrow: Some(narrow),
            },
        }
    }
}

impl Part {
    /// What `index` selects of a tensor as its reader sees it.
    pub(crate) fn resolve(tensor: &Tensor<'_>, index: &[Index], bounds: Bounds) -> Result<Part> {
        match tensor.narrow() {
            Some(narrow) => narrow.select(index, bounds).map(Part::Narrow),
            None => {
                let info = tensor.info();
                Selection::resolve(info.dtype, info.shape, index, bounds).map(Part::Plain)
            }
        }
    }

    /// The bytes that are read.
    pub(crate) fn stored(&self) -> &Selection {
        match self {
            Part::Plain(selection) => selection,
            Part::Narrow(narrow) => narrow.stored(),
        }
    }
}

/// The type and the shape of a tensor as its reader sees it.
pub(crate) fn type_and_shape<'a>(tensor: &Tensor<'a>) -> (String, &'a [u64]) {
    let info: TensorInfo<'a> = tensor.info();
    match tensor.narrow() {
        Some(narrow) => (narrow.dtype().to_string(), narrow.shape()),
        None => (info.dtype.name().to_owned(), info.shape),
    }
}

/// Packs the integers that `spec` describes, one to a byte in the host's memory, as files have them. Returns the description of
/// the packed bytes, and what keeps those alive.
#[pyfunction]
pub(crate) fn pack<'py>(
    py: Python<'py>,
    spec: &Bound<'py, TensorSpec>,
    name: &str,
) -> PyResult<(TensorSpec, Bound<'py, PyBytes>)> {
    let spec = spec.get();
    let Some(Narrow::Values(dtype)) = spec.narrow else {
        return Ok((spec.clone(), PyBytes::new(py, &[])));
    };
    let to_py = |error: Error| error::to_py(py, &error.with_tensor(name));
    let tensor = NarrowTensor::new(dtype, &spec.shape).map_err(to_py)?;
    let queues = Queues::default();
    // SAFETY: the documentation of `TensorSpec` asks the caller for it.
    let values = match unsafe { spec.data(&queues) }.map_err(to_py)? {
        TensorData::Host(values) => values,
        TensorData::Device(_) => unreachable!("no queue to a device was given"),
    };
    let size = usize::try_from(tensor.size_bytes())?;
    let packed = PyBytes::new_with(py, size, |into| tensor.pack(values, into).map_err(to_py))?;
    let packed_spec = TensorSpec {
        shape: tensor.stored_shape().to_vec(),
        data_ptr: packed.as_bytes().as_ptr().expose_provenance() as u64,
        data_len: size,
        narrow: Some(Narrow::Packed(tensor)),
        ..spec.clone()
    };
    Ok((packed_spec, packed))
}

/// The metadata of a save of `named`, with a description of each tensor that needs one, and none that would not fit.
pub(crate) fn described(
    named: &Named,
    metadata: Option<Vec<(String, String)>>,
) -> Option<Vec<(String, String)>> {
    let specs = || named.names.iter().zip(&named.specs);
    let is_given = metadata
        .iter()
        .flatten()
        .any(|(key, _)| key.starts_with(DTYPE_KEY));
    let is_needed = specs().any(|(_, spec)| spec.narrow.is_some());
    if !is_given && !is_needed {
        return metadata;
    }
    let by_name: HashMap<&str, &TensorSpec> =
        specs().map(|(name, spec)| (&name[..], spec)).collect();
    let mut all = metadata.unwrap_or_default();
    all.retain(|(key, text)| {
        let spec = key
            .strip_prefix(DTYPE_KEY)
            .and_then(|name| by_name.get(name));
        spec.is_none_or(|spec| is_described_by(spec, text))
    });
    let own = specs().filter_map(|(name, spec)| match &spec.narrow {
        Some(Narrow::Packed(tensor)) => Some((NarrowTensor::key(name), tensor.description())),
        _ => None,
    });
    all.extend(own);
    Some(all)
}

/// Whether the caller's text describes a tensor that is written as bytes.
fn is_described_by(spec: &TensorSpec, text: &str) -> bool {
    let described = NarrowTensor::parse(text, spec.shape.len());
    spec.narrow.is_none() && described.is_ok_and(|tensor| tensor.fits(spec.dtype, &spec.shape))
}

/// The same for the next tensor of a stream.
pub(crate) fn describe(
    writer: &mut StreamWriter,
    metadata: Option<&[(String, String)]>,
    name: &str,
    spec: &TensorSpec,
) {
    let key = NarrowTensor::key(name);
    if let Some(Narrow::Packed(tensor)) = &spec.narrow {
        writer.set_metadata(&key, Some(tensor.description()));
        return;
    }
    let given = metadata
        .into_iter()
        .flatten()
        .find(|(known, _)| *known == key);
    if given.is_some_and(|(_, text)| !is_described_by(spec, text)) {
        writer.set_metadata(&key, None);
    }
}

impl Maker {
    /// A tensor of the integers that `part` takes out of `stored`: of the framework's own type, or, where it has none, of the
    /// one of 8 bits.
    pub(crate) fn make_narrow<'py>(
        &self,
        py: Python<'py>,
        stored: &Buffer,
        part: &NarrowSelection,
    ) -> PyResult<Bound<'py, PyAny>> {
        let front_end = py.import(format!("tensorhold.{}", self.framework.module()))?;
        let name = part.dtype().framework_name();
        let native = front_end.call_method1(intern!(py, "_narrow"), (&name,))?;
        let has_sign = native.is_none() || self.framework == Framework::Torch;
        let widths = match has_sign {
            true => Widths::Values,
            false => Widths::Codes,
        };
        let memory =
            py.detach(|| Memory::filled(part.n_values(), |into| part.unpack(stored, widths, into)));
        let memory = memory.map_err(|error| error::to_py(py, &error))?;
        if native.is_none() {
            return self.make(py, memory, part.dtype().in_bytes(), part.shape());
        }
        let view = |bytes: Bound<'py, PyAny>| bytes.call_method1(intern!(py, "view"), (&native,));
        match self.framework {
            Framework::Torch => view(self.make(py, memory, tensorhold::Dtype::U8, part.shape())?),
            Framework::Numpy => view(self.bytes(py, memory, part)?),
            _ => {
                let array = view(self.bytes(py, memory, part)?)?;
                let from_numpy = front_end.getattr(intern!(py, "_from_numpy"))?;
                from_numpy.call1((array, part.dtype().to_string(), self.device.name()))
            }
        }
    }

    fn bytes<'py>(
        &self,
        py: Python<'py>,
        memory: Memory,
        part: &NarrowSelection,
    ) -> PyResult<Bound<'py, PyAny>> {
        ndarray::array(py, memory, tensorhold::Dtype::U8, part.shape())
    }
}
