//! The codes, zeros and scales of a weight, out of whatever order they lie in.

use std::collections::BTreeMap;
use std::ops::Range;

use tensorhold_core::{Bounds, Dtype, Error, ErrorKind, Result, Selection};
use tensorhold_quant::codec::{BlockedScales, FloatCode};
use tensorhold_quant::detect::QuantizedWeight;
use tensorhold_quant::scheme::{
    Axis, Change, Effect, Entries, Groups, Number, Recipe, Stored, Value, Window, Zeros,
};
use tensorhold_quant::{PartBytes, unpack};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::read::{allocate, read_selection};
use crate::rewrite::{range_index, read_at, read_need, size, turned};

/// Rows whose zeros are looked at together, which no word has others of.
const ROWS_OF_ZEROS: usize = 4096;
/// Rows of a tile of scales.
const TILE_ROWS: u64 = 128;

/// A quantized weight of two dimensions, and the tensors of its parts.
pub(super) struct Origin<'a> {
    pub name: &'a str,
    pub recipe: &'a Recipe,
    pub shape: [u64; 2],
    tensors: BTreeMap<&'a str, Tensor<'a>>,
    pub kind: Kind,
    /// The group of each input, where they do not follow one another.
    pub index: Option<Vec<u32>>,
}

/// What its codes are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Integers with scales of groups of inputs.
    Int {
        bits: u32,
        group_size: u64,
        /// Whether each group's zero is half of the range.
        symmetric: bool,
        scales: Dtype,
    },
    /// NVFP4 with its second scale.
    Nvfp4 { global: f32, effect: Effect },
}

