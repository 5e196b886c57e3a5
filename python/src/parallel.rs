//! What a rank holds of a checkpoint, in Python's words.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tensorhold::{
    Checkpoint, CheckpointRules, DeviceMesh, Dtype, Error, ErrorKind, FusedPart, Held, MeshAxis,
    NamedHeld, ParallelRules, Pattern, Placement, Selection, Style, Unmatched,
};

use crate::error;

/// Of each dimension of a tensor the positions that a rank holds.
#[pyclass(frozen, module = "tensorhold._native")]
pub(crate) struct Share {
    full_shape: Vec<u64>,
    held: Held,
    /// The quantized weight of which the tensor is a part, or which it is.
    weight: Option<String>,
}

impl Share {
    /// What it selects of a tensor of `shape`; `None` for all of it.
    pub(crate) fn selection(
        &self,
        dtype: Dtype,
        shape: &[u64],
    ) -> tensorhold::Result<Option<Selection>> {
        if shape != self.full_shape {
            let full_shape = &self.full_shape;
            let message = format!("the share is of a tensor of {full_shape:?}, not of {shape:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.held.share.selection(dtype)
    }
}

#[pymethods]
impl Share {
    /// What is left of a tensor of `shape` for a rank, where each of `divisions` is a placement, the number of ranks along its
    /// axis, and the rank's place there.
    #[new]
    fn new(
        py: Python<'_>,
        shape: Vec<u64>,
        divisions: Vec<(Bound<'_, PyTuple>, u64, u64)>,
    ) -> PyResult<Share> {
        let mut share = tensorhold::Share::whole(&shape);
        let mut placements = Vec::with_capacity(divisions.len());
        for (placement, n_ranks, rank) in divisions {
            let placement = placement_of(py, &placement)?;
            if rank >= n_ranks {
                let message = format!("rank {rank} is none of the {n_ranks} along an axis");
                return Err(error::new(py, ErrorKind::InvalidArgument, message));
            }
            let divided = share.divide(&placement, n_ranks, rank);
            divided.map_err(|error| error::to_py(py, &error))?;
            placements.push(placement);
        }
        let held = Held {
            placements,
            share,
            rewritten: None,
        };
        Ok(Share {
            full_shape: shape,
            held,
            weight: None,
        })
    }

    /// The shape of what is held.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.held.share.shape())
    }

    /// The shape of the tensor.
    #[getter]
    fn full_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.full_shape)
    }

    /// For each dimension the ranges of positions, as first and end, in the order in which they are held.
    #[getter]
    fn ranges(&self) -> Vec<Vec<(u64, u64)>> {
        let pairs = |ranges: &Vec<std::ops::Range<u64>>| {
            ranges
                .iter()
                .map(|range| (range.start, range.end))
                .collect()
        };
        self.held.share.ranges().iter().map(pairs).collect()
    }

    /// For each axis of the mesh the placement, as a tuple of its name and its numbers.
    #[getter]
    fn placements<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let placements = self.held.placements.iter();
        placements
            .map(|placement| to_tuple(py, placement))
            .collect()
    }

    /// The quantized weight that the tensor is a part of, and by which it is divided; `None` for any other tensor.
    #[getter]
    fn weight(&self) -> Option<&str> {
        self.weight.as_deref()
    }

    /// The integers that are to be in place of those in the file; `None` where these stay.
    #[getter]
    fn rewritten(&self) -> Option<&[i64]> {
        self.held.rewritten.as_deref()
    }

    /// Whether it is all of the tensor.
    #[getter]
    fn is_whole(&self) -> bool {
        self.held.share.is_whole()
    }

    fn __repr__(&self) -> String {
        let (shape, full_shape) = (self.held.share.shape(), &self.full_shape);
        let placements = self.held.placements.iter().map(ToString::to_string);
        let placements = placements.collect::<Vec<_>>().join(", ");
        format!("Share({shape:?} of {full_shape:?} by {placements})")
    }
}

/// A rule: a pattern of names, the axis, and the style.
pub(crate) type Rule<'py> = (String, String, Bound<'py, PyTuple>);

/// Who asks what a rank holds: the axes of a mesh with their sizes, the rank, the rules, whether they are to name every tensor, names
/// for tensors that are kept under another, and whether quantized weights are to be as they are without quantization.
pub(crate) type Asked<'py> = (
    Vec<(String, u64)>,
    u64,
    Vec<Rule<'py>>,
    bool,
    Vec<(String, String)>,
    bool,
);

