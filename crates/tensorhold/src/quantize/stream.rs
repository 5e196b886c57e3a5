//! The bytes of the parts of a weight, computed window by window while they are written.
//!
//! ```text
//! where one scale is of the whole weight: read it once for its extremes
//! for each window of rows (of columns for GPTQ, whose words go down them), some of them at once:
//!     read its weights, find its scales, make its codes, pack them in the order of the part
//! ```
//!
//! A part is computed each time that it is asked for, so that nothing of a weight has to be kept.

use std::collections::HashMap;
use std::num::NonZero;
use std::ops::Range;

use tensorhold_core::{Bounds, Dtype, Error, ErrorKind, Index, Result, Selection};
use tensorhold_io::check_interrupt;
use tensorhold_quant::cast;
use tensorhold_quant::codec::BitOrder;
use tensorhold_quant::encode::{Coding, Extremes, Scale, power_code};
use tensorhold_quant::scheme::{Groups, Window};

use super::scheme::{IntLayout, Part, PartSpec, QuantizeScheme};
use crate::checkpoint::Tensor;
use crate::read::{allocate, read_selection};

/// So many weights are computed at once by a thread: 1 MiB as F32, which the allocator keeps for the next window.
const WINDOW: u64 = 1 << 18;
/// So many where a window is of columns, since few bytes of each row are read for it.
const WINDOW_OF_COLUMNS: u64 = 1 << 21;
/// Weights that go through a cast at once.
const BLOCK: usize = 1024;
/// A file's bytes are copied in pieces that stay in the cache.
const PIECE_BYTES: u64 = 1 << 20;
/// More threads than this wait for memory.
const MAX_THREADS: usize = 8;

/// All of a row.
const ROW: Groups = Groups {
    rows: 1,
    columns: u64::MAX,
};

pub(crate) type Put<'p> = dyn FnMut(&[u8]) -> Result<()> + 'p;

/// A weight to quantize.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    pub tensor: Tensor<'a>,
    pub shape: [u64; 2],
    pub scheme: QuantizeScheme,
    pub coding: Coding,
    /// The type that is computed in.
    pub scales: Dtype,
}

/// Weights of a window, as scales and codes.
struct Computed {
    n_rows: usize,
    n_columns: usize,
    /// Rows of scales, for the groups of each row.
    scales: Vec<Scale>,
    codes: Vec<u8>,
}

/// Computes the parts of weights.
pub(crate) struct Quantizer {
    n_threads: usize,
    /// The extremes of whole weights, by their names.
    extremes: HashMap<String, Extremes>,
}

