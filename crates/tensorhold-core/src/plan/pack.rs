//! Small tensors side by side in shared buffers.

use super::load::{LoadPlan, Place, Request};
use crate::error::Result;

/// How tensors share buffers, for memory of which each piece costs a call: a device's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// What a tensor begins at a multiple of.
    pub alignment: u64,
    /// Tensors of so many bytes or more have a buffer of their own.
    pub own_bytes: u64,
    /// A shared buffer has at most so many bytes.
    pub shared_bytes: u64,
}

/// Gives requests their places, one after the other.
#[derive(Debug, Clone)]
pub struct Packer {
    packing: Packing,
    /// The shared buffer that still has room, and where it ends so far.
    open: Option<Place>,
}

impl Packer {
    /// One that has placed nothing yet.
    #[must_use]
    pub fn new(packing: Packing) -> Packer {
        Packer {
            packing,
            open: None,
        }
    }

    /// Wants `request` in a buffer of its own or, if it is small, behind those before it in a shared one. What lies between
    /// two of them is filled by nobody. Gives the buffer's number.
    ///
    /// # Errors
    /// As [`LoadPlan::add`].
    pub fn add(&mut self, plan: &mut LoadPlan, request: Request) -> Result<usize> {
        let Packing {
            alignment,
            own_bytes,
            shared_bytes,
        } = self.packing;
        let size_bytes = plan.check(&request)?;
        if size_bytes >= own_bytes.min(shared_bytes) {
            return plan.add_new(request);
        }
        let start = |open: Place| open.offset.next_multiple_of(alignment);
        let has_room = |open: &Place| start(*open) + size_bytes <= shared_bytes;
        let (buffer, offset) = match self.open.filter(has_room) {
            Some(open) => (open.buffer, start(open)),
            None => (plan.add_shared(), 0),
        };
        let end = offset + size_bytes;
        plan.grow(buffer, end);
        plan.add(request.at(Place { buffer, offset }))?;
        self.open = Some(Place {
            buffer,
            offset: end,
        });
        Ok(buffer)
    }
}