/// What a rank holds of each tensor, by name.
pub(crate) fn shares<'py>(
    py: Python<'py>,
    checkpoint: &Checkpoint,
    (mesh, rank, rules, refuses_unmatched, tied, is_dequantized): Asked<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let to_py = |error: Error| error::to_py(py, &error);
    let axes = mesh.into_iter().map(|(name, size)| MeshAxis { name, size });
    let mut all = ParallelRules::new(DeviceMesh::new(axes).map_err(to_py)?);
    if refuses_unmatched {
        all = all.with_unmatched(Unmatched::Refuse);
    }
    for (pattern, axis, style) in rules {
        let style = style_of(py, &style)?;
        all.add(Pattern::new(&pattern), &axis, style)
            .map_err(to_py)?;
    }
    let held = py.detach(|| {
        let rules = CheckpointRules::bind(checkpoint, &all, &tied)?;
        match is_dequantized {
            true => rules.logical(rank),
            false => rules.tensors(rank),
        }
    });
    let shares = PyDict::new(py);
    for NamedHeld {
        name,
        shape,
        weight,
        held,
    } in held.map_err(to_py)?
    {
        let share = Share {
            full_shape: shape.to_vec(),
            held,
            weight: weight.map(|weight| weight.name.clone()),
        };
        shares.set_item(name, Bound::new(py, share)?)?;
    }
    Ok(shares)
}

fn style_of(py: Python<'_>, style: &Bound<'_, PyTuple>) -> PyResult<Style> {
    let name: String = style.get_item(0)?.extract()?;
    Ok(match &name[..] {
        "Stages" => Style::Stages(style.get_item(1)?.extract()?),
        "Experts" => Style::Experts(style.get_item(1)?.extract()?),
        "style" => {
            let name: String = style.get_item(1)?.extract()?;
            let named = Style::named(&name);
            named.ok_or_else(|| {
                let message = format!("there is no style `{name}` of parallelism");
                error::new(py, ErrorKind::InvalidArgument, message)
            })?
        }
        _ => Style::Place(placement_of(py, style)?),
    })
}

fn placement_of(py: Python<'_>, placement: &Bound<'_, PyTuple>) -> PyResult<Placement> {
    let name: String = placement.get_item(0)?.extract()?;
    let dim = || placement.get_item(1)?.extract::<i64>();
    Ok(match &name[..] {
        "Replicate" => Placement::Replicate,
        "Shard" => Placement::Shard { dim: dim()? },
        "StridedShard" => Placement::StridedShard {
            dim: dim()?,
            split_factor: placement.get_item(2)?.extract()?,
        },
        "Blocks" => Placement::Blocks {
            dim: dim()?,
            size: placement.get_item(2)?.extract()?,
        },
        "Heads" => Placement::Heads {
            dim: dim()?,
            n_heads: placement.get_item(2)?.extract()?,
        },
        "Fused" => {
            let parts: Vec<(u64, Option<u64>)> = placement.get_item(2)?.extract()?;
            let part = |(size, n_heads)| FusedPart { size, n_heads };
            Placement::Fused {
                dim: dim()?,
                parts: parts.into_iter().map(part).collect(),
            }
        }
        _ => {
            let message = format!("there is no placement `{name}`");
            return Err(error::new(py, ErrorKind::InvalidArgument, message));
        }
    })
}

fn to_tuple<'py>(py: Python<'py>, placement: &Placement) -> PyResult<Bound<'py, PyTuple>> {
    match placement {
        Placement::Replicate => ("Replicate",).into_pyobject(py),
        Placement::Shard { dim } => ("Shard", dim).into_pyobject(py),
        Placement::StridedShard { dim, split_factor } => {
            ("StridedShard", dim, split_factor).into_pyobject(py)
        }
        Placement::Blocks { dim, size } => ("Blocks", dim, size).into_pyobject(py),
        Placement::Heads { dim, n_heads } => ("Heads", dim, n_heads).into_pyobject(py),
        Placement::Fused { dim, parts } => {
            let parts: Vec<_> = parts.iter().map(|part| (part.size, part.n_heads)).collect();
            ("Fused", dim, parts).into_pyobject(py)
        }
    }
}
