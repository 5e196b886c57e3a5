//! What was written, read again: how far its weights are from those of the source.

use tensorhold_core::{Error, ErrorKind, Result};
use tensorhold_quant::scheme::Window;

use super::stream::Weight;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::rewrite::{Makers, weights_of};

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
    makers: Makers,
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
        let part = |name: &str| found.iter().find(|(part, _)| *part == name);
        let ours = weights_of(recipe, window, |name| part(name).map(|(_, tensor)| tensor))?;
        let theirs = weight.read_exactly(window)?;
        Ok(sums(&ours, &theirs))
    };
    let mut all = Sums::default();
    makers.in_order(&weight.windows(), &work, &mut |sums: Sums| {
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
