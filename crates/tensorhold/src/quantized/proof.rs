//! Looks into the parts of quantized weights for what their shapes do not show.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result};
use tensorhold_quant::cast;
use tensorhold_quant::detect::{Layout, QuantFinding, Quantization, QuantizedWeight, SchemeName};
use tensorhold_quant::scheme::{Change, Effect, Number, Numbers, Recipe, Sparse, Stored, Zeros};

use super::located::Located;
use super::read_range;
use super::signs::{Fault, Signs};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::pieces::Pieces;
use crate::verify::VerifyEvent;

/// What is right and wrong with the quantized weights of a checkpoint.
#[derive(Debug)]
pub struct Proof {
    /// The checkpoint.
    pub path: PathBuf,
    /// The number of weights in each scheme.
    pub schemes: BTreeMap<SchemeName, u64>,
    /// What is worth knowing and not wrong, each once.
    pub notes: Vec<ProofNote>,
    /// What is wrong, each with its weight or tensor.
    pub wrong: Vec<Error>,
}

/// Something about quantized weights that is worth knowing.
#[derive(Debug, Clone)]
pub struct ProofNote {
    /// What it is.
    pub finding: QuantFinding,
    /// The first weight that it is about; `None` where it is about the checkpoint.
    pub weight: Option<String>,
    /// The number of weights that it is about.
    pub n_weights: u64,
}

