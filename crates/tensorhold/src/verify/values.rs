//! What no header shows: truth values that are neither 0 nor 1, and bits that belong to nothing.

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result};

use super::VerifyEvent;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::pieces::Pieces;
use crate::subbyte::NarrowTensor;

/// Refuses a BOOL that is neither 0 nor 1.
pub(super) fn check_bools(
    checkpoint: &Checkpoint,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Result<()> {
    let is_bool = |tensor: &Tensor<'_>| tensor.info().dtype == Dtype::BOOL;
    for tensor in checkpoint.tensors().filter(is_bool) {
        let found = find(&tensor, tell, |_, piece| {
            piece.iter().position(|byte| *byte > 1)
        })?;
        if let Some((offset, byte)) = found {
            let message = format!("element {offset} of a BOOL tensor is {byte}, neither 0 nor 1");
            return Err(forbidden(&tensor, offset, message));
        }
    }
    Ok(())
}

/// Refuses bits behind the last integer of a line that are not 0, in tensors of integers narrower than a byte.
pub(super) fn check_padding(
    checkpoint: &Checkpoint,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Result<()> {
    for tensor in checkpoint.tensors() {
        let narrow = tensor.narrow();
        let Some((narrow, (line, mask))) =
            narrow.and_then(|narrow| Some((narrow, narrow.padding()?)))
        else {
            continue;
        };
        let found = find(&tensor, tell, |offset, piece| {
            // The last bytes of lines.
            let first = usize::try_from(line - 1 - offset % line).ok()?;
            let step = usize::try_from(line).unwrap_or(usize::MAX);
            let mut ends = (first..piece.len()).step_by(step);
            ends.find(|&end| piece[end] & mask != 0)
        })?;
        if let Some((offset, byte)) = found {
            return Err(padded(&tensor, narrow, [offset, line], byte, mask));
        }
    }
    Ok(())
}

fn padded(
    tensor: &Tensor<'_>,
    narrow: &NarrowTensor,
    [offset, line]: [u64; 2],
    byte: u8,
    mask: u8,
) -> Error {
    let (number, dtype, first) = (offset / line, narrow.dtype(), mask.trailing_zeros());
    let message = format!(
        "byte {offset} is {byte:#04x}, but its bits from {first} on are behind the last {dtype} of line {number} and must be 0"
    );
    forbidden(tensor, offset, message)
        .with_hint("readers pass over these bits; save the tensor anew to clear them")
}

/// The first byte of `tensor` that `look` finds in some piece, which it is shown with the piece's offset.
fn find(
    tensor: &Tensor<'_>,
    tell: &mut dyn FnMut(VerifyEvent),
    look: impl Fn(u64, &[u8]) -> Option<usize>,
) -> Result<Option<(u64, u8)>> {
    let mut pieces = Pieces::default();
    let mut offset = 0;
    while offset < tensor.info().size_bytes() {
        let piece = pieces.read(tensor, offset)?;
        if let Some(at) = look(offset, piece) {
            return Ok(Some((offset + at as u64, piece[at])));
        }
        offset += piece.len() as u64;
        tell(VerifyEvent::Read(piece.len() as u64));
    }
    Ok(None)
}

fn forbidden(tensor: &Tensor<'_>, offset: u64, message: String) -> Error {
    let info = tensor.info();
    let position = tensor.file().header().data_start() + info.offsets.start + offset;
    Error::new(ErrorKind::Forbidden, message)
        .with_tensor(info.name)
        .with_bytes(ByteRange::new(position, position + 1))
}
