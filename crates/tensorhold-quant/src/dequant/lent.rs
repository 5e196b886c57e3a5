//! The bytes of one part that a window needs, read as matrices.

use core::ops::Range;
use core::slice;
use std::vec;

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::transpose::transpose;
use crate::cast;
use crate::codec::{BitOrder, BlockedScales, E8m0};
use crate::scheme::{
    Axis, Change, Entries, INTERLEAVED, N_CODES, Need, Nested, Number, Numbers, Packed, Stored,
    Window, one_row,
};

/// The bytes of a part that a window needs, as they lie in memory.
#[derive(Debug, Clone, Copy)]
pub enum PartBytes<'a> {
    /// Those of [`Need::stretches`], one stretch behind the other.
    Joined(&'a [u8]),
    /// Those of [`Need::span`]: from the first that is needed to the last, with what lies between in the tensor.
    Spanned(&'a [u8]),
}

impl<'a> PartBytes<'a> {
    /// All of them.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            PartBytes::Joined(bytes) | PartBytes::Spanned(bytes) => bytes,
        }
    }
}

/// The bytes that [`Need`] names.
pub(super) struct Lent<'a> {
    stored: &'a Stored,
    bytes: &'a [u8],
    ranges: [Range<u64>; 3],
    /// From one line to the next, in bytes.
    line_pitch: usize,
    /// From one matrix to the next, in bytes.
    matrix_pitch: usize,
    /// Room for one run.
    packed: Vec<u8>,
    /// Room for codes in the order of the part.
    codes: Vec<u8>,
    numbers: Vec<f32>,
}

