//! What differs between two checkpoints: names, dtypes, shapes, bytes, metadata.
//!
//! Tensors are equal if dtype, shape and bytes are; in which file they lie, and where, makes no difference. Bytes are
//! compared piece by piece, so that checkpoints of any size need little memory.

use std::collections::BTreeMap;

use tensorhold_core::{Dtype, Result};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::pieces::Pieces;

/// What is told while two checkpoints are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiffEvent<'a> {
    /// A tensor differs.
    Tensor {
        /// Its name.
        name: &'a str,
        /// How.
        change: Change<TensorChange>,
    },
    /// An entry of the metadata differs.
    Metadata {
        /// Its key.
        key: &'a str,
        /// How; both values where both have it.
        change: Change<(&'a str, &'a str)>,
    },
    /// So many more bytes of tensors were compared.
    Compared(u64),
}

/// How something differs between a left and a right checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<T> {
    /// Only the right one has it.
    Added,
    /// Only the left one has it.
    Removed,
    /// Both have it, but not the same.
    Changed(T),
}

/// How a tensor that both have differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TensorChange {
    /// In dtype or shape.
    Kind {
        /// Dtype and shape on the left.
        left: (Dtype, Vec<u64>),
        /// Dtype and shape on the right.
        right: (Dtype, Vec<u64>),
    },
    /// In its bytes.
    Bytes {
        /// The first byte of the tensor that differs.
        first: u64,
        /// How many bytes the tensor has.
        size_bytes: u64,
    },
}

/// Compares two checkpoints and tells every difference: tensors in the order of the left one, then what is added, then
/// the metadata. Whether there was none is returned.
///
/// # Errors
/// `Truncated` or `Io` if a file cannot be read to its end.
pub fn diff(
    left: &Checkpoint,
    right: &Checkpoint,
    tell: &mut dyn FnMut(DiffEvent<'_>),
) -> Result<bool> {
    let mut is_same = true;
    let mut tell_difference = |event: DiffEvent<'_>| {
        is_same &= matches!(event, DiffEvent::Compared(_));
        tell(event);
    };
    let mut pieces = (Pieces::default(), Pieces::default());
    for tensor in left.tensors() {
        let name = tensor.info().name;
        let change = match right.find(name) {
            None => Some(Change::Removed),
            Some(other) => {
                compare(&tensor, &other, &mut pieces, &mut tell_difference)?.map(Change::Changed)
            }
        };
        if let Some(change) = change {
            tell_difference(DiffEvent::Tensor { name, change });
        }
    }
    for name in right.tensors().map(|tensor| tensor.info().name) {
        if left.find(name).is_none() {
            tell_difference(DiffEvent::Tensor {
                name,
                change: Change::Added,
            });
        }
    }
    compare_metadata(&left.metadata(), &right.metadata(), &mut tell_difference);
    Ok(is_same)
}

fn compare(
    left: &Tensor<'_>,
    right: &Tensor<'_>,
    pieces: &mut (Pieces, Pieces),
    tell: &mut dyn FnMut(DiffEvent<'_>),
) -> Result<Option<TensorChange>> {
    let (info, other) = (left.info(), right.info());
    if info.dtype != other.dtype || info.shape != other.shape {
        return Ok(Some(TensorChange::Kind {
            left: (info.dtype, info.shape.to_vec()),
            right: (other.dtype, other.shape.to_vec()),
        }));
    }
    let mut offset = 0;
    while offset < info.size_bytes() {
        let piece = pieces.0.read(left, offset)?;
        let other = pieces.1.read(right, offset)?;
        if piece != other {
            let at = piece
                .iter()
                .zip(other)
                .position(|(left, right)| left != right);
            let first = offset + at.map_or(0, |at| at as u64);
            return Ok(Some(TensorChange::Bytes {
                first,
                size_bytes: info.size_bytes(),
            }));
        }
        offset += piece.len() as u64;
        tell(DiffEvent::Compared(piece.len() as u64));
    }
    Ok(None)
}

fn compare_metadata(
    left: &BTreeMap<&str, &str>,
    right: &BTreeMap<&str, &str>,
    tell: &mut dyn FnMut(DiffEvent<'_>),
) {
    for (key, value) in left {
        let change = match right.get(key) {
            None => Change::Removed,
            Some(other) if other != value => Change::Changed((*value, *other)),
            Some(_) => continue,
        };
        tell(DiffEvent::Metadata { key, change });
    }
    for key in right.keys().filter(|key| !left.contains_key(*key)) {
        tell(DiffEvent::Metadata {
            key,
            change: Change::Added,
        });
    }
}