impl Weight<'_> {
    fn groups(&self) -> Groups {
        self.scheme.groups(self.shape[1])
    }

    /// Whether a window needs to know the extremes of the whole weight.
    fn needs_extremes(&self) -> bool {
        matches!(
            self.scheme,
            QuantizeScheme::Fp8Tensor | QuantizeScheme::Nvfp4
        )
    }

    /// The weight cut so that no group and no word is.
    pub(super) fn windows(&self) -> Vec<Window> {
        let [rows, columns] = self.shape;
        let Groups {
            rows: high,
            columns: wide,
        } = self.groups();
        let along_columns = self.scheme.is_gptq();
        let (length, across, group) = match along_columns {
            true if wide >= columns => (columns, rows, 1),
            true => (columns, rows, wide),
            false if matches!(self.scheme, QuantizeScheme::Fp8Tensor) => (rows, columns, 1),
            false => (rows, columns, high),
        };
        // No order of codes has longer words.
        let unit = least_common_multiple(group, 32);
        let window = if along_columns {
            WINDOW_OF_COLUMNS
        } else {
            WINDOW
        };
        let size = (window / across.max(1) / unit).max(1).saturating_mul(unit);
        let cut = |start: u64| {
            let range = start..start.saturating_add(size).min(length);
            let (rows, columns) = match along_columns {
                true => (0..rows, range),
                false => (range, 0..columns),
            };
            Window {
                experts: 0..1,
                rows,
                columns,
            }
        };
        (0..length)
            .step_by(usize::try_from(size).unwrap_or(usize::MAX))
            .map(cut)
            .collect()
    }

    /// The weights of a window, rounded to the type that is computed in.
    pub(super) fn read(&self, window: &Window) -> Result<Vec<f32>> {
        let info = self.tensor.info();
        let index = [&window.rows, &window.columns].map(range_index);
        let selection = Selection::resolve(info.dtype, info.shape, &index, Bounds::Clamped)?;
        let mut bytes = allocate(selection.size_bytes())?;
        read_selection(&self.tensor, &selection, &mut bytes)?;
        if self.scales != info.dtype && self.scales != Dtype::F32 {
            bytes = cast_all(info.dtype, &bytes, self.scales)?;
            return as_numbers(self.scales, &bytes);
        }
        as_numbers(info.dtype, &bytes)
    }

    /// The weights of a window, as they are.
    pub(super) fn read_exactly(&self, window: &Window) -> Result<Vec<f32>> {
        let as_they_are = Weight {
            scales: Dtype::F32,
            ..*self
        };
        as_they_are.read(window)
    }

    fn compute(&self, window: &Window, whole: Extremes, part: Part) -> Result<Computed> {
        let weights = self.read(window)?;
        let (coding, groups) = (self.coding, self.groups());
        let n_columns = size(&window.columns);
        let n_rows = size(&window.rows);
        let global = coding.global(whole);
        let scales = match self.scheme {
            QuantizeScheme::Fp8Tensor => vec![coding.scale(whole, global)?],
            _ => self.scales_of(&weights, window, global)?,
        };
        let mut codes = Vec::new();
        if part == Part::Codes {
            codes = vec![0; weights.len()];
            coding.encode(&weights, n_columns, groups, &scales, global, &mut codes)?;
        }
        Ok(Computed {
            n_rows,
            n_columns,
            scales,
            codes,
        })
    }

    fn scales_of(&self, weights: &[f32], window: &Window, global: f32) -> Result<Vec<Scale>> {
        let groups = self.groups();
        let (n_rows, n_columns) = (size(&window.rows), size(&window.columns));
        let high = n_rows.div_ceil(usize::try_from(groups.rows).unwrap_or(usize::MAX));
        let wide = n_columns.div_ceil(usize::try_from(groups.columns).unwrap_or(usize::MAX));
        let mut extremes = vec![Extremes::default(); high * wide];
        self.coding
            .observe(weights, n_columns, groups, &mut extremes)
            .map_err(|error| self.placed(error, window))?;
        extremes
            .iter()
            .map(|extremes| self.coding.scale(*extremes, global))
            .collect()
    }

    /// An error of a window, with the window's place.
    fn placed(&self, error: Error, window: &Window) -> Error {
        match (window.rows.start, window.columns.start) {
            (0, 0) => error,
            (row, column) => error.with_hint(format!("counted from row {row}, column {column}")),
        }
    }
}

impl Quantizer {
    pub(crate) fn new(n_threads: Option<usize>) -> Quantizer {
        let there = std::thread::available_parallelism().map_or(1, NonZero::get);
        Quantizer {
            n_threads: n_threads.unwrap_or(there).clamp(1, MAX_THREADS),
            extremes: HashMap::new(),
        }
    }

    /// Hands the bytes of a tensor to `put`.
    pub(crate) fn copy(&self, tensor: &Tensor<'_>, put: &mut Put<'_>) -> Result<()> {
        let info = tensor.info();
        let start = tensor.file().header().data_start() + info.offsets.start;
        let mut piece = allocate(info.size_bytes().min(PIECE_BYTES))?;
        let mut done = 0;
        while done < info.size_bytes() {
            check_interrupt()?;
            let now = (info.size_bytes() - done).min(PIECE_BYTES);
            let piece = &mut piece[..usize::try_from(now).unwrap_or(0)];
            let read = tensor.file().source().read_at(start + done, piece);
            read.map_err(|error| tensor.file().blame(&info, error))?;
            put(piece)?;
            done += now;
        }
        Ok(())
    }

