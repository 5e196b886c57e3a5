//! Weights whose zeros are left out.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::Reading;
use super::super::weight::{Layout, QuantFinding};
use super::compressed::{int_recipe_of, shape_in};
use super::fp8;
use crate::can_cast;
use crate::scheme::{Fp8, Parts, Recipe, Scheme, Sparse, SparseBitmask};

const PARTS: &[&str] = &[
    "compressed",
    "bitmask",
    "row_offsets",
    "shape",
    "weight_scale",
    "weight_zero_point",
];

/// `compressed` with `bitmask`.
pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    let scheme = match module.has("row_offsets") {
        true => SchemeName::SparseBitmask,
        false => SchemeName::Sparse24Bitmask,
    };
    Some(match of_parts(module) {
        Ok((sparse, findings)) => {
            let own = sparse.recipe().is_none().then_some(sparse.mask().dtype());
            Reading {
                dtype: own,
                ..Reading::of_layout(scheme, PARTS, Ok(Layout::Sparse(sparse))).with(findings)
            }
        }
        Err(error) => Reading::of_layout(scheme, PARTS, Err(error)),
    })
}

fn of_parts(module: &Module<'_>) -> Result<(Sparse, Vec<QuantFinding>)> {
    let shape = shape_in(module, "shape")?;
    let mask = SparseBitmask::new(&module.parts(PARTS), shape)?;
    let (recipe, findings) = recipe(module, &mask)?;
    Ok((Sparse::new(mask, recipe)?, findings))
}

/// What the elements are codes of; nothing where they are floats without a scale.
fn recipe(
    module: &Module<'_>,
    mask: &SparseBitmask,
) -> Result<(Option<Recipe>, Vec<QuantFinding>)> {
    let (dtype, shape) = (mask.dtype(), mask.shape());
    let beside = ["weight_scale", "weight_zero_point"];
    let beside = beside
        .iter()
        .filter_map(|part| Some((*part, module.find(part)?)));
    let beside = beside.map(|(part, info)| (part, info.dtype, info.shape));
    let parts: Parts<'_> = beside.chain([("weight", dtype, &shape[..])]).collect();
    let has_scale = module.has("weight_scale");
    if dtype == Dtype::I8 {
        let (recipe, findings) = int_recipe_of(module, shape[1], &parts)?;
        return Ok((Some(recipe), findings));
    }
    if fp8::is_float(dtype) && has_scale {
        let block = module.settings().block();
        return Ok((Some(Fp8 { block }.recipe(&parts)?), Vec::new()));
    }
    if fp8::is_float(dtype) && fp8::asks_for_scales(module.settings()) {
        let message = "its scale is missing: there is no `weight_scale`";
        return Err(Error::new(ErrorKind::TensorNotFound, message));
    }
    match can_cast(dtype, dtype) && !has_scale {
        true => Ok((None, Vec::new())),
        false => {
            let beside = if has_scale {
                " with `weight_scale` beside it"
            } else {
                ""
            };
            let message =
                format!("part `compressed` is {dtype}{beside}, which is no weight that is known");
            Err(Error::new(ErrorKind::InvalidTensor, message))
        }
    }
}