impl<'a> Origin<'a> {
    /// Refuses a weight that is neither integers nor NVFP4, or not of two dimensions, and parts that would be lost.
    pub fn of(checkpoint: &'a Checkpoint, weight: &'a QuantizedWeight) -> Result<Origin<'a>> {
        let recipe = weight.recipe()?;
        let parts = weight.parts.iter();
        let tensors = parts.map(|(part, name)| Ok((&**part, checkpoint.tensor(name)?)));
        let mut origin = Origin {
            name: &weight.name,
            recipe,
            shape: [0, 0],
            tensors: tensors.collect::<Result<_>>()?,
            kind: Kind::Nvfp4 {
                global: 1.0,
                effect: Effect::Multiplies,
            },
            index: None,
        };
        let &[rows, columns] = &recipe.shape[..] else {
            return Err(refused(format!("a weight of {:?}", recipe.shape)));
        };
        if recipe.codes.size != [1, rows, columns] {
            return Err(refused("groups that go on from row to row".to_owned()));
        }
        origin.shape = [rows, columns];
        origin.index = origin.read_index()?;
        origin.kind = origin.find_kind(weight)?;
        Ok(origin)
    }

    fn find_kind(&self, weight: &QuantizedWeight) -> Result<Kind> {
        let kind = match self.recipe.value {
            Value::Unsigned => self.integers()?,
            Value::Float(FloatCode::E2m1) => self.nvfp4()?,
            _ => return Err(refused(format!("codes of `{}`", weight.scheme))),
        };
        match weight.parts.keys().find(|part| !self.is_known(part)) {
            Some(part) => Err(refused(format!("a part `{part}`"))),
            None => Ok(kind),
        }
    }

    /// The part that is called so.
    pub fn part(&self, part: &str) -> Option<&Tensor<'a>> {
        self.tensors.get(part)
    }

    /// The names of the tensors of its parts.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.tensors.values().map(|tensor| tensor.info().name)
    }

    pub fn bits(&self) -> u32 {
        match self.kind {
            Kind::Int { bits, .. } => bits,
            Kind::Nvfp4 { .. } => 4,
        }
    }

    pub fn n_weights(&self) -> u64 {
        self.shape[0].saturating_mul(self.shape[1])
    }

    /// Inputs of a group, all of them at most.
    pub fn group_size(&self) -> u64 {
        self.recipe.groups.columns.min(self.shape[1]).max(1)
    }

    pub fn is_symmetric(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Int {
                symmetric: false,
                ..
            }
        )
    }

    /// The scale of inputs, by what its part is called.
    pub fn input(&self) -> Option<&'static str> {
        ["input_scale", "input_global_scale"]
            .into_iter()
            .find(|part| self.part(part).is_some())
    }

    pub fn has_input(&self) -> bool {
        self.input().is_some()
    }

    /// Whether a part is kept by what is made of it.
    fn is_known(&self, part: &str) -> bool {
        let Recipe {
            codes,
            scales,
            global,
            zeros,
            group_index,
            ..
        } = self.recipe;
        let zeros = match zeros {
            Zeros::Packed { stored, .. } => Some(stored.part),
            _ => None,
        };
        let global = global.as_ref().map(|global| global.numbers.stored.part);
        let index = group_index.as_ref().map(|index| index.part);
        [
            Some(codes.part),
            Some(scales.stored.part),
            zeros,
            global,
            index,
        ]
        .contains(&Some(part))
            || matches!(
                part,
                "weight_shape"
                    | "comfy_quant"
                    | "input_scale"
                    | "input_global_scale"
                    | "g_idx"
                    | "weight_g_idx"
            )
    }

    fn integers(&self) -> Result<Kind> {
        let Recipe {
            groups,
            zeros,
            codes,
            ..
        } = self.recipe;
        let scales = self.scales_of_groups()?;
        let bits = match codes.entries {
            Entries::Packed(packed) => packed.order.width_bits(),
            _ => 8,
        };
        let middle = 1u8 << (bits - 1);
        let symmetric = match zeros {
            Zeros::Constant(zero) if *zero == f32::from(middle) => true,
            Zeros::Packed { .. } => self.has_zeros_of(middle)?,
            _ => return Err(refused("zeros that are no codes".to_owned())),
        };
        Ok(Kind::Int {
            bits,
            group_size: groups.columns.min(codes.size[2]),
            symmetric,
            scales,
        })
    }

    /// The type of scales that each output has its own of.
    fn scales_of_groups(&self) -> Result<Dtype> {
        let Recipe {
            scales,
            groups,
            global,
            codes,
            ..
        } = self.recipe;
        let (Number::Float(dtype @ (Dtype::F32 | Dtype::F16 | Dtype::BF16)), Change::None, None) =
            (scales.number, &scales.change, global)
        else {
            return Err(refused("scales that are no F32, F16 or BF16".to_owned()));
        };
        let stored = &scales.stored;
        match groups.rows == 1
            && stored.size[1] == codes.size[1]
            && stored.entries == Entries::Elements
        {
            true => Ok(dtype),
            false => Err(refused("scales that several outputs share".to_owned())),
        }
    }

    /// Whether the zero of every group is this.
    fn has_zeros_of(&self, middle: u8) -> Result<bool> {
        let [rows, columns] = self.shape;
        let groups = 0..columns.div_ceil(self.group_size());
        for start in (0..rows).step_by(ROWS_OF_ZEROS) {
            let some = start..(start + ROWS_OF_ZEROS as u64).min(rows);
            let zeros = self.zeros(&some, &groups)?;
            if zeros.iter().any(|zero| *zero != middle) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn nvfp4(&self) -> Result<Kind> {
        let Recipe {
            scales,
            groups,
            global,
            zeros,
            ..
        } = self.recipe;
        let is_fine = *groups
            == Groups {
                rows: 1,
                columns: 16,
            }
            && scales.number == Number::Float(Dtype::F8_E4M3)
            && scales.change == Change::None
            && *zeros == Zeros::None;
        let (true, Some(global)) = (is_fine, global) else {
            return Err(refused("floats of 4 bits that are no NVFP4".to_owned()));
        };
        let number = self.number(global.numbers.stored.part)?;
        Ok(Kind::Nvfp4 {
            global: number,
            effect: global.effect,
        })
    }

    /// The one F32 that a part is.
    pub fn number(&self, part: &str) -> Result<f32> {
        let tensor = self
            .part(part)
            .ok_or_else(|| refused(format!("no part `{part}`")))?;
        let info = tensor.info();
        if (info.dtype, info.size_bytes()) != (Dtype::F32, 4) {
            return Err(refused(format!("a part `{part}` that is not one F32")));
        }
        let bytes = tensor.read()?;
        Ok(f32::from_le_bytes(
            bytes.try_into().expect("4 bytes were read"),
        ))
    }

    /// The groups of all inputs, where they are stored and do not follow one another.
    fn read_index(&self) -> Result<Option<Vec<u32>>> {
        let Some(stored) = &self.recipe.group_index else {
            return Ok(None);
        };
        let tensor = self.tensor_of(stored)?;
        let bytes = tensor.read()?;
        let index: Vec<u32> = bytes
            .as_chunks()
            .0
            .iter()
            .copied()
            .map(u32::from_le_bytes)
            .collect();
        let n_groups = self.recipe.scales.stored.size[2];
        if index.iter().any(|group| u64::from(*group) >= n_groups) {
            let message = format!(
                "part `{}` names groups that there are not: there are {n_groups}",
                stored.part
            );
            return Err(Error::new(ErrorKind::InvalidTensor, message));
        }
        let size = self.recipe.groups.columns.max(1);
        let follows = (0u64..)
            .zip(&index)
            .all(|(column, group)| column / size == u64::from(*group));
        Ok((!follows).then_some(index))
    }

    /// The codes of a window, row by row.
    pub fn codes(&self, window: &Window) -> Result<Vec<u8>> {
        self.entries(&self.recipe.codes, window)
    }

    /// The codes of zeros of these rows and groups, row by row.
    pub fn zeros(&self, rows: &Range<u64>, groups: &Range<u64>) -> Result<Vec<u8>> {
        let window = Window {
            experts: 0..1,
            rows: rows.clone(),
            columns: groups.clone(),
        };
        match (&self.recipe.zeros, self.recipe.codes.entries) {
            (Zeros::Packed { stored, plus }, _) => {
                let mut zeros = self.entries(stored, &window)?;
                let bits = match stored.entries {
                    Entries::Packed(packed) => packed.order.width_bits(),
                    _ => 8,
                };
                let mask = 0xff >> (8 - bits);
                zeros
                    .iter_mut()
                    .for_each(|zero| *zero = zero.wrapping_add(*plus) & mask);
                Ok(zeros)
            }
            (Zeros::Constant(zero), _) => Ok(vec![*zero as u8; size(rows) * size(groups)]),
            _ => Err(refused("zeros that are no codes".to_owned())),
        }
    }

    /// The bytes of the scales of these rows and groups, row by row.
    pub fn scales(&self, rows: &Range<u64>, groups: &Range<u64>) -> Result<Vec<u8>> {
        let stored = &self.recipe.scales.stored;
        let tensor = self.tensor_of(stored)?;
        if stored.entries == Entries::Tiles {
            return tiled(tensor, stored, rows, groups);
        }
        let [_, n_rows, n_groups] = stored.size;
        if stored.lines == Axis::Columns {
            return elements(tensor, [n_rows, n_groups], [rows, groups]);
        }
        let bytes = elements(tensor, [n_groups, n_rows], [groups, rows])?;
        let (n_groups, n_rows) = (size(groups), size(rows));
        Ok(match tensor.info().dtype.width_bytes() {
            Some(4) => turned::<4>(&bytes, n_groups, n_rows),
            Some(2) => turned::<2>(&bytes, n_groups, n_rows),
            _ => turned::<1>(&bytes, n_groups, n_rows),
        })
    }

    fn tensor_of(&self, stored: &Stored) -> Result<&Tensor<'a>> {
        self.part(stored.part)
            .ok_or_else(|| refused(format!("no part `{}`", stored.part)))
    }

    fn entries(&self, stored: &Stored, window: &Window) -> Result<Vec<u8>> {
        let bytes = read_need(self.tensor_of(stored)?, &stored.need(window)?)?;
        let mut codes = allocate((size(&window.rows) * size(&window.columns)) as u64)?;
        unpack(stored, window, PartBytes::Joined(&bytes), &mut codes)?;
        Ok(codes)
    }
}

