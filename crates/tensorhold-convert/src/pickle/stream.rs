//! A source read from front to back.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

/// How many bytes are asked for at once.
const WINDOW_BYTES: u64 = 64 << 10;

/// Part of a source, and how far it has been read. Nothing past its end is read.
pub(crate) struct Stream<'a> {
    source: &'a dyn Source,
    window: Vec<u8>,
    /// The position of the window's first byte in the source.
    window_start: u64,
    position: u64,
    end: u64,
}

impl<'a> Stream<'a> {
    /// A stream over `range` of a source.
    ///
    /// # Errors
    /// `Truncated` if the source ends before the range does.
    pub(crate) fn new(source: &'a dyn Source, range: ByteRange) -> Result<Stream<'a>> {
        if range.end > source.size_bytes() {
            return Err(Error::truncated(
                range.start,
                range.len(),
                source.size_bytes(),
            ));
        }
        let (position, end) = (range.start, range.end);
        Ok(Stream {
            source,
            window: Vec::new(),
            window_start: position,
            position,
            end,
        })
    }

    /// The position of the next byte in the source.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        self.end - self.position
    }

    /// Goes on at another place of the same range.
    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position.min(self.end);
    }

    /// The next byte.
    ///
    /// # Errors
    /// `Truncated` at the end.
    pub(crate) fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// The next byte, which stays there.
    ///
    /// # Errors
    /// `Truncated` at the end.
    pub(crate) fn peek(&mut self) -> Result<u8> {
        self.need(1)?;
        let at = self.windowed(1)?;
        Ok(self.window[at])
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// `Truncated` if fewer are left.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.need(N as u64)?;
        let at = self.windowed(N as u64)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.window[at..at + N]);
        self.position += N as u64;
        Ok(bytes)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// `Truncated` if fewer are left: nothing is allocated then.
    pub(crate) fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        self.need(count)?;
        let size = usize::try_from(count).map_err(|_| no_memory(count))?;
        let bytes = if count <= WINDOW_BYTES {
            let at = self.windowed(count)?;
            self.window[at..at + size].to_vec()
        } else {
            let mut bytes = vec![0; size];
            self.source.read_at(self.position, &mut bytes)?;
            bytes
        };
        self.position += count;
        Ok(bytes)
    }

    /// Passes over the next `count` bytes, and says where they are.
    ///
    /// # Errors
    /// `Truncated` if fewer are left.
    pub(crate) fn skip(&mut self, count: u64) -> Result<ByteRange> {
        self.need(count)?;
        let range = ByteRange::new(self.position, self.position + count);
        self.position = range.end;
        Ok(range)
    }

    /// Bytes that were passed over.
    ///
    /// # Errors
    /// What the source refuses with.
    pub(crate) fn read(&self, range: ByteRange) -> Result<Vec<u8>> {
        let size = usize::try_from(range.len()).map_err(|_| no_memory(range.len()))?;
        let mut bytes = vec![0; size];
        self.source.read_at(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Passes over the bytes up to the next line feed, and over that.
    ///
    /// # Errors
    /// `Truncated` if there is none.
    pub(crate) fn pass_line(&mut self) -> Result<()> {
        loop {
            self.need(1)?;
            let at = self.windowed(1)?;
            let rest = &self.window[at..];
            let feed = rest.iter().position(|&byte| byte == b'\n');
            self.position += feed.map_or(rest.len(), |feed| feed + 1) as u64;
            if feed.is_some() {
                return Ok(());
            }
        }
    }

    /// The bytes up to the next line feed, which is passed over.
    ///
    /// # Errors
    /// `Truncated` if there is none, `Overflow` past `limit` bytes.
    pub(crate) fn line(&mut self, limit: u64) -> Result<Vec<u8>> {
        let start = self.position;
        let mut line = Vec::new();
        loop {
            self.need(1)?;
            let at = self.windowed(1)?;
            let rest = &self.window[at..];
            let rest = &rest[..rest
                .len()
                .min(usize::try_from(self.left()).unwrap_or(usize::MAX))];
            let feed = rest.iter().position(|&byte| byte == b'\n');
            line.extend_from_slice(&rest[..feed.unwrap_or(rest.len())]);
            self.position += feed.map_or(rest.len(), |feed| feed + 1) as u64;
            if line.len() as u64 > limit {
                return Err(Error::new(
                    ErrorKind::Overflow,
                    format!("a line of a pickle is over the limit of {limit} bytes"),
                )
                .with_bytes(ByteRange::new(start, self.position)));
            }
            if feed.is_some() {
                return Ok(line);
            }
        }
    }

    fn need(&self, count: u64) -> Result<()> {
        if count > self.left() {
            return Err(Error::truncated(self.position, count, self.end));
        }
        Ok(())
    }

    /// Sees to it that the next `count` bytes are in the window, and says where; they must be there.
    fn windowed(&mut self, count: u64) -> Result<usize> {
        let window_end = self.window_start + self.window.len() as u64;
        let is_inside = self.position >= self.window_start && self.position + count <= window_end;
        if !is_inside {
            let size = self.left().min(WINDOW_BYTES.max(count));
            let size = usize::try_from(size).map_err(|_| no_memory(size))?;
            self.window.resize(size, 0);
            self.source.read_at(self.position, &mut self.window)?;
            self.window_start = self.position;
        }
        Ok(usize::try_from(self.position - self.window_start).expect("a window is in memory"))
    }
}

fn no_memory(count: u64) -> Error {
    Error::new(ErrorKind::NoMemory, format!("no memory for {count} bytes"))
}
