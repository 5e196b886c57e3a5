//! What was written, read again: how far its weights are from those of the source.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};
use tensorhold_quant::dequantize;
use tensorhold_quant::scheme::{Need, Recipe, Window};

use super::stream::{Quantizer, Weight, as_numbers};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::read::allocate;

/// How far the weights of a tensor are from those that they were made of.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WeightError {
    /// The greatest difference.
    pub greatest: f64,
    /// The root of the mean square of the differences, over that of the weights; 0 where all are 0.
    pub relative: f64,
}

/// Sums of squares, and the greatest difference.
#[derive(Default)]
struct Sums {
    greatest: f64,
    differences: f64,
    weights: f64,
}

/// How far a weight is that `written` holds, as everyone finds it there.
pub(super) fn error_of(
    quantizer: &Quantizer,
    weight: &Weight<'_>,
    written: &Checkpoint,
) -> Result<WeightError> {
    let name = weight.tensor.info().name;
    let quantization = written.quantization()?;
    let found = quantization.find(name).ok_or_else(|| {
        let message = "what was written is not found to be a quantized weight";
        Error::new(ErrorKind::InvalidTensor, message)
    })?;
    let recipe = found.recipe()?;
    let parts = found
        .parts
        .iter()
        .map(|(part, name)| Ok((&**part, written.tensor(name)?)));
    let found = parts.collect::<Result<Vec<(&str, Tensor<'_>)>>>()?;
    let work = |window: &Window| {
        let ours = weights_of(recipe, window, &found)?;
        let theirs = weight.read_exactly(window)?;
        Ok(sums(&ours, &theirs))
    };
    let mut all = Sums::default();
    quantizer.in_order(&weight.windows(), &work, &mut |sums: Sums| {
        all.join(&sums);
        Ok(())
    })?;
    all.error()
}

impl Sums {
    fn join(&mut self, other: &Sums) {
        self.greatest = self.greatest.max(other.greatest);
        self.differences += other.differences;
        self.weights += other.weights;
    }

    /// Refuses weights that are NaN or infinite, since those of the source are not.
    fn error(self) -> Result<WeightError> {
        if !self.differences.is_finite() {
            let message =
                "a weight of what was written is NaN or infinite, and none of the source is";
            return Err(Error::new(ErrorKind::InvalidTensor, message));
        }
        let relative = (self.differences / self.weights).sqrt();
        Ok(WeightError {
            greatest: self.greatest,
            relative: if self.weights > 0.0 { relative } else { 0.0 },
        })
    }
}

fn sums(ours: &[f32], theirs: &[f32]) -> Sums {
    ours.iter()
        .zip(theirs)
        .fold(Sums::default(), |sums, (ours, theirs)| {
            let (theirs, difference) = (f64::from(*theirs), f64::from(*ours) - f64::from(*theirs));
            Sums {
                greatest: sums.greatest.max(difference.abs()),
                differences: sums.differences + difference * difference,
                weights: sums.weights + theirs * theirs,
            }
        })
}

fn weights_of(recipe: &Recipe, window: &Window, parts: &[(&str, Tensor<'_>)]) -> Result<Vec<f32>> {
    let needs = recipe.needs(window)?;
    let bytes = needs.iter().map(|need| {
        let part = parts.iter().find(|(suffix, _)| *suffix == need.part);
        let (_, tensor) = part.ok_or_else(|| missing(need.part))?;
        read_need(tensor, need)
    });
    let bytes = bytes.collect::<Result<Vec<Vec<u8>>>>()?;
    let parts: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let n_weights = [&window.rows, &window.columns].map(|range| range.end - range.start);
    let mut weights = allocate(n_weights[0] * n_weights[1] * 4)?;
    dequantize(recipe, window, &parts, Dtype::F32, &mut weights)?;
    as_numbers(Dtype::F32, &weights)
}

/// The bytes of the elements that are needed of a tensor, those side by side by one read.
pub(crate) fn read_need(tensor: &Tensor<'_>, need: &Need) -> Result<Vec<u8>> {
    let info = tensor.info();
    let start = tensor.file().header().data_start() + info.offsets.start;
    let mut bytes = allocate(need.size_bytes()?)?;
    let mut rest = &mut bytes[..];
    let mut stretches = need.stretches().peekable();
    while let Some(mut stretch) = stretches.next() {
        while let Some(next) = stretches.next_if(|next| next.start == stretch.end) {
            stretch.end = next.end;
        }
        let (into, after) = rest.split_at_mut(usize::try_from(stretch.len()).unwrap_or(usize::MAX));
        let read = tensor.file().source().read_at(start + stretch.start, into);
        read.map_err(|error| tensor.file().blame(&info, error))?;
        rest = after;
    }
    Ok(bytes)
}

fn missing(part: &str) -> Error {
    let message = format!("part `{part}` is needed, and is not there");
    Error::new(ErrorKind::TensorNotFound, message)
}
