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

use tensorhold_core::{Bounds, Dtype, Error, Result, Selection};
use tensorhold_quant::cast;
use tensorhold_quant::codec::BitOrder;
use tensorhold_quant::encode::{Coding, Extremes, Scale, power_code};
use tensorhold_quant::scheme::{Groups, Window};

use super::scheme::{IntLayout, QuantizeScheme};
use crate::checkpoint::Tensor;
use crate::read::{allocate, read_selection};
use crate::rewrite::{
    Makers, Part, PartSpec, Put, as_numbers, columns, cut, group_index, lines, range_index, size,
    transposed,
};

/// So many weights are computed at once by a thread: 1 MiB as F32, which the allocator keeps for the next window.
const WINDOW: u64 = 1 << 18;
/// So many where a window is of columns, since few bytes of each row are read for it.
const WINDOW_OF_COLUMNS: u64 = 1 << 21;

/// All of a row.
const ROW: Groups = Groups {
    rows: 1,
    columns: u64::MAX,
};

/// A weight to quantize.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    pub tensor: Tensor<'a>,
    /// Of so many experts, each a matrix.
    pub n_experts: u64,
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
pub(super) struct Quantizer {
    makers: Makers,
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
        let group = match along_columns {
            true if wide >= columns => 1,
            true => wide,
            false if matches!(self.scheme, QuantizeScheme::Fp8Tensor) => 1,
            false => high,
        };
        let n_weights = match along_columns {
            true => WINDOW_OF_COLUMNS,
            false => WINDOW,
        };
        // No order of codes has longer words.
        let unit = least_common_multiple(group, 32);
        let windows = cut([rows, columns], along_columns, n_weights, unit);
        let of_expert = |expert: u64| {
            windows.iter().map(move |window| Window {
                experts: expert..expert + 1,
                ..window.clone()
            })
        };
        (0..self.n_experts).flat_map(of_expert).collect()
    }

    /// The weights of a window, rounded to the type that is computed in.
    pub(super) fn read(&self, window: &Window) -> Result<Vec<f32>> {
        let info = self.tensor.info();
        // Experts follow one another.
        let [rows, columns] = self.shape;
        let before = window.experts.start * rows;
        let rows_there = before + window.rows.start..before + window.rows.end;
        let index = [&rows_there, &window.columns].map(range_index);
        let shape = [self.n_experts * rows, columns];
        let selection = Selection::resolve(info.dtype, &shape, &index, Bounds::Clamped)?;
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
    pub(super) fn new(n_threads: Option<usize>) -> Quantizer {
        Quantizer {
            makers: Makers::new(n_threads),
            extremes: HashMap::new(),
        }
    }

    pub(super) fn makers(&self) -> Makers {
        self.makers
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
        self.makers
            .in_order(&weight.windows(), &work, &mut |bytes: Vec<u8>| put(&bytes))
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
        self.makers
            .in_order(&weight.windows(), &work, &mut |seen| {
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
        self.makers
            .in_order(&windows, &work, &mut |bytes: Vec<u8>| put(&bytes))
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
        self.makers
            .in_order(windows, &work, &mut |seen: Vec<Extremes>| {
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
}

/// The bytes of a part for a window.
fn packed(weight: &Weight<'_>, spec: &PartSpec, computed: Computed) -> Result<Vec<u8>> {
    let (n_rows, n_columns) = (computed.n_rows, computed.n_columns);
    let (scales, codes) = (computed.scales, computed.codes);
    let is_gptq = weight.scheme.is_gptq();
    let n_groups = scales.len() / n_rows.max(1);
    match (spec.part, weight.scheme) {
        (Part::Scales, _) if is_gptq => {
            stored_scales(weight, spec, &transposed(&scales, n_rows, n_groups))
        }
        (Part::Scales, _) => stored_scales(weight, spec, &scales),
        (part, QuantizeScheme::Int { bits, layout, .. }) => {
            let order = BitOrder::lsb_words(bits)?;
            let zeros = || scales.iter().map(|scale| scale.zero).collect::<Vec<u8>>();
            match (part, layout) {
                (Part::Zeros, IntLayout::Gptq) => {
                    lines(order, &transposed(&zeros(), n_rows, n_groups), n_rows)
                }
                (Part::Zeros, _) => columns(order, &zeros(), n_groups),
                (_, IntLayout::Packed) => lines(order, &codes, n_columns),
                (_, IntLayout::Bytes) => Ok(codes.iter().map(|code| code ^ 0x80).collect()),
                (_, IntLayout::Gptq) => {
                    columns(order, &transposed(&codes, n_rows, n_columns), n_rows)
                }
            }
        }
        (_, QuantizeScheme::Mxfp4 | QuantizeScheme::Nvfp4) => {
            lines(BitOrder::lsb(4)?, &codes, n_columns)
        }
        _ => Ok(codes),
    }
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

fn cast_all(from: Dtype, bytes: &[u8], to: Dtype) -> Result<Vec<u8>> {
    let width = |dtype: Dtype| u64::from(dtype.width_bytes().unwrap_or(1));
    let mut into = allocate(bytes.len() as u64 / width(from) * width(to))?;
    cast(from, bytes, to, &mut into)?;
    Ok(into)
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor.max(1)).saturating_mul(b)
}