    /// Hands the bytes of a part of a weight to `put`.
    pub(super) fn part(
        &mut self,
        weight: &Weight<'_>,
        spec: &PartSpec,
        put: &mut Put<'_>,
    ) -> Result<()> {
        let info = weight.tensor.info();
        self.part_of(weight, spec, put)
            .map_err(|error| weight.tensor.file().blame(&info, error))
    }

    fn part_of(&mut self, weight: &Weight<'_>, spec: &PartSpec, put: &mut Put<'_>) -> Result<()> {
        let [rows, columns] = weight.shape;
        match spec.part {
            Part::Shape => return put([rows, columns].map(u64::to_le_bytes).as_flattened()),
            Part::Index => return group_index(columns, weight.groups().columns, put),
            _ => {}
        }
        let whole = match weight.needs_extremes() {
            true => self.extremes(weight)?,
            false => Extremes::default(),
        };
        match spec.part {
            Part::Global => return put(&weight.coding.global(whole).to_le_bytes()),
            Part::Scales if matches!(weight.scheme, QuantizeScheme::Fp8Tensor) => {
                let scale = weight.coding.scale(whole, 1.0)?;
                return put(&stored_scales(weight, spec, &[scale])?);
            }
            _ => {}
        }
        if weight.scheme.is_gptq() && weight.groups().columns >= columns {
            return self.one_group(weight, spec, put);
        }
        let work = |window: &Window| {
            let computed = weight.compute(window, whole, spec.part)?;
            packed(weight, spec, computed)
        };
        self.in_order(&weight.windows(), &work, &mut |bytes: Vec<u8>| put(&bytes))
    }

    /// The least and the greatest of a whole weight.
    fn extremes(&mut self, weight: &Weight<'_>) -> Result<Extremes> {
        let name = weight.tensor.info().name;
        if let Some(extremes) = self.extremes.get(name) {
            return Ok(*extremes);
        }
        let all = Groups {
            rows: u64::MAX,
            columns: u64::MAX,
        };
        let work = |window: &Window| {
            let mut extremes = [Extremes::default()];
            let weights = weight.read(window)?;
            let seen = weight
                .coding
                .observe(&weights, size(&window.columns), all, &mut extremes);
            seen.map_err(|error| weight.placed(error, window))?;
            Ok(extremes[0])
        };
        let mut whole = Extremes::default();
        self.in_order(&weight.windows(), &work, &mut |seen| {
            whole = whole.joined(seen);
            Ok(())
        })?;
        self.extremes.insert(name.to_owned(), whole);
        Ok(whole)
    }

    /// A part of GPTQ where a row has one scale.
    fn one_group(&mut self, weight: &Weight<'_>, spec: &PartSpec, put: &mut Put<'_>) -> Result<()> {
        let windows = weight.windows();
        let scales = self.scales_of_rows(weight, &windows)?;
        let with_codes = |n_columns: usize, codes: Vec<u8>| Computed {
            n_rows: scales.len(),
            n_columns,
            scales: scales.clone(),
            codes,
        };
        if spec.part != Part::Codes {
            return put(&packed(weight, spec, with_codes(0, Vec::new()))?);
        }
        let work = |window: &Window| {
            let weights = weight.read(window)?;
            let n_columns = size(&window.columns);
            let mut codes = vec![0; weights.len()];
            weight
                .coding
                .encode(&weights, n_columns, ROW, &scales, 1.0, &mut codes)?;
            packed(weight, spec, with_codes(n_columns, codes))
        };
        self.in_order(&windows, &work, &mut |bytes: Vec<u8>| put(&bytes))
    }

