//! Whether a file can be taken for a pickle that runs something.
//!
//! Python's `pickle` takes any file whose first byte is one of its instructions, and runs on until an
//! instruction makes no sense. The header length is bytes that its maker chose, so a file can be made that is good weights here and a
//! program there. This walks the instructions as `pickle` would and does none of them: it keeps only which values
//! are texts, marks, and what was memorized. A pickle harms by what it imports, so the walk ends at
//! the first import that could succeed.
//!
//! # Source
//! CPython 3.13, `Modules/_pickle.c`: whatever it lets pass must pass here.

use std::collections::HashMap;

use tensorhold_core::{ByteRange, Result, Source};

/// A file whose first million instructions are a pickle is nothing else.
const MAX_INSTRUCTIONS: u64 = 1 << 20;
const PAGE_BYTES: u64 = 64 << 10;

/// The instruction with which the file, taken for a pickle, imports something; `None` if it comes to none.
pub(super) fn find_import<S: Source + ?Sized>(source: &S) -> Result<Option<ByteRange>> {
    let mut machine = Machine::new(source);
    for _ in 0..MAX_INSTRUCTIONS {
        let start = machine.position;
        match machine.step()? {
            Step::Next => {}
            Step::Stop => return Ok(None),
            Step::Import => return Ok(Some(ByteRange::new(start, machine.position))),
        }
    }
    Ok(Some(ByteRange::new(0, machine.position)))
}

enum Step {
    Next,
    /// The end of the pickle, or an instruction that fails.
    Stop,
    Import,
}

#[derive(Clone, Copy, PartialEq)]
enum Value {
    Text,
    Other,
}

struct Machine<'a, S: ?Sized> {
    source: &'a S,
    position: u64,
    page: Vec<u8>,
    page_start: u64,
    /// The values above the last mark, and those below each mark.
    stack: Vec<Value>,
    below: Vec<Vec<Value>>,
    memo: HashMap<u64, Value>,
}

/// What follows an instruction, and what it does. `None` stands for an instruction that fails.
type Done = Option<Step>;

