//! Rows of codes that lie across the lines of a part, turned so that each is a run.
//!
//! ```text
//! a word has codes of one row (GPTQ):    lines x rows of words -> rows x lines
//! a word has a code of eight rows (AWQ): nibbles of eight words of eight lines change places; then as above
//! ```

use core::ops::Range;

use tensorhold_core::Result;

use super::lent::Lent;
use super::transpose::transpose;
use crate::cast::level::{Level, Work};
use crate::scheme::{RowRuns, Window};

/// The codes of the rows of a tile, those of each in a run.
#[derive(Default)]
pub(super) struct Turned {
    bytes: Vec<u8>,
    /// From one row to the next.
    pitch: usize,
    /// The byte of its run that a row begins with.
    first_byte: u64,
}

/// What lies between rows, so that they are not all in the same sets of a cache.
const BETWEEN: usize = 64;

/// An element of 4 bytes.
type Word = [u8; 4];

/// The codes that words of eight rows have, and the rows.
const EIGHT: usize = 8;

impl Turned {
    /// Takes the codes of `tile` out of `lent`, which lie as `runs` says.
    pub(super) fn fill(&mut self, lent: &Lent<'_>, runs: RowRuns, tile: &Window) -> Result<()> {
        let elements = runs.order()?.rows_of(tile.columns.clone())?;
        let width = lent.width_bytes();
        let n_bytes = (elements.end - elements.start) as usize * width;
        let n_rows = (tile.rows.end - tile.rows.start) as usize;
        self.pitch = n_bytes + BETWEEN;
        self.first_byte = elements.start * width as u64;
        self.bytes.resize(n_rows * self.pitch, 0);
        match runs {
            RowRuns::Spread(nibbles) => self.spread(lent, nibbles, tile),
            _ if width == size_of::<Word>() => {
                let lines = lines(lent, tile, elements, &tile.rows);
                let (into, pitch) = (&mut self.bytes[..], self.pitch);
                let lines = &lines;
                Level::detect().run(Across { lines, into, pitch });
            }
            _ => {
                let lines =
                    elements.map(|line| lent.elements(tile.experts.start, line, tile.rows.clone()));
                let lines = lines.collect::<Vec<&[u8]>>().concat();
                let mut rows = vec![0; lines.len()];
                transpose(&lines, n_rows, &mut rows);
                let rows = rows.chunks(n_bytes.max(1));
                for (row, into) in rows.zip(self.bytes.chunks_mut(self.pitch)) {
                    into[..n_bytes].copy_from_slice(row);
                }
            }
        }
        Ok(())
    }

    /// Takes codes of which each word has those of eight rows.
    fn spread(&mut self, lent: &Lent<'_>, nibbles: [u8; EIGHT], tile: &Window) {
        let eight = EIGHT as u64;
        let words = tile.rows.start / eight..tile.rows.end.div_ceil(eight);
        let lines = lines(lent, tile, tile.columns.clone(), &words);
        Level::detect().run(Spread {
            lines: &lines,
            nibbles,
            before: (tile.columns.start % eight) as usize,
            skipped: (tile.rows.start % eight) as usize,
            n_rows: (tile.rows.end - tile.rows.start) as usize,
            into: &mut self.bytes,
            pitch: self.pitch,
        });
    }

    /// These bytes of the run of a row.
    pub(super) fn run(&self, row: usize, bytes: Range<u64>) -> &[u8] {
        let range = bytes.start - self.first_byte..bytes.end - self.first_byte;
        &self.bytes[row * self.pitch..][range.start as usize..range.end as usize]
    }
}

/// These words of these lines of the matrix of `tile`.
fn lines<'a>(
    lent: &Lent<'a>,
    tile: &Window,
    lines: Range<u64>,
    words: &Range<u64>,
) -> Vec<&'a [Word]> {
    let line = |line| lent.elements(tile.experts.start, line, words.clone());
    lines.map(|number| line(number).as_chunks().0).collect()
}

/// Words of lines, each of another row, that become words of rows.
struct Across<'a> {
    lines: &'a [&'a [Word]],
    into: &'a mut [u8],
    pitch: usize,
}

/// Lines that are turned together: their words of one row fill a line of a cache.
const TOGETHER: usize = 16;