impl<'a> Lent<'a> {
    /// The part `stored`, of which there are `bytes`.
    ///
    /// # Errors
    /// `InvalidArgument` when they are more or fewer than `need` says.
    fn new(stored: &'a Stored, need: Need, part: PartBytes<'a>) -> Result<Lent<'a>> {
        let (bytes, wanted) = match part {
            PartBytes::Joined(bytes) => (bytes, need.size_bytes()?),
            PartBytes::Spanned(bytes) => (bytes, need.span()?.len()),
        };
        if wanted != bytes.len() as u64 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "the window needs {wanted} bytes of part `{}`, but there are {}",
                    need.part,
                    bytes.len()
                ),
            ));
        }
        let [_, lines, elements] = match part {
            PartBytes::Joined(_) => need.ranges.each_ref().map(|range| range.end - range.start),
            PartBytes::Spanned(_) => need.view,
        };
        let line_pitch = (elements * stored.width_bytes()) as usize;
        let (packed, codes, numbers) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Lent {
            stored,
            bytes,
            ranges: need.ranges,
            line_pitch,
            matrix_pitch: lines as usize * line_pitch,
            packed,
            codes,
            numbers,
        })
    }

    /// Writes the codes of the one matrix of `window` into `into`, row by row.
    pub(super) fn codes(&mut self, window: &Window, into: &mut [u8]) -> Result<()> {
        if self.stored.entries == Entries::Interleaved {
            return self.unpack_interleaved(window, into);
        }
        let Packed { order, along } = self.stored.packed()?;
        let (entries, across) = match along {
            Axis::Columns => (&window.columns, &window.rows),
            Axis::Rows => (&window.rows, &window.columns),
        };
        let runs = Runs {
            matrix: window.experts.start,
            order,
            entries: entries.clone(),
            across: across.clone(),
        };
        let is_words = order.element_bytes() == Some(self.stored.width_bytes());
        let goes_down = self.stored.lines != along && is_words;
        // Codes that go down come in rows that go across the runs, others in runs.
        let come_in_rows = goes_down == (along == Axis::Rows);
        let mut codes = core::mem::take(&mut self.codes);
        codes.resize(into.len(), 0);
        let found = if come_in_rows {
            &mut *into
        } else {
            &mut codes[..]
        };
        match goes_down {
            true => self.unpack_down(&runs, found)?,
            false => self.unpack_runs(&runs, along, found)?,
        }
        if !come_in_rows {
            transpose(&codes, (window.rows.end - window.rows.start) as usize, into);
        }
        self.codes = codes;
        Ok(())
    }

    /// These bytes of a line, counted from its first element on.
    pub(super) fn line(&self, matrix: u64, line: u64, bytes: Range<u64>) -> &'a [u8] {
        let first = self.ranges[2].start * self.stored.width_bytes();
        let line = &self.bytes[self.line_start(matrix, line)..];
        &line[(bytes.start - first) as usize..(bytes.end - first) as usize]
    }

    /// These elements of a line.
    pub(super) fn elements(&self, matrix: u64, line: u64, elements: Range<u64>) -> &'a [u8] {
        let width = self.stored.width_bytes();
        self.line(matrix, line, elements.start * width..elements.end * width)
    }

    /// What the bytes are.
    pub(super) fn stored(&self) -> &'a Stored {
        self.stored
    }

    /// The width of an element.
    pub(super) fn width_bytes(&self) -> usize {
        self.stored.width_bytes() as usize
    }

    /// Writes the codes into `into`, run by run.
    fn unpack_runs(&mut self, runs: &Runs, along: Axis, into: &mut [u8]) -> Result<()> {
        let Runs {
            matrix,
            order,
            entries,
            across,
        } = runs.clone();
        let n_entries = (entries.end - entries.start) as usize;
        let bytes = order.bytes_of(entries.clone())?;
        let bytes = bytes.start..bytes.end;
        if n_entries == 0 {
            return Ok(());
        }
        for (place, into) in across.zip(into.chunks_mut(n_entries)) {
            if self.stored.lines == along {
                let run = self.line(matrix, place, bytes.clone());
                order.unpack(run, entries.start, into)?;
            } else {
                self.gather(matrix, place, bytes.clone());
                order.unpack(&self.packed, entries.start, into)?;
            }
        }
        Ok(())
    }

    /// Writes the codes of rows that lie four in a line into `into`, row by row.
    fn unpack_interleaved(&mut self, window: &Window, into: &mut [u8]) -> Result<()> {
        let [n_rows, n_columns] = INTERLEAVED;
        let columns = window.columns.clone();
        if columns.is_empty() {
            return Ok(());
        }
        let (order, run) = (BitOrder::AWQ_FAST, n_columns as usize / 2);
        let unit = n_rows as usize * run;
        let first = self.ranges[2].start * self.stored.width_bytes() / n_rows;
        let bytes = order.bytes_of(columns.clone())?;
        let wanted = (bytes.start - first) as usize..(bytes.end - first) as usize;
        let width = (columns.end - columns.start) as usize;
        let n_bytes = (self.ranges[2].end - self.ranges[2].start) * self.stored.width_bytes();
        for (row, into) in window.rows.clone().zip(into.chunks_mut(width)) {
            let line = &self.bytes[self.line_start(window.experts.start, row / n_rows)..];
            let at = (row % n_rows) as usize * run;
            self.packed.clear();
            for unit in line[..n_bytes as usize].chunks(unit) {
                self.packed.extend_from_slice(&unit[at..][..run]);
            }
            order.unpack(&self.packed[wanted.clone()], columns.start, into)?;
        }
        Ok(())
    }

    /// Writes the codes of runs that go down the lines into `into`, line by line.
    fn unpack_down(&mut self, runs: &Runs, into: &mut [u8]) -> Result<()> {
        let Runs {
            matrix,
            order,
            entries,
            across,
        } = runs.clone();
        self.packed.clear();
        for line in order.rows_of(entries.clone())? {
            let words = self.elements(matrix, line, across.clone());
            self.packed.extend_from_slice(words);
        }
        let n_columns = (across.end - across.start) as usize;
        order.unpack_rows(&self.packed, n_columns, entries.start, into)
    }

    /// Fills `self.packed` with these bytes of the run at `place`, which goes down the lines.
    fn gather(&mut self, matrix: u64, place: u64, bytes: Range<u64>) {
        let width = self.stored.width_bytes();
        let at = ((place - self.ranges[2].start) * width) as usize;
        let lines = bytes.start / width..bytes.end.div_ceil(width);
        let skipped = (bytes.start - lines.start * width) as usize;
        self.packed.clear();
        for line in lines {
            let start = self.line_start(matrix, line) + at;
            let element = &self.bytes[start..][..width as usize];
            self.packed.extend_from_slice(element);
        }
        self.packed.drain(..skipped);
        self.packed.truncate((bytes.end - bytes.start) as usize);
    }

    /// Writes the numbers of the one matrix of `window` into `into`, row by row.
    pub(super) fn numbers(
        &mut self,
        number: Number,
        window: &Window,
        into: &mut [f32],
    ) -> Result<()> {
        let n_columns = (window.columns.end - window.columns.start) as usize;
        if n_columns == 0 {
            return Ok(());
        }
        let mut run = core::mem::take(&mut self.packed);
        if self.stored.lines == Axis::Columns {
            for (row, into) in window.rows.clone().zip(into.chunks_mut(n_columns)) {
                self.entries(window.experts.start, row, &window.columns, &mut run)?;
                decode(number, &run, into)?;
            }
        } else {
            let mut numbers = core::mem::take(&mut self.numbers);
            numbers.resize((window.rows.end - window.rows.start) as usize, 0.0);
            for (place, column) in window.columns.clone().enumerate() {
                self.entries(window.experts.start, column, &window.rows, &mut run)?;
                decode(number, &run, &mut numbers)?;
                let column = into[place..].iter_mut().step_by(n_columns);
                column
                    .zip(&numbers)
                    .for_each(|(into, number)| *into = *number);
            }
            self.numbers = numbers;
        }
        self.packed = run;
        Ok(())
    }

    /// Fills `into` with the bytes of these entries of a line.
    fn entries(
        &self,
        matrix: u64,
        line: u64,
        entries: &Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        into.clear();
        if self.stored.entries == Entries::Tiles {
            let [_, rows, columns] = &self.ranges;
            let n_rows = rows.end - rows.start;
            let places = BlockedScales::new(n_rows, columns.end)?;
            let tiles = &self.bytes[self.line_start(matrix, rows.start)..];
            let offsets = entries
                .clone()
                .map_while(|entry| places.offset(line - rows.start, entry));
            into.extend(offsets.map(|offset| tiles[offset as usize]));
            return Ok(());
        }
        into.extend_from_slice(self.elements(matrix, line, entries.clone()));
        Ok(())
    }

    /// All bytes that there are.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where a line begins in the bytes that there are.
    fn line_start(&self, matrix: u64, line: u64) -> usize {
        let [matrices, lines, _] = &self.ranges;
        let (matrix, line) = (matrix - matrices.start, line - lines.start);
        matrix as usize * self.matrix_pitch + line as usize * self.line_pitch
    }
}