    /// The scales of all rows, of windows of columns joined.
    fn scales_of_rows(&self, weight: &Weight<'_>, windows: &[Window]) -> Result<Vec<Scale>> {
        let n_rows = size(&(0..weight.shape[0]));
        let mut extremes = vec![Extremes::default(); n_rows];
        let work = |window: &Window| {
            let mut seen = vec![Extremes::default(); n_rows];
            let weights = weight.read(window)?;
            let observed = weight
                .coding
                .observe(&weights, size(&window.columns), ROW, &mut seen);
            observed.map_err(|error| weight.placed(error, window))?;
            Ok(seen)
        };
        self.in_order(windows, &work, &mut |seen: Vec<Extremes>| {
            for (extremes, seen) in extremes.iter_mut().zip(seen) {
                *extremes = extremes.joined(seen);
            }
            Ok(())
        })?;
        let scales = extremes
            .iter()
            .map(|extremes| weight.coding.scale(*extremes, 1.0));
        scales.collect()
    }

    /// Does `work` for each window, some at once, and hands what comes of it to `put` in their order.
    pub(crate) fn in_order<T: Send>(
        &self,
        windows: &[Window],
        work: &(dyn Fn(&Window) -> Result<T> + Sync),
        put: &mut dyn FnMut(T) -> Result<()>,
    ) -> Result<()> {
        for batch in windows.chunks(self.n_threads) {
            check_interrupt()?;
            let done: Vec<Result<T>> = match batch {
                [one] => vec![work(one)],
                _ => std::thread::scope(|scope| {
                    let threads: Vec<_> = batch
                        .iter()
                        .map(|window| scope.spawn(move || work(window)))
                        .collect();
                    threads
                        .into_iter()
                        .map(|thread| thread.join().unwrap_or_else(|_| Err(died())))
                        .collect()
                }),
            };
            for one in done {
                put(one?)?;
            }
        }
        Ok(())
    }
}

fn died() -> Error {
    Error::new(ErrorKind::Io, "a thread that quantized ended early")
}

/// The bytes of a part for a window.
fn packed(weight: &Weight<'_>, spec: &PartSpec, computed: Computed) -> Result<Vec<u8>> {
    let Computed {
        n_rows,
        n_columns,
        scales,
        codes,
    } = computed;
    let is_gptq = weight.scheme.is_gptq();
    let n_groups = scales.len() / n_rows.max(1);
    match (spec.part, weight.scheme) {
        (Part::Scales, _) if is_gptq => {
            stored_scales(weight, spec, &transposed(&scales, n_rows, n_groups))
        }
        (Part::Scales, _) => stored_scales(weight, spec, &scales),
        (Part::Zeros, QuantizeScheme::Int { bits, .. }) => {
            let zeros: Vec<u8> = scales.iter().map(|scale| scale.zero).collect();
            match is_gptq {
                true => lines(
                    BitOrder::lsb_words(bits)?,
                    &transposed(&zeros, n_rows, n_groups),
                    n_rows,
                ),
                false => columns(BitOrder::lsb_words(bits)?, &zeros, n_groups),
            }
        }
        (_, QuantizeScheme::Int { bits, layout, .. }) => match layout {
            IntLayout::Packed => lines(BitOrder::lsb_words(bits)?, &codes, n_columns),
            IntLayout::Bytes => Ok(codes.iter().map(|code| code ^ 0x80).collect()),
            IntLayout::Gptq => columns(
                BitOrder::lsb_words(bits)?,
                &transposed(&codes, n_rows, n_columns),
                n_rows,
            ),
        },
        (_, QuantizeScheme::Mxfp4 | QuantizeScheme::Nvfp4) => {
            lines(BitOrder::lsb(4)?, &codes, n_columns)
        }
        _ => Ok(codes),
    }
}

