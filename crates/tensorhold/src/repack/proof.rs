//! Weights of two layouts beside each other.

use tensorhold_core::{Error, ErrorKind, Result};
use tensorhold_quant::scheme::Window;

use super::source::Origin;
use crate::rewrite::{Makers, weights_of};

/// Where a scale is the nearest to a reciprocal, a product is off by two roundings.
const TWO_PLACES: f32 = 1.0 / (1 << 22) as f32;

/// Refuses two weights that are not the same, bit for bit or, where `may_round`, but for the last place.
pub(super) fn prove(
    makers: Makers,
    theirs: &Origin<'_>,
    ours: &Origin<'_>,
    windows: &[Window],
    may_round: bool,
) -> Result<()> {
    if theirs.shape != ours.shape {
        return Err(differs(theirs.name));
    }
    let near = |a: f32, b: f32| may_round && (a - b).abs() <= a.abs() * TWO_PLACES;
    let work = |window: &Window| {
        let (theirs, ours) = (weights(theirs, window)?, weights(ours, window)?);
        let same = |(a, b): (&f32, &f32)| {
            a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan() || near(*a, *b)
        };
        Ok(theirs.iter().zip(&ours).all(same))
    };
    makers.in_order(windows, &work, &mut |is_same| match is_same {
        true => Ok(()),
        false => Err(differs(theirs.name)),
    })
}

fn weights(origin: &Origin<'_>, window: &Window) -> Result<Vec<f32>> {
    weights_of(origin.recipe, window, |part| origin.part(part))
}

pub(super) fn differs(name: &str) -> Error {
    let message = "a weight of what was written is not that of the source";
    Error::new(ErrorKind::Io, message)
        .with_tensor(name)
        .with_hint(
            "a disk or memory is at fault, or the source was changed meanwhile; repack it again",
        )
}