/// Runs of codes of one matrix: of each the same codes.
#[derive(Clone)]
struct Runs {
    matrix: u64,
    order: BitOrder,
    entries: Range<u64>,
    across: Range<u64>,
}

/// Numbers of a recipe with their bytes.
pub(super) struct LentNumbers<'a> {
    lent: Lent<'a>,
    number: Number,
    change: &'a Change,
    nested: LentNested,
}

impl LentNumbers<'_> {
    /// Writes the numbers of the one matrix of `window` into `into`, row by row.
    pub(super) fn read(&mut self, window: &Window, into: &mut [f32]) -> Result<()> {
        self.lent.numbers(self.number, window, into)?;
        match self.change {
            Change::None => {}
            Change::Negated => into.iter_mut().for_each(|number| *number = -*number),
            Change::Inverted => into.iter_mut().for_each(|number| *number = 1.0 / *number),
            Change::Nested(nested) => {
                let n_columns = self.lent.stored.size[2];
                self.nested.look_up(nested, n_columns, window, into);
            }
        }
        Ok(())
    }
}

/// What codes of 8 bits stand for, and their scales from `first_block` on; nothing where numbers are no such codes.
#[derive(Default)]
struct LentNested {
    table: Vec<f32>,
    scales: Vec<f32>,
    first_block: u64,
}

