//! Columns on their way to a device: what holds them is read into a slot as it lies in the file, and the copy leaves out what
//! is between.
//!
//! It is for bytes that are read past the page cache: no processor touches them. Through the page cache they are copied by one,
//! into memory that stays in its own cache if it is the same again and again, which slots are not: there they are
//! better gathered.

use std::ptr;

use tensorhold_core::{ByteRange, Piece, Result, Source};
use tensorhold_device::{CopyQueue, DevicePart, Slot, SlotRows};

use super::staging::{self, Hand};

/// Of narrower rows a device would fetch more than it keeps: it asks for the host's memory in such units.
const MIN_WIDTH_BYTES: u64 = 64;

/// More pieces than this are small enough to be gathered within the processor's cache, and go in one copy then.
const MAX_PIECES: usize = 8;

/// Reads past the page cache are of such blocks, which go straight to where they belong if they have their place in a block.
const BLOCK_BYTES: u64 = 4096;

/// A read, and the rows that the device gets of it.
pub(super) struct Pitched<'a> {
    queue: &'a CopyQueue,
    wanted: ByteRange,
    /// What is read, of a file of so many bytes.
    window: ByteRange,
    rows: Vec<SlotRows<'a>>,
}

impl<'a> Pitched<'a> {
    /// The way for the pieces of a task, which lie in `wanted` of a file of `size_bytes`; `None` where another is better.
    pub(super) fn of(
        wanted: ByteRange,
        size_bytes: u64,
        pieces: &[(&'a Piece, &'a DevicePart)],
    ) -> Option<Pitched<'a>> {
        let queue = pieces.first()?.1.queue();
        let is_of_queue = |(_, part): &(_, &DevicePart)| ptr::eq(part.queue(), queue);
        if pieces.len() > MAX_PIECES || !pieces.iter().all(is_of_queue) {
            return None;
        }
        let window = [whole_blocks(wanted, size_bytes), wanted]
            .into_iter()
            .find(|window| window.len() <= Slot::BYTES as u64)?;
        let rows = |(piece, part): &(&Piece, &'a DevicePart)| rows(window, piece, part);
        let rows = pieces.iter().map(rows).collect::<Option<Vec<_>>>()?;
        let is_pitched = rows.iter().any(|rows| rows.n_rows > 1);
        is_pitched.then_some(Pitched {
            queue,
            wanted,
            window,
            rows,
        })
    }

    /// Reads and sends.
    ///
    /// # Errors
    /// Those of the source, of [`Device::select`](tensorhold_device::Device::select), [`Slot::take_while`] and [`Slot::send_rows`].
    pub(super) fn send(self, hand: Hand<'_>, source: &dyn Source) -> Result<()> {
        if hand.is_own_thread {
            self.queue.device().select()?;
        }
        let mut slot = staging::take(self.queue, hand.exchange)?;
        let into = &mut slot[..in_slot(self.window.len())];
        if source.read_at(self.window.start, into).is_err() {
            // What nobody wants may be what cannot be read; if not, the error names what is wanted.
            let start = in_slot(self.wanted.start - self.window.start);
            let into = &mut into[start..][..in_slot(self.wanted.len())];
            source.read_at(self.wanted.start, into)?;
        }
        slot.send_rows(self.queue, hand.lane, &self.rows)
    }
}

/// The blocks that hold `wanted`, as far as the file has them.
fn whole_blocks(wanted: ByteRange, size_bytes: u64) -> ByteRange {
    let end = wanted.end.next_multiple_of(BLOCK_BYTES);
    let start = wanted.start / BLOCK_BYTES * BLOCK_BYTES;
    ByteRange::new(start, end.min(size_bytes.max(wanted.end)))
}

/// The rows of one piece; `None` where it is none of rows, or they are better gathered.
fn rows<'a>(window: ByteRange, piece: &Piece, part: &'a DevicePart) -> Option<SlotRows<'a>> {
    let from = piece.range.start - window.start;
    let (width, pitch, n_rows) = match &piece.selection {
        _ if piece.cast.is_some() => return None,
        None => (piece.range.len(), piece.range.len(), 1),
        // A piece's range begins with the first byte that is selected.
        Some(selection) => {
            let grid = selection.grid()?;
            (grid.width, grid.pitch, grid.n_rows)
        }
    };
    (n_rows == 1 || width >= MIN_WIDTH_BYTES).then_some(SlotRows {
        from: in_slot(from),
        width: in_slot(width),
        pitch: in_slot(pitch),
        n_rows: in_slot(n_rows),
        part,
        at: 0,
    })
}

fn in_slot(n: u64) -> usize {
    usize::try_from(n).expect("what fits into a slot is counted by a pointer's width")
}
