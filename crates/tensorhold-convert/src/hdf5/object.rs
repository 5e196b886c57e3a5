//! Object headers: the messages that describe a group or a dataset.

use tensorhold_core::{ByteRange, Result};

use super::{File, address_at, wrong};
use crate::container::{u16_at, u32_at, u64_at};

/// Real headers have a few dozen messages in a few blocks.
const MOST_BLOCKS: usize = 64;
const LONGEST_BLOCK_BYTES: u64 = 1 << 20;
const CONTINUATION: u8 = 0x10;

/// One message of a header.
pub(super) struct Message {
    /// What it is about.
    pub kind: u8,
    /// Whether it only points to what it says.
    pub is_shared: bool,
    pub body: Vec<u8>,
    /// Where its body lies in the file.
    pub place: ByteRange,
}

/// The messages of the header at `address`, those of its further blocks too.
pub(super) fn messages(file: &mut File<'_>, address: u64) -> Result<Vec<Message>> {
    let start = file.bytes(address, 6)?;
    let (mut blocks, form) = if start.starts_with(b"OHDR") {
        second_version(file, address)?
    } else if start[0] == 1 {
        first_version(file, address)?
    } else {
        let here = ByteRange::new(address, address + 6);
        return Err(wrong("no object header stands where one should", here));
    };
    let mut messages = Vec::new();
    let mut at = 0;
    while let Some(&block) = blocks.get(at) {
        at += 1;
        for message in form.messages(file, block)? {
            if message.kind == CONTINUATION {
                blocks.push(continuation(&message, blocks.len(), form)?);
            }
            messages.push(message);
        }
    }
    Ok(messages)
}

/// How messages lie in the blocks of a header.
#[derive(Clone, Copy)]
enum Form {
    First,
    /// Whether each message has its number.
    Second {
        has_order: bool,
    },
}

fn first_version(file: &mut File<'_>, address: u64) -> Result<(Vec<ByteRange>, Form)> {
    let start = file.bytes(address, 16)?;
    let n_bytes = u64::from(u32_at(&start, 8));
    Ok((vec![block(address + 16, n_bytes)?], Form::First))
}

fn second_version(file: &mut File<'_>, address: u64) -> Result<(Vec<ByteRange>, Form)> {
    let flags = file.bytes(address, 6)?[5];
    // Times, and how many attributes lie in the header.
    let optional = if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 };
    let width = 1 << (flags & 3);
    let at = address + 6 + optional;
    let mut size = [0; 8];
    size[..width as usize].copy_from_slice(&file.bytes(at, width)?);
    let form = Form::Second {
        has_order: flags & 4 != 0,
    };
    Ok((vec![block(at + width, u64::from_le_bytes(size))?], form))
}

fn block(start: u64, n_bytes: u64) -> Result<ByteRange> {
    let end = start
        .checked_add(n_bytes)
        .filter(|_| n_bytes <= LONGEST_BLOCK_BYTES);
    let end = end.ok_or_else(|| {
        wrong(
            format!("an object header of {n_bytes} bytes is no header"),
            ByteRange::new(start, start),
        )
    })?;
    Ok(ByteRange::new(start, end))
}

fn continuation(message: &Message, n_blocks: usize, form: Form) -> Result<ByteRange> {
    let broken = || wrong("an object header goes on nowhere", message.place);
    if message.body.len() < 16 || n_blocks >= MOST_BLOCKS {
        return Err(broken());
    }
    let start = address_at(&message.body, 0).ok_or_else(broken)?;
    let all = block(start, u64_at(&message.body, 8))?;
    match form {
        Form::First => Ok(all),
        // A signature before, a checksum behind.
        Form::Second { .. } if all.len() >= 8 => Ok(ByteRange::new(all.start + 4, all.end - 4)),
        Form::Second { .. } => Err(broken()),
    }
}

impl Form {
    fn messages(self, file: &mut File<'_>, block: ByteRange) -> Result<Vec<Message>> {
        let bytes = file.bytes(block.start, block.len())?;
        let head_bytes = match self {
            Form::First => 8,
            Form::Second { has_order } => 4 + if has_order { 2 } else { 0 },
        };
        let mut messages = Vec::new();
        let mut at = 0;
        // Fewer bytes than a head has are a gap.
        while at + head_bytes <= bytes.len() {
            let head = &bytes[at..];
            let (kind, size, flags) = match self {
                Form::First => (u16_at(head, 0), u16_at(head, 2), head[4]),
                Form::Second { .. } => (u16::from(head[0]), u16_at(head, 1), head[3]),
            };
            let start = at + head_bytes;
            let end = start + usize::from(size);
            let place = ByteRange::new(block.start + at as u64, block.end);
            let body = bytes
                .get(start..end)
                .ok_or_else(|| wrong("a message runs past its object header", place))?;
            let kind =
                u8::try_from(kind).map_err(|_| wrong("a message is of no known kind", place))?;
            messages.push(Message {
                kind,
                is_shared: flags & 2 != 0,
                body: body.to_vec(),
                place: ByteRange::new(block.start + start as u64, block.start + end as u64),
            });
            at = end;
        }
        Ok(messages)
    }
}
