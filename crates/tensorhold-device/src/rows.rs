//! Rows out of a slot, of which the copy leaves out what is between.

use tensorhold_core::{Error, ErrorKind, Result};

use crate::buffer::DevicePart;
use crate::copies::{Run, check_queue};
use crate::queue::CopyQueue;
use crate::slot::Slot;

/// Rows of bytes of a slot, and the place on a device where they go, each directly behind the one before.
#[derive(Debug, Clone, Copy)]
pub struct SlotRows<'a> {
    /// Where in the slot the first row begins.
    pub from: usize,
    /// The bytes of a row.
    pub width: usize,
    /// From the beginning of a row to that of the next; not less than `width`, where there are several.
    pub pitch: usize,
    /// The number of rows.
    pub n_rows: usize,
    /// The part that they go to.
    pub part: &'a DevicePart,
    /// Where in the part the first begins.
    pub at: usize,
}

impl SlotRows<'_> {
    fn is_inside(&self) -> bool {
        let Some(n_before) = self.n_rows.checked_sub(1) else {
            return true;
        };
        let fits = |start: usize, n: usize, step: usize, last: usize, len: usize| {
            let way = n.checked_mul(step);
            let last = way.and_then(|way| start.checked_add(way)?.checked_add(last));
            last.is_some_and(|end| end <= len)
        };
        let is_apart = n_before == 0 || self.pitch >= self.width;
        is_apart
            && fits(self.from, n_before, self.pitch, self.width, Slot::BYTES)
            && fits(self.at, n_before, self.width, self.width, self.part.len())
    }
}

/// The calls that carry `all` out, for `queue`: one for each that has bytes.
///
/// # Errors
/// `InvalidArgument` if rows overlap, pass the end of the slot or of their part, or are for another queue's buffer: that buffer
/// would not wait for them.
pub(crate) fn runs(all: &[SlotRows<'_>], queue: &CopyQueue) -> Result<Vec<Run>> {
    for rows in all {
        if !rows.is_inside() {
            return Err(outside(rows));
        }
        check_queue(rows.part, queue)?;
    }
    let is_any = |rows: &&SlotRows<'_>| rows.n_rows > 0 && rows.width > 0;
    let run = |rows: &SlotRows<'_>| Run {
        from: rows.from,
        to: rows.part.address() + rows.at,
        len: rows.width,
        n_rows: rows.n_rows,
        pitch: rows.pitch,
    };
    Ok(all.iter().filter(is_any).map(run).collect())
}

fn outside(rows: &SlotRows<'_>) -> Error {
    let &SlotRows {
        from,
        width,
        pitch,
        n_rows,
        part,
        at,
    } = rows;
    let (slot, part) = (Slot::BYTES, part.len());
    Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "{n_rows} rows of {width} bytes, each {pitch} bytes behind the one before from {from} of a slot of {slot} on, \
             do not fit at {at} of a part of {part} bytes"
        ),
    )
}
