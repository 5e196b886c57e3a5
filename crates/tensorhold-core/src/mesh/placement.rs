//! What one axis of a mesh does to a tensor.

use alloc::vec::Vec;
use core::fmt;

/// How the ranks along one axis of a mesh share a tensor.
///
/// A negative dimension counts from the last one. What does not divide evenly is divided as PyTorch's DTensor divides it: each
/// rank gets the size divided by the number of ranks, rounded up, as long as there is something left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Each has all of it.
    Replicate,
    /// Each has a range of a dimension.
    Shard {
        /// The dimension.
        dim: i64,
    },
    /// The dimension is divided into groups, and each rank has its share of each group: what PyTorch writes for an axis that
    /// divides after one that comes behind it in the mesh, and for several equal matrices in one tensor.
    StridedShard {
        /// The dimension.
        dim: i64,
        /// The number of groups.
        split_factor: u64,
    },
    /// Each has a range of a dimension that is some whole blocks, as many as of [`Placement::Shard`] if blocks were positions: for
    /// tensors that can be cut between blocks alone, such as quantized weights. The last block may be partial.
    Blocks {
        /// The dimension.
        dim: i64,
        /// The positions of a block.
        size: u64,
    },
    /// The dimension holds several matrices one behind the other, as query, key and value, or gate and up: each rank has its
    /// share of each.
    Fused {
        /// The dimension.
        dim: i64,
        /// The matrices, in order.
        parts: Vec<FusedPart>,
    },
    /// The dimension holds attention heads, none of which is divided. Where there are more ranks than heads, several ranks have the same
    /// one.
    Heads {
        /// The dimension.
        dim: i64,
        /// The number of heads.
        n_heads: u64,
    },
}

/// One of several matrices in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FusedPart {
    /// How many positions of the dimension it takes.
    pub size: u64,
    /// How many heads it holds, as of [`Placement::Heads`], if that matters.
    pub n_heads: Option<u64>,
}

impl Placement {
    /// The dimension that is divided, if one is.
    #[must_use]
    pub fn dim(&self) -> Option<i64> {
        match self {
            Placement::Replicate => None,
            Placement::Shard { dim }
            | Placement::StridedShard { dim, .. }
            | Placement::Blocks { dim, .. }
            | Placement::Fused { dim, .. }
            | Placement::Heads { dim, .. } => Some(*dim),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Replicate => f.write_str("Replicate()"),
            Placement::Shard { dim } => write!(f, "Shard({dim})"),
            Placement::StridedShard { dim, split_factor } => {
                write!(f, "StridedShard({dim}, split_factor={split_factor})")
            }
            Placement::Blocks { dim, size } => write!(f, "Blocks({dim}, {size})"),
            Placement::Fused { dim, parts } => {
                write!(f, "Fused({dim}, [")?;
                for (number, part) in parts.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{}", part.size)?;
                }
                f.write_str("])")
            }
            Placement::Heads { dim, n_heads } => write!(f, "Heads({dim}, {n_heads})"),
        }
    }
}