impl LentNested {
    /// Puts the numbers of `window`, of rows of `n_columns`, in the place of their codes.
    fn look_up(&self, nested: &Nested, n_columns: u64, window: &Window, into: &mut [f32]) {
        let Window { rows, columns, .. } = window;
        let width = (columns.end - columns.start) as usize;
        for (row, into) in rows.clone().zip(into.chunks_mut(width.max(1))) {
            for (place, number) in (row * n_columns + columns.start..).zip(into) {
                let scale = self.scales[(place / nested.block_size - self.first_block) as usize];
                *number = self.table[*number as usize] * scale + nested.offset;
            }
        }
    }
}

/// The needs of a window with the bytes that are given for them, one after another.
pub(super) struct Lender<'a, 'b> {
    needs: vec::IntoIter<Need>,
    parts: slice::Iter<'b, PartBytes<'a>>,
}

impl<'a, 'b> Lender<'a, 'b> {
    /// # Errors
    /// `InvalidArgument` when there are more or fewer parts than needs.
    pub(super) fn new(needs: Vec<Need>, parts: &'b [PartBytes<'a>]) -> Result<Lender<'a, 'b>> {
        match needs.len() == parts.len() {
            true => Ok(Lender {
                needs: needs.into_iter(),
                parts: parts.iter(),
            }),
            false => Err(wrong_number(needs.len(), parts.len())),
        }
    }

    /// The next part, which is `stored`.
    pub(super) fn lend(&mut self, stored: &'a Stored) -> Result<Lent<'a>> {
        match (self.needs.next(), self.parts.next()) {
            (Some(need), Some(part)) => Lent::new(stored, need, *part),
            _ => Err(wrong_number(1, 0)),
        }
    }

    /// The next parts, which are `numbers`.
    pub(super) fn lend_numbers(&mut self, numbers: &'a Numbers) -> Result<LentNumbers<'a>> {
        let lent = self.lend(&numbers.stored)?;
        let nested = match &numbers.change {
            Change::Nested(nested) => self.lend_nested(nested)?,
            Change::None | Change::Negated | Change::Inverted => LentNested::default(),
        };
        Ok(LentNumbers {
            lent,
            number: numbers.number,
            change: &numbers.change,
            nested,
        })
    }

    /// The next two parts, which are `nested`.
    fn lend_nested(&mut self, nested: &'a Nested) -> Result<LentNested> {
        let number = Number::Float(Dtype::F32);
        let mut table = vec![0.0; N_CODES as usize];
        let mut lent = self.lend(&nested.table)?;
        lent.numbers(number, &one_row(0..N_CODES), &mut table)?;
        let mut lent = self.lend(&nested.scales)?;
        let blocks = lent.ranges[2].clone();
        let mut scales = vec![0.0; (blocks.end - blocks.start) as usize];
        lent.numbers(number, &one_row(blocks.clone()), &mut scales)?;
        Ok(LentNested {
            table,
            scales,
            first_block: blocks.start,
        })
    }
}

fn wrong_number(n_needs: usize, n_parts: usize) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the weight has {n_needs} parts, but there are {n_parts}"),
    )
}

fn decode(number: Number, bytes: &[u8], into: &mut [f32]) -> Result<()> {
    match number {
        Number::Power(power) => E8m0::decode(power, bytes, into),
        Number::Signed => bytes
            .iter()
            .zip(into)
            .for_each(|(byte, into)| *into = f32::from(*byte as i8)),
        Number::Unsigned => bytes
            .iter()
            .zip(into)
            .for_each(|(byte, into)| *into = f32::from(*byte)),
        Number::Float(dtype) => decode_floats(dtype, bytes, into)?,
    }
    Ok(())
}

fn decode_floats(dtype: Dtype, bytes: &[u8], into: &mut [f32]) -> Result<()> {
    const BLOCK: usize = 64;
    let width = dtype.width_bytes().unwrap_or(1) as usize;
    let mut singles = [0; BLOCK * 4];
    for (bytes, into) in bytes.chunks(BLOCK * width).zip(into.chunks_mut(BLOCK)) {
        let singles = &mut singles[..into.len() * 4];
        cast(dtype, bytes, Dtype::F32, singles)?;
        for (single, into) in singles.as_chunks().0.iter().zip(into) {
            *into = f32::from_le_bytes(*single);
        }
    }
    Ok(())
}