/// Proves the layout of all quantized weights; `None` where nothing is quantized.
pub(crate) fn prove(
    path: &Path,
    checkpoint: &Checkpoint,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Option<Proof> {
    let mut proof = Proof {
        path: path.to_owned(),
        schemes: BTreeMap::new(),
        notes: Vec::new(),
        wrong: Vec::new(),
    };
    match checkpoint.quantization() {
        Ok(quantization) if quantization.is_empty() => return None,
        Ok(quantization) => proof.add_all(checkpoint, &quantization, tell),
        Err(error) => proof.wrong.push(error),
    }
    Some(proof)
}

impl Proof {
    fn add_all(
        &mut self,
        checkpoint: &Checkpoint,
        quantization: &Quantization,
        tell: &mut dyn FnMut(VerifyEvent),
    ) {
        let mut places = HashMap::new();
        for finding in &quantization.findings {
            self.add_finding(&mut places, None, finding);
        }
        let mut pieces = Pieces::default();
        for weight in &quantization.weights {
            *self.schemes.entry(weight.scheme).or_default() += 1;
            for finding in &weight.findings {
                self.add_finding(&mut places, Some(weight), finding);
            }
            match look_into(checkpoint, weight, &mut pieces, tell) {
                Ok(findings) => findings
                    .iter()
                    .for_each(|finding| self.add_finding(&mut places, Some(weight), finding)),
                Err(error) => self.wrong.push(error),
            }
        }
    }

    fn add_finding(
        &mut self,
        places: &mut HashMap<QuantFinding, usize>,
        weight: Option<&QuantizedWeight>,
        finding: &QuantFinding,
    ) {
        let name = weight.map(|weight| weight.name.clone());
        if !finding.kind.is_wrong() {
            let place = *places.entry(finding.clone()).or_insert(self.notes.len());
            match self.notes.get_mut(place) {
                Some(note) => note.n_weights += 1,
                None => self.notes.push(ProofNote {
                    finding: finding.clone(),
                    n_weights: u64::from(name.is_some()),
                    weight: name,
                }),
            }
            return;
        }
        let error = Error::new(ErrorKind::InvalidTensor, finding.message.clone());
        self.wrong.push(match finding.tensor.clone().or(name) {
            Some(tensor) => error.with_tensor(tensor),
            None => error,
        });
    }
}

/// What is worth knowing of one weight.
///
/// # Errors
/// What is wrong with it.
fn look_into(
    checkpoint: &Checkpoint,
    weight: &QuantizedWeight,
    pieces: &mut Pieces,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Result<Vec<QuantFinding>> {
    let recipe = match &weight.layout {
        Layout::Known(recipe) => Some(recipe),
        Layout::Sparse(sparse) => {
            check_rows(checkpoint, weight, sparse, tell)?;
            sparse.recipe()
        }
        Layout::Broken(_) => Some(weight.recipe()?),
        Layout::Opaque(_) => None,
    };
    match recipe {
        Some(recipe) => check(checkpoint, weight, recipe, pieces, tell),
        None => Ok(Vec::new()),
    }
}

/// Looks at the numbers of one weight: scales must be finite, of the sign that they can have, and groups must be there. What is worth
/// knowing besides is returned.
fn check(
    checkpoint: &Checkpoint,
    weight: &QuantizedWeight,
    recipe: &Recipe,
    pieces: &mut Pieces,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Result<Vec<QuantFinding>> {
    let part = |stored: &Stored| match weight.parts.get(stored.part) {
        Some(name) => checkpoint.tensor(name),
        None => Err(Error::new(
            ErrorKind::TensorNotFound,
            format!("part `{}` is missing", stored.part),
        )),
    };
    let mut findings = Vec::new();
    for (numbers, effect) in numbers_of(recipe) {
        let mut signs = effect.and_then(|effect| Signs::of(weight.scheme, recipe, numbers, effect));
        scan(&part(&numbers.stored)?, pieces, tell, |piece| {
            look(numbers.number, piece, signs.as_mut())
        })?;
        findings.extend(signs.iter().flat_map(Signs::findings));
        if let Change::Nested(nested) = &numbers.change {
            for stored in [&nested.table, &nested.scales] {
                let number = Number::Float(stored.dtype);
                let look = |piece: &[u8]| look(number, piece, None);
                scan(&part(stored)?, pieces, tell, look)?;
            }
        }
    }
    if let Some(index) = &recipe.group_index {
        let n_groups = recipe.scales.stored.size[2];
        let tensor = part(index)?;
        scan(&tensor, pieces, tell, |piece| {
            Ok(not_a_group(n_groups, piece))
        })?;
    }
    Ok(findings)
}

/// So many bytes of bits or offsets are looked at together, or one row.
const ROWS_BYTES: u64 = 1 << 20;

/// Looks at the bits of each row of a weight without its zeros: they must be as many as the values that its offset says.
fn check_rows(
    checkpoint: &Checkpoint,
    weight: &QuantizedWeight,
    sparse: &Sparse,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Result<()> {
    // Parts of the right sizes.
    Located::find(checkpoint, weight)?;
    let mask = sparse.mask();
    let [n_rows, n_columns] = mask.shape();
    let together = (ROWS_BYTES / n_columns.div_ceil(8).max(8)).max(1);
    let part = |name: &str, range: ByteRange| match weight.parts.get(name) {
        Some(name) if range.start < range.end => read_range(&checkpoint.tensor(name)?, range),
        _ => Ok(Vec::new()),
    };
    // Rows of no columns have no bits.
    let ends = (0..n_rows).step_by(usize::try_from(together).unwrap_or(1));
    for start in ends.filter(|_| n_columns > 0) {
        let rows = start..(start + together).min(n_rows);
        let bits = part("bitmask", mask.mask_bytes(rows.clone())?)?;
        let offsets = part("row_offsets", mask.offset_bytes(rows.clone())?)?;
        let checked = mask.check_rows(rows, &bits, &offsets);
        checked.map_err(|error| error.with_tensor(&*weight.name))?;
        tell(VerifyEvent::Read((bits.len() + offsets.len()) as u64));
    }
    Ok(())
}

/// The scales, zeros and biases that are numbers; for scales, what they do.
fn numbers_of(recipe: &Recipe) -> impl Iterator<Item = (&Numbers, Option<Effect>)> {
    let zeros = match &recipe.zeros {
        Zeros::Numbers(zeros) | Zeros::Bias(zeros) => Some((zeros, None)),
        _ => None,
    };
    let global = recipe.global.as_ref();
    let global = global.map(|global| (&global.numbers, Some(global.effect)));
    let scales = (&recipe.scales, Some(Effect::Multiplies));
    [Some(scales), global, zeros].into_iter().flatten()
}

/// Shows all pieces of a tensor to `look`, up to the first fault.
fn scan(
    tensor: &Tensor<'_>,
    pieces: &mut Pieces,
    tell: &mut dyn FnMut(VerifyEvent),
    mut look: impl FnMut(&[u8]) -> Result<Fault>,
) -> Result<()> {
    let info = tensor.info();
    let width = u64::from(info.dtype.width_bytes().unwrap_or(1));
    let mut offset = 0;
    while offset < info.size_bytes() {
        let piece = pieces.read(tensor, offset)?;
        if let Some((place, what)) = look(piece)? {
            let element = offset / width + place as u64;
            let start = tensor.file().header().data_start() + info.offsets.start + element * width;
            let error = Error::new(
                ErrorKind::InvalidTensor,
                format!("element {element} {what}"),
            );
            let error = error.with_bytes(ByteRange::new(start, start + width));
            return Err(tensor.file().blame(&info, error));
        }
        offset += piece.len() as u64;
        tell(VerifyEvent::Read(piece.len() as u64));
    }
    Ok(())
}

/// The first number that is not finite, or, of scales, has a sign that none can have.
fn look(number: Number, piece: &[u8], signs: Option<&mut Signs>) -> Result<Fault> {
    let what = |value: f32| format!("of these numbers is {value}: scales must be finite");
    match number {
        Number::Power(_) => {
            let place = piece.iter().position(|byte| *byte == 0xff);
            Ok(place.map(|place| (place, what(f32::NAN))))
        }
        Number::Float(dtype) => {
            let values = floats(dtype, piece)?;
            let place = values.iter().position(|value| !value.is_finite());
            let fault = place.map(|place| (place, what(values[place])));
            Ok(fault.or_else(|| signs?.look(&values)))
        }
        Number::Signed | Number::Unsigned => Ok(None),
    }
}

fn floats(dtype: Dtype, piece: &[u8]) -> Result<Vec<f32>> {
    let width = dtype.width_bytes().unwrap_or(1) as usize;
    let mut values = vec![0; piece.len() / width * 4];
    cast(dtype, piece, Dtype::F32, &mut values)?;
    let values = values.as_chunks().0.iter();
    Ok(values.map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn not_a_group(n_groups: u64, piece: &[u8]) -> Fault {
    let groups = piece
        .as_chunks()
        .0
        .iter()
        .map(|bytes| i32::from_le_bytes(*bytes));
    let is_there = |group: i32| u64::try_from(group).is_ok_and(|group| group < n_groups);
    let fault = groups.enumerate().find(|(_, group)| !is_there(*group));
    fault.map(|(place, group)| {
        (
            place,
            format!("is group {group}, but there are {n_groups} groups"),
        )
    })
}
