//! BF16 by tables, where many codes share a scale and the processor looks up many at a time.

mod magnitudes;
mod pairs;

use tensorhold_core::Dtype;

use crate::codec::{FloatCode, PairOrder};
use crate::scheme::{Recipe, Value};

pub(super) use magnitudes::Magnitudes;
pub(super) use pairs::Pairs;

/// Which tables serve the weights of a recipe.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lookup {
    /// Those of the magnitudes of floats of 8 bits.
    Magnitudes,
    /// Those of codes of 4 bits, two of which are in a byte.
    Pairs(PairOrder),
}

impl Lookup {
    /// What serves `recipe` where weights become elements of type `to`.
    pub(super) fn of(recipe: &Recipe, to: Dtype) -> Option<Lookup> {
        if to != Dtype::BF16 || recipe.is_flat() || recipe.group_index.is_some() {
            return None;
        }
        let is_signed = matches!(
            recipe.value,
            Value::Float(FloatCode::E4m3 | FloatCode::E5m2)
        );
        if is_signed && magnitudes::are_worth_it(recipe.groups.rows, recipe.groups.columns) {
            return Some(Lookup::Magnitudes);
        }
        let order = recipe.codes.pair_order()?;
        pairs::are_worth_it(recipe.groups.columns).then_some(Lookup::Pairs(order))
    }
}