impl Work for Across<'_> {
    #[inline(always)]
    fn run(self) {
        let (blocks, rest) = self.lines.as_chunks::<TOGETHER>();
        for (number, lines) in blocks.iter().enumerate() {
            let n_rows = lines[0].len();
            let mut turned = [&[][..]; TOGETHER];
            for (turned, line) in turned.iter_mut().zip(lines) {
                *turned = &line[..n_rows];
            }
            let rows = self.into.as_chunks_mut().0.chunks_mut(self.pitch / 4);
            for (row, into) in rows.enumerate().take(n_rows) {
                let into = &mut into[number * TOGETHER..][..TOGETHER];
                for (into, line) in into.iter_mut().zip(&turned) {
                    *into = line[row];
                }
            }
        }
        let at = blocks.len() * TOGETHER * size_of::<Word>();
        for (number, line) in rest.iter().enumerate() {
            let at = at + number * size_of::<Word>();
            for (word, into) in line.iter().zip(self.into.chunks_mut(self.pitch)) {
                into[at..][..size_of::<Word>()].copy_from_slice(word);
            }
        }
    }
}

/// Words of lines, each of eight rows, that become words of rows, each of eight lines.
struct Spread<'a> {
    lines: &'a [&'a [Word]],
    /// Where in a word the code of each of the eight rows is.
    nibbles: [u8; EIGHT],
    /// The lines that the first eight have before the first of `lines`.
    before: usize,
    /// The rows that the first words have before the first that is wanted.
    skipped: usize,
    n_rows: usize,
    into: &'a mut [u8],
    pitch: usize,
}

/// Words that are turned at once.
const LANES: usize = 16;

impl Work for Spread<'_> {
    #[inline(always)]
    fn run(mut self) {
        let n_words = self.lines.first().map_or(0, |line| line.len());
        let n_eights = (self.before + self.lines.len()).div_ceil(EIGHT);
        for eight in 0..n_eights {
            for first in (0..n_words).step_by(LANES) {
                let mut words = [[0; LANES]; EIGHT];
                for (place, words) in words.iter_mut().enumerate() {
                    let line = (eight * EIGHT + place).checked_sub(self.before);
                    let line = line.and_then(|line| self.lines.get(line));
                    let line = line.map_or(&[][..], |line| &line[first..]);
                    *words = lanes(line).map(u32::from_le_bytes);
                }
                exchange(&mut words);
                self.put(eight, first * EIGHT, &words);
            }
        }
    }
}

impl Spread<'_> {
    /// Puts words of eight lines in their rows, of which those of the first lane follow `first`.
    #[inline(always)]
    fn put(&mut self, eight: usize, first: usize, words: &[[u32; LANES]; EIGHT]) {
        let (into, pitch) = (self.into.as_chunks_mut().0, self.pitch / 4);
        for (place, nibble) in self.nibbles.iter().enumerate() {
            let rows = (first + place..).step_by(EIGHT);
            for (word, row) in words[usize::from(*nibble)].iter().zip(rows) {
                let Some(row) = row
                    .checked_sub(self.skipped)
                    .filter(|row| *row < self.n_rows)
                else {
                    continue;
                };
                into[row * pitch + eight] = word.to_le_bytes();
            }
        }
    }
}

/// The first words of a line, and nothing behind its last.
#[inline(always)]
fn lanes(line: &[Word]) -> [Word; LANES] {
    // A copy of as many bytes as are known to the compiler is no call.
    line.first_chunk().copied().unwrap_or_else(|| {
        let mut words = [Word::default(); LANES];
        words[..line.len()].copy_from_slice(line);
        words
    })
}

/// Has nibble `n` of word `w` change places with nibble `w` of word `n`, in every lane.
#[inline(always)]
fn exchange(words: &mut [[u32; LANES]; EIGHT]) {
    const STEPS: [(usize, u32); 3] = [(1, 0x0f0f_0f0f), (2, 0x00ff_00ff), (4, 0x0000_ffff)];
    for (apart, mask) in STEPS {
        for place in (0..EIGHT).filter(|place| place & apart == 0) {
            let (low, high) = words.split_at_mut(place + apart);
            for (low, high) in low[place].iter_mut().zip(&mut high[0]) {
                let changed = (*low >> (4 * apart) ^ *high) & mask;
                *high ^= changed;
                *low ^= changed << (4 * apart);
            }
        }
    }
}
