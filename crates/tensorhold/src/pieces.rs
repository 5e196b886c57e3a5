//! The bytes of tensors piece by piece, for what looks at all of them and needs none in memory.

use tensorhold_core::Result;

use crate::checkpoint::Tensor;

/// Large enough for the disk, small enough for the cache.
const PIECE_BYTES: u64 = 1 << 20;

/// Reads pieces of tensors into the same memory.
#[derive(Default)]
pub(crate) struct Pieces {
    buffer: Vec<u8>,
}

impl Pieces {
    /// The next bytes of `tensor` from `offset` on; none at its end.
    pub fn read(&mut self, tensor: &Tensor<'_>, offset: u64) -> Result<&[u8]> {
        let info = tensor.info();
        let wanted = info.size_bytes().saturating_sub(offset).min(PIECE_BYTES);
        let wanted = usize::try_from(wanted).expect("a piece is 1 MiB at most");
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let piece = &mut self.buffer[..wanted];
        let file = tensor.file();
        let position = file.header().data_start() + info.offsets.start + offset;
        file.source()
            .read_at(position, piece)
            .map_err(|error| file.blame(&info, error))?;
        Ok(piece)
    }
}
