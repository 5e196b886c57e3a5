//! Pieces on their way to devices, in slots of pinned memory.

use std::ptr;

use tensorhold_core::{Piece, Result};
use tensorhold_device::{CopyQueue, DevicePart, Slot, SlotCopy};

use super::exchange::Exchange;
use super::sync::check_interrupt;

/// Parts that lie less than this behind each other on the device keep their distance in a slot, so that one copy carries them.
const NEAR_BYTES: usize = 256;

/// Other parts begin on a cache line of their own.
const ALIGNMENT: usize = 64;

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hand<'a> {
    /// The stream to take.
    pub lane: usize,
    /// Whether the thread is the engine's own, so that its current device is nobody else's.
    pub is_own_thread: bool,
    /// Where it is known whether what is sent is still wanted.
    pub exchange: &'a Exchange,
}

/// Sends `pieces` to the parts of devices that they belong to, once `fill` has put their bytes into the memory it is given.
///
/// # Errors
/// Those of `fill`, and of [`Device::select`](tensorhold_device::Device::select), [`Slot::take_while`] and [`Slot::send`].
pub(super) fn send<'a>(
    hand: Hand<'a>,
    mut pieces: Vec<(&'a Piece, &'a DevicePart)>,
    fill: &mut dyn FnMut(&Piece, &mut [u8]) -> Result<()>,
) -> Result<()> {
    // Device by device, as who has a slot must not wait for a second.
    pieces.sort_by_key(|(_, part)| ptr::from_ref(part.queue()));
    for of_one in pieces.chunk_by(|(_, one), (_, next)| ptr::eq(one.queue(), next.queue())) {
        let queue = of_one[0].1.queue();
        if hand.is_own_thread {
            queue.device().select()?;
        }
        let mut staged = Staged {
            queue,
            hand,
            slot: None,
            copies: Vec::with_capacity(of_one.len()),
        };
        for (piece, part) in of_one {
            fill(piece, staged.room(part)?)?;
        }
        staged.send()?;
    }
    Ok(())
}

/// A slot that is being filled.
struct Staged<'a> {
    queue: &'a CopyQueue,
    hand: Hand<'a>,
    slot: Option<Slot>,
    copies: Vec<SlotCopy<'a>>,
}

impl<'a> Staged<'a> {
    /// Memory for the bytes of `part`; what has no room beside it is sent first.
    fn room(&mut self, part: &'a DevicePart) -> Result<&mut [u8]> {
        if self.next_start(part) + part.len() > Slot::BYTES {
            self.send()?;
        }
        let start = self.next_start(part);
        let end = start + part.len();
        self.copies.push(SlotCopy {
            from: start..end,
            part,
            at: 0,
        });
        let slot = match &mut self.slot {
            Some(slot) => slot,
            none => none.insert(take(self.queue, self.hand.exchange)?),
        };
        Ok(&mut slot[start..end])
    }

    fn next_start(&self, part: &DevicePart) -> usize {
        let Some(last) = self.copies.last() else {
            return 0;
        };
        let gap = part
            .address()
            .checked_sub(last.part.address() + last.part.len());
        match gap {
            Some(gap) if gap < NEAR_BYTES => last.from.end + gap,
            _ => last.from.end.next_multiple_of(ALIGNMENT),
        }
    }

    fn send(&mut self) -> Result<()> {
        let copies = std::mem::take(&mut self.copies);
        match self.slot.take() {
            Some(slot) => slot.send(self.queue, self.hand.lane, &copies),
            None => Ok(()),
        }
    }
}

/// A slot, as long as the transfer goes on.
///
/// # Errors
/// Those of [`Slot::take_while`], and that of the transfer's end.
pub(super) fn take(queue: &CopyQueue, exchange: &Exchange) -> Result<Slot> {
    Slot::take_while(queue.device(), &mut || {
        check_interrupt()?;
        exchange.check()
    })
}