/// The bytes of a part of a tensor that is a matrix of this shape.
fn elements(tensor: &Tensor<'_>, shape: [u64; 2], part: [&Range<u64>; 2]) -> Result<Vec<u8>> {
    let index = part.map(range_index);
    let selection = Selection::resolve(tensor.info().dtype, &shape, &index, Bounds::Clamped)?;
    let mut bytes = allocate(selection.size_bytes())?;
    read_selection(tensor, &selection, &mut bytes)?;
    Ok(bytes)
}

/// Scales in tiles; rows begin where tiles do.
fn tiled(
    tensor: &Tensor<'_>,
    stored: &Stored,
    rows: &Range<u64>,
    groups: &Range<u64>,
) -> Result<Vec<u8>> {
    let [_, _, n_groups] = stored.size;
    let tiles = BlockedScales::new(rows.end - rows.start, n_groups)?;
    let before = BlockedScales::new(rows.start, n_groups)?.size_bytes();
    debug_assert!(rows.start.is_multiple_of(TILE_ROWS));
    let mut bytes = allocate(tiles.size_bytes())?;
    read_at(tensor, before, &mut bytes)?;
    let place = |row, group| {
        tiles
            .offset(row, group)
            .and_then(|at| usize::try_from(at).ok())
            .unwrap_or(0)
    };
    let rows = 0..rows.end - rows.start;
    Ok(rows
        .flat_map(|row| groups.clone().map(move |group| (row, group)))
        .map(|(row, group)| bytes[place(row, group)])
        .collect())
}

pub(super) fn refused(what: String) -> Error {
    let message = format!("{what} cannot be repacked without a change of weights");
    Error::new(ErrorKind::Unsupported, message)
}

/// What a second scale is where it does something else.
pub(super) fn turned_over(global: f32, from: Effect, to: Effect) -> f32 {
    if from == to { global } else { 1.0 / global }
}

/// Whether a number is the reciprocal of its reciprocal.
pub(super) fn returns(number: f32) -> bool {
    let back = 1.0 / (1.0 / number);
    back.to_bits() == number.to_bits()
}

/// Whether every first scale makes the same with a second one as with its reciprocal.
pub(super) fn has_same_products(global: f32, effect: Effect) -> bool {
    let other = 1.0 / global;
    returns(global)
        && FloatCode::E4m3
            .table()
            .iter()
            .filter(|scale| scale.is_finite())
            .all(|scale| {
                let (product, quotient) = match effect {
                    Effect::Multiplies => (scale * global, scale / other),
                    Effect::Divides => (scale * other, scale / global),
                };
                product.to_bits() == quotient.to_bits()
            })
}