/// Codes in rows, each row packed by itself.
pub(crate) fn lines(order: BitOrder, codes: &[u8], n_columns: usize) -> Result<Vec<u8>> {
    let row_bytes = order.size_bytes(n_columns as u64)?;
    let row_bytes = usize::try_from(row_bytes).unwrap_or(usize::MAX);
    let n_rows = codes.len().checked_div(n_columns).unwrap_or(0);
    let mut bytes = vec![0; n_rows * row_bytes];
    let rows = codes.chunks_exact(n_columns.max(1));
    for (codes, into) in rows.zip(bytes.chunks_exact_mut(row_bytes.max(1))) {
        order.pack(codes, into)?;
    }
    Ok(bytes)
}

/// Codes in rows, packed down the columns.
pub(crate) fn columns(order: BitOrder, codes: &[u8], n_columns: usize) -> Result<Vec<u8>> {
    let n_rows = codes.len().checked_div(n_columns).unwrap_or(0) as u64;
    let n_words = order.rows_of(0..n_rows)?;
    let mut bytes = vec![0; size(&n_words) * n_columns * 4];
    order.pack_rows(codes, n_columns, &mut bytes)?;
    Ok(bytes)
}

/// A matrix turned round.
pub(crate) fn transposed<T: Copy>(matrix: &[T], n_rows: usize, n_columns: usize) -> Vec<T> {
    const TILE: usize = 64;
    let mut turned = matrix.to_vec();
    for row in (0..n_rows).step_by(TILE) {
        for column in (0..n_columns).step_by(TILE) {
            for column in column..(column + TILE).min(n_columns) {
                for row in row..(row + TILE).min(n_rows) {
                    turned[column * n_rows + row] = matrix[row * n_columns + column];
                }
            }
        }
    }
    turned
}

fn stored_scales(weight: &Weight<'_>, spec: &PartSpec, scales: &[Scale]) -> Result<Vec<u8>> {
    if matches!(weight.scheme, QuantizeScheme::Mxfp4 | QuantizeScheme::Mxfp8) {
        return Ok(scales.iter().map(|scale| power_code(scale.value)).collect());
    }
    let bytes: Vec<u8> = scales
        .iter()
        .flat_map(|scale| scale.value.to_le_bytes())
        .collect();
    cast_all(Dtype::F32, &bytes, spec.dtype)
}

pub(crate) fn group_index(columns: u64, group: u64, put: &mut Put<'_>) -> Result<()> {
    let groups = (0..columns).map(|column| (column / group) as u32);
    let bytes: Vec<u8> = groups.flat_map(u32::to_le_bytes).collect();
    put(&bytes)
}

fn cast_all(from: Dtype, bytes: &[u8], to: Dtype) -> Result<Vec<u8>> {
    let width = |dtype: Dtype| u64::from(dtype.width_bytes().unwrap_or(1));
    let mut into = allocate(bytes.len() as u64 / width(from) * width(to))?;
    cast(from, bytes, to, &mut into)?;
    Ok(into)
}

pub(crate) fn as_numbers(from: Dtype, bytes: &[u8]) -> Result<Vec<f32>> {
    let width = from.width_bytes().unwrap_or(1) as usize;
    let mut singles = [0; 4 * BLOCK];
    let mut numbers = Vec::with_capacity(bytes.len() / width);
    for bytes in bytes.chunks(width * BLOCK) {
        let singles = &mut singles[..bytes.len() / width * 4];
        cast(from, bytes, Dtype::F32, singles)?;
        let block = singles.as_chunks().0.iter();
        numbers.extend(block.copied().map(f32::from_le_bytes));
    }
    Ok(numbers)
}

/// The size of a range in memory.
pub(crate) fn size(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

pub(crate) fn range_index(range: &Range<u64>) -> Index {
    let at = |position: u64| i64::try_from(position).ok();
    Index::Range {
        start: at(range.start),
        stop: at(range.end),
        step: None,
    }
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor.max(1)).saturating_mul(b)
}
