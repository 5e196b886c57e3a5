//! Which part of a checkpoint each rank of a mesh holds.
//!
//! ```text
//! rules ──name──▶ a placement along each axis ──shape, coordinates──▶ Share ──dtype──▶ Selection
//! ```
//!
//! The words are those of PyTorch's `torch.distributed.tensor`: a [`DeviceMesh`] is a grid of ranks with an axis for each kind of
//! parallelism, a [`Placement`] says what an axis does to a tensor. A [`Share`] is the result in numbers.

mod lookup;
mod pattern;
mod placement;
mod rules;
mod share;
mod text;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

pub use pattern::Pattern;
pub use placement::{FusedPart, Placement};
pub use rules::{BoundRules, Held, ParallelRules, Style, Unmatched};
pub use share::{Granularity, Share};

/// Ranks in a grid, numbered from 0 on with the last axis fastest.
///
/// ```
/// use tensorhold_core::DeviceMesh;
///
/// let mesh: DeviceMesh = "pp=2,tp=4".parse()?;
/// assert_eq!(mesh.n_ranks(), 8);
/// assert_eq!(mesh.coordinates(6)?, [1, 2]);
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMesh {
    axes: Vec<MeshAxis>,
}

/// One dimension of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshAxis {
    /// What rules call it, such as `tp`.
    pub name: String,
    /// The number of ranks along it.
    pub size: u64,
}

impl DeviceMesh {
    /// A mesh with these axes, the slowest first.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no axis, if one has no name, the name of another, or no rank, or if there are over 2^32 ranks.
    pub fn new(axes: impl IntoIterator<Item = MeshAxis>) -> Result<DeviceMesh> {
        let axes: Vec<MeshAxis> = axes.into_iter().collect();
        let mut names = BTreeSet::new();
        for MeshAxis { name, size } in &axes {
            if name.is_empty() {
                return Err(invalid(
                    "an axis of a mesh needs a name, as in `tp=4`".into(),
                ));
            }
            if !names.insert(name) {
                return Err(invalid(format!("the mesh has two axes `{name}`")));
            }
            if *size == 0 {
                return Err(invalid(format!("axis `{name}` of the mesh has no rank")));
            }
        }
        let n_ranks = axes
            .iter()
            .try_fold(1u64, |product, axis| product.checked_mul(axis.size));
        if n_ranks.is_none_or(|n_ranks| n_ranks > 1 << 32) {
            return Err(invalid("the mesh has over 2^32 ranks".into()));
        }
        match axes.is_empty() {
            true => Err(invalid("a mesh needs an axis, as in `tp=4`".into())),
            false => Ok(DeviceMesh { axes }),
        }
    }

    /// The axes, the slowest first.
    #[must_use]
    pub fn axes(&self) -> &[MeshAxis] {
        &self.axes
    }

    /// The number of the axis that is called `name`.
    #[must_use]
    pub fn axis(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|axis| axis.name == name)
    }

    /// The number of ranks.
    #[must_use]
    pub fn n_ranks(&self) -> u64 {
        self.axes.iter().map(|axis| axis.size).product()
    }

    /// Where `rank` stands on each axis.
    ///
    /// # Errors
    /// `InvalidArgument` if the mesh has no such rank.
    pub fn coordinates(&self, rank: u64) -> Result<Vec<u64>> {
        if rank >= self.n_ranks() {
            let n_ranks = self.n_ranks();
            return Err(invalid(format!(
                "rank {rank} is none of the {n_ranks} ranks of the mesh {self}"
            )));
        }
        let mut left = rank;
        let mut coordinates = vec![0; self.axes.len()];
        for (at, axis) in coordinates.iter_mut().zip(&self.axes).rev() {
            *at = left % axis.size;
            left /= axis.size;
        }
        Ok(coordinates)
    }
}

impl FromStr for DeviceMesh {
    type Err = Error;

    /// Reads axes as they are printed: `pp=2,tp=4`.
    fn from_str(text: &str) -> Result<DeviceMesh> {
        let axis = |part: &str| {
            let (name, size) = part.split_once('=')?;
            Some(MeshAxis {
                name: name.trim().to_string(),
                size: size.trim().parse().ok()?,
            })
        };
        let axes: Option<Vec<MeshAxis>> = text.split(',').map(axis).collect();
        let axes = axes.ok_or_else(|| {
            let message = format!("`{text}` is no mesh");
            invalid(message).with_hint("give axes with their sizes, as in `pp=2,tp=4`")
        })?;
        DeviceMesh::new(axes)
    }
}

impl fmt::Display for DeviceMesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, MeshAxis { name, size }) in self.axes.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{name}={size}")?;
        }
        Ok(())
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