impl<'a, S: Source + ?Sized> Machine<'a, S> {
    fn new(source: &'a S) -> Machine<'a, S> {
        Machine {
            source,
            position: 0,
            page: Vec::new(),
            page_start: 0,
            stack: Vec::new(),
            below: Vec::new(),
            memo: HashMap::new(),
        }
    }

    fn step(&mut self) -> Result<Step> {
        let Some(instruction) = self.byte()? else {
            return Ok(Step::Stop);
        };
        Ok(self.carry_out(instruction)?.unwrap_or(Step::Stop))
    }

    fn carry_out(&mut self, instruction: u8) -> Result<Done> {
        use Value::{Other, Text};
        Ok(match instruction {
            b'(' => self.mark(),
            b'0' => self.pop_or_unmark(),
            b'1' => self.unmark(),
            b'2' => self.stack.last().copied().and_then(|top| self.push(top)),
            b'N' | 0x88 | 0x89 | b']' | b'}' | b')' | 0x8f => self.push(Other),
            b'I' | b'L' | b'F' => self.skip_line()?.and_then(|()| self.push(Other)),
            b'K' => self.skip(1)?.and_then(|()| self.push(Other)),
            b'M' => self.skip(2)?.and_then(|()| self.push(Other)),
            b'J' => self.skip(4)?.and_then(|()| self.push(Other)),
            b'G' => self.skip(8)?.and_then(|()| self.push(Other)),
            0x8a | b'C' => self.skip_counted(1)?.and_then(|()| self.push(Other)),
            0x8b | b'B' => self.skip_counted(4)?.and_then(|()| self.push(Other)),
            0x8e | 0x96 => self.skip_counted(8)?.and_then(|()| self.push(Other)),
            b'S' => self.skip_quoted()?.and_then(|()| self.push(Text)),
            b'V' => self.skip_line()?.and_then(|()| self.push(Text)),
            b'U' | 0x8c => self.skip_counted(1)?.and_then(|()| self.push(Text)),
            b'T' | b'X' => self.skip_counted(4)?.and_then(|()| self.push(Text)),
            0x8d => self.skip_counted(8)?.and_then(|()| self.push(Text)),
            b't' | b'l' | b'd' | 0x91 => self.unmark().and_then(|_| self.push(Other)),
            0x85 => self.pop(1).and_then(|()| self.push(Other)),
            0x86 => self.pop(2).and_then(|()| self.push(Other)),
            0x87 => self.pop(3).and_then(|()| self.push(Other)),
            b'a' | b'b' => self.pop(1).and_then(|()| self.keep()),
            b's' => self.pop(2).and_then(|()| self.keep()),
            b'e' | b'u' | 0x90 => self.unmark().and_then(|_| self.keep()),
            0x98 => self.keep(),
            b'p' | b'q' | b'r' | 0x94 => self.memorize(instruction)?,
            b'g' | b'h' | b'j' => self.recall(instruction)?,
            0x80 => self
                .number(1)?
                .filter(|protocol| *protocol <= 5)
                .map(|_| Step::Next),
            0x95 => self.frame()?,
            b'c' | b'i' => self.import()?,
            0x93 => self.ends_in_two_texts().then_some(Step::Import),
            // The end, and what fails before anything was imported: calls, for want of something to call; persistent
            // ids, buffers and registered extensions, for want of a program that gives them a meaning.
            _ => None,
        })
    }

    fn push(&mut self, value: Value) -> Done {
        self.stack.push(value);
        Some(Step::Next)
    }

    fn pop(&mut self, n_values: usize) -> Option<()> {
        let rest = self.stack.len().checked_sub(n_values)?;
        self.stack.truncate(rest);
        Some(())
    }

    fn keep(&mut self) -> Done {
        (!self.stack.is_empty()).then_some(Step::Next)
    }

    fn mark(&mut self) -> Done {
        self.below.push(std::mem::take(&mut self.stack));
        Some(Step::Next)
    }

    fn unmark(&mut self) -> Done {
        self.stack = self.below.pop()?;
        Some(Step::Next)
    }

    fn pop_or_unmark(&mut self) -> Done {
        match self.stack.pop() {
            Some(_) => Some(Step::Next),
            None => self.unmark(),
        }
    }

    fn memorize(&mut self, instruction: u8) -> Result<Done> {
        let key = match instruction {
            0x94 => Some(self.memo.len() as u64),
            _ => self.key(instruction)?,
        };
        Ok(key.zip(self.stack.last()).map(|(key, &top)| {
            self.memo.insert(key, top);
            Step::Next
        }))
    }

    fn recall(&mut self, instruction: u8) -> Result<Done> {
        let key = self.key(instruction)?;
        let value = key.and_then(|key| self.memo.get(&key).copied());
        Ok(value.and_then(|value| self.push(value)))
    }

    fn key(&mut self, instruction: u8) -> Result<Option<u64>> {
        match instruction {
            b'q' | b'h' => self.number(1),
            b'r' | b'j' => self.number(4),
            _ => {
                let line = self.line(64)?;
                let text = line.and_then(|line| {
                    let text = line.split(|byte| *byte == 0).next().unwrap_or_default();
                    String::from_utf8(text.to_vec()).ok()
                });
                Ok(text.and_then(|text| text.trim().parse().ok()))
            }
        }
    }

    fn frame(&mut self) -> Result<Done> {
        let left = |machine: &Self| machine.source.size_bytes() - machine.position;
        let size = self.number(8)?;
        Ok(size.filter(|size| *size <= left(self)).map(|_| Step::Next))
    }

    fn import(&mut self) -> Result<Done> {
        for _ in 0..2 {
            let Some(line) = self.line(1 << 20)? else {
                return Ok(None);
            };
            let name = std::str::from_utf8(&line).unwrap_or_default();
            if name.is_empty() || name.chars().any(char::is_control) {
                return Ok(None);
            }
        }
        Ok(Some(Step::Import))
    }

    fn ends_in_two_texts(&self) -> bool {
        self.stack.ends_with(&[Value::Text, Value::Text])
    }

    fn skip(&mut self, n_bytes: u64) -> Result<Option<()>> {
        self.position = self.position.saturating_add(n_bytes);
        Ok((self.position <= self.source.size_bytes()).then_some(()))
    }

    fn skip_counted(&mut self, width_bytes: u32) -> Result<Option<()>> {
        match self.number(width_bytes)? {
            Some(n_bytes) => self.skip(n_bytes),
            None => Ok(None),
        }
    }

    fn skip_quoted(&mut self) -> Result<Option<()>> {
        let quote = self.byte()?;
        match quote {
            Some(b'\'' | b'"') => self.skip_line(),
            _ => Ok(None),
        }
    }

    fn skip_line(&mut self) -> Result<Option<()>> {
        while self.fill()? {
            let rest = &self.page[(self.position - self.page_start) as usize..];
            match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.position += end as u64 + 1;
                    return Ok(Some(()));
                }
                None => self.position += rest.len() as u64,
            }
        }
        Ok(None)
    }

    /// The bytes up to the end of the line, if they are not too many for anything that makes sense.
    fn line(&mut self, max_bytes: usize) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        while line.len() <= max_bytes {
            match self.byte()? {
                Some(b'\n') => return Ok(Some(line)),
                Some(byte) => line.push(byte),
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn number(&mut self, width_bytes: u32) -> Result<Option<u64>> {
        let mut number = 0;
        for place in 0..width_bytes {
            let Some(byte) = self.byte()? else {
                return Ok(None);
            };
            number |= u64::from(byte) << (8 * place);
        }
        Ok(Some(number))
    }

    fn byte(&mut self) -> Result<Option<u8>> {
        if !self.fill()? {
            return Ok(None);
        }
        let byte = self.page[(self.position - self.page_start) as usize];
        self.position += 1;
        Ok(Some(byte))
    }

    /// Brings the page with the byte at `position`; `false` at the end of the file.
    fn fill(&mut self) -> Result<bool> {
        let end = self.page_start + self.page.len() as u64;
        if (self.page_start..end).contains(&self.position) {
            return Ok(true);
        }
        let left = self.source.size_bytes().saturating_sub(self.position);
        self.page_start = self.position;
        self.page.resize(left.min(PAGE_BYTES) as usize, 0);
        self.source.read_at(self.position, &mut self.page)?;
        Ok(!self.page.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import_of(pickle: &[u8]) -> Option<(u64, u64)> {
        let found = find_import(pickle).unwrap();
        found.map(|range| (range.start, range.end))
    }

    #[test]
    fn the_first_import_is_found() {
        for (pickle, expected) in [
            (&b"cos\nsystem\n(S'id'\ntR."[..], (0, 11)),
            (b"(S'id'\nios\nsystem\n.", (7, 18)),
            (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", (14, 15)),
            (b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x02id\x85R.", (25, 26)),
            (b"X\x04\0\0\0\0\0\0{q\0h\x000N2a0cos\nsystem\n", (18, 29)),
            (b"\x8c\x02os\x942h\x000\x93", (9, 10)),
            (b"I\0\0\0any\ncos\nsystem\n", (8, 19)),
            (b"\x8c\x02osp7\n0g7\nV6\x31\n\x93", (15, 16)),
        ] {
            assert_eq!(import_of(pickle), Some(expected), "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn what_fails_before_an_import_imports_nothing() {
        for pickle in [
            &b""[..],
            b"N.cos\nsystem\n",
            b"0cos\nsystem\n",
            b"(12cos\nsystem\n",
            b"h\0cos\nsystem\n",
            b"g7\ncos\nsystem\n",
            b"Pid\ncos\nsystem\n",
            b"NQcos\nsystem\n",
            b"N)Rcos\nsystem\n",
            b"\x82\x01cos\nsystem\n",
            b"Sbare\ncos\nsystem\n",
            b"\x80\x06cos\nsystem\n",
            b"\x95\xff\0\0\0\0\0\0\0cos\nsystem\n",
            b"X\xff\xff\xff\xffcos\nsystem\n",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffcos\nsystem\n",
            b"cos\nsystem",
            b"c\n\n",
            b"c\0\0\nsystem\n",
            b"c\xff\nsystem\n",
            b"NN\x93",
            b"\x8c\x02os(\x8c\x06system\x93",
        ] {
            assert_eq!(import_of(pickle), None, "{}", pickle.escape_ascii());
        }
    }

    #[test]
    fn a_line_is_followed_over_pages() {
        let mut pickle = b"V".to_vec();
        pickle.extend(vec![b'x'; 200_000]);
        pickle.extend(b"\ncos\nsystem\n");
        assert_eq!(import_of(&pickle), Some((200_002, 200_013)));
    }

    #[test]
    fn a_pickle_without_an_end_is_taken_for_one() {
        assert!(import_of(&vec![b'N'; 1 << 21]).is_some());
        assert_eq!(import_of(&vec![b'N'; 1 << 19]), None);
    }
}
