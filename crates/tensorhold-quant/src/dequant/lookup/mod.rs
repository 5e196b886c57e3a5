//! BF16 and F16 by tables, where many codes share a scale and the processor looks up many at a time.

mod magnitudes;
mod pairs;

use tensorhold_core::Dtype;

use crate::codec::{FloatCode, PairOrder};
use crate::scheme::{Recipe, Value};

pub(super) use magnitudes::Magnitudes;
pub(super) use pairs::Pairs;

/// The weights of a table of [`Lookup::Pairs`].
pub(super) const N_WEIGHTS: u64 = 16;

/// Which tables serve the weights of a recipe.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lookup {
    /// Those of the magnitudes of floats of 8 bits.
    Magnitudes,
    /// Those of codes of 4 bits, two of which are in a byte.
    Pairs(PairOrder),
}

impl Lookup {
    /// What serves `recipe`, the groups of whose columns are listed or not, where weights become elements of type `to`.
    pub(super) fn of(recipe: &Recipe, is_listed: bool, to: Dtype) -> Option<Lookup> {
        if !matches!(to, Dtype::BF16 | Dtype::F16) || recipe.is_flat() {
            return None;
        }
        let groups = recipe.groups;
        let is_signed = matches!(
            recipe.value,
            Value::Float(FloatCode::E4m3 | FloatCode::E5m2)
        );
        if is_signed && !is_listed && magnitudes::are_worth_it(groups.rows, groups.columns) {
            return Some(Lookup::Magnitudes);
        }
        let order = recipe.codes.row_runs()?.order().ok()?.pair_order()?;
        pairs::are_worth_it(groups.columns, is_listed).then_some(Lookup::Pairs(order))
    }
}
