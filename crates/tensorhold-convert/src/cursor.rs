//! Small pieces of a file one after another, read through one buffer.

use tensorhold_core::{ByteRange, Error, Result, Source};

/// Reads a range of a file from its start on; nothing past its end is ever read or allocated for.
pub(crate) struct Cursor<'a> {
    source: &'a dyn Source,
    position: u64,
    end: u64,
    /// What was read ahead; its first byte lies at `ahead_from`.
    ahead: Vec<u8>,
    ahead_from: u64,
    window_bytes: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor over `range`, which must lie in the file, that reads `window_bytes` ahead.
    pub fn new(source: &'a dyn Source, range: ByteRange, window_bytes: usize) -> Cursor<'a> {
        Cursor {
            source,
            position: range.start,
            end: range.end.min(source.size_bytes()),
            ahead: Vec::new(),
            ahead_from: range.start,
            window_bytes,
        }
    }

    /// The position in the file of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `n_bytes` bytes; the caller has put a limit on them.
    pub fn bytes(&mut self, n_bytes: u64) -> Result<Vec<u8>> {
        let range = self.next_range(n_bytes)?;
        let n_bytes = usize::try_from(range.len()).map_err(|_| self.ends_before(n_bytes))?;
        let mut bytes = vec![0; n_bytes];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Passes over the next `n_bytes` bytes and gives their range in the file.
    pub fn skip(&mut self, n_bytes: u64) -> Result<ByteRange> {
        let range = self.next_range(n_bytes)?;
        self.position = range.end;
        Ok(range)
    }

    fn next_range(&self, n_bytes: u64) -> Result<ByteRange> {
        match self.position.checked_add(n_bytes) {
            Some(end) if end <= self.end => Ok(ByteRange::new(self.position, end)),
            _ => Err(self.ends_before(n_bytes)),
        }
    }

    fn ends_before(&self, n_bytes: u64) -> Error {
        Error::truncated(self.position, n_bytes, self.end)
    }

    /// Fills `into` with the next bytes.
    pub fn fill(&mut self, into: &mut [u8]) -> Result<()> {
        let range = self.next_range(into.len() as u64)?;
        if into.len() >= self.window_bytes {
            self.source.read_at(range.start, into)?;
        } else {
            let start = self.show(range)?;
            into.copy_from_slice(&self.ahead[start..start + into.len()]);
        }
        self.position = range.end;
        Ok(())
    }

    /// Sees to it that `range`, which is shorter than a window, was read; gives its place in `ahead`.
    fn show(&mut self, range: ByteRange) -> Result<usize> {
        let ahead_to = self.ahead_from + self.ahead.len() as u64;
        if range.start < self.ahead_from || range.end > ahead_to {
            let n_bytes = (self.end - range.start).min(self.window_bytes as u64);
            self.ahead.resize(n_bytes as usize, 0);
            self.ahead_from = range.start;
            self.source.read_at(range.start, &mut self.ahead)?;
        }
        Ok((range.start - self.ahead_from) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_one_another_across_windows() {
        let bytes: Vec<u8> = (0..=255).collect();
        let file = &bytes[..];
        for window_bytes in [1, 3, 7, 1000] {
            let range = ByteRange::new(10, 200);
            let mut cursor = Cursor::new(&file, range, window_bytes);
            assert_eq!(cursor.take::<2>().unwrap(), [10, 11]);
            assert_eq!(cursor.bytes(5).unwrap(), [12, 13, 14, 15, 16]);
            assert_eq!(cursor.skip(100).unwrap(), ByteRange::new(17, 117));
            assert_eq!(cursor.take::<1>().unwrap(), [117]);
            assert_eq!(cursor.remaining(), 82);
        }
    }

    #[test]
    fn nothing_past_the_end_is_read_or_allocated() {
        let file = &[0; 100][..];
        let mut cursor = Cursor::new(&file, ByteRange::new(0, 50), 16);
        assert_eq!(cursor.skip(49).unwrap().end, 49);
        for n_bytes in [2, u64::MAX] {
            let error = cursor.bytes(n_bytes).unwrap_err();
            assert_eq!(error.kind(), tensorhold_core::ErrorKind::Truncated);
        }
        assert_eq!(cursor.take::<1>().unwrap(), [0]);
        assert_eq!(cursor.remaining(), 0);
    }
}
