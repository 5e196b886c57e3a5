//! `weight` in bytes with `weight_scale`, where nothing but the configuration says what it is: BitNet, and modelopt's own packing.

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::Reading;
use super::groups::group_size;
use crate::scheme::{BitNet, BitNetScale, Scheme, W4a16Awq};

/// BitNet, or `W4A16_AWQ` and `W4A8_AWQ`.
pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    if module.settings().is_method(&["bitnet"]) {
        return Some(bitnet(module));
    }
    let is_int4 = module.settings().names("w4a16") || module.settings().names("w4a8");
    is_int4.then(|| int4(module))
}

fn bitnet(module: &Module<'_>) -> Reading {
    let scale = match module.settings().text(&["linear_class"]) {
        Some("autobitlinear") => BitNetScale::Multiplies,
        _ => BitNetScale::Divides,
    };
    Reading::new(
        SchemeName::BitNet,
        BitNet::PARTS,
        module.recipe(&BitNet { scale }),
    )
}

fn int4(module: &Module<'_>) -> Reading {
    // What inputs are multiplied by is no part of the weight: it stays.
    const PARTS: &[&str] = &["weight", "weight_scale"];
    let columns = module.anchor.shape.last().copied().unwrap_or(0);
    let n_groups = module
        .shape_of("weight_scale")
        .and_then(|shape| shape.last().copied());
    let groups = group_size(module, columns, n_groups.unwrap_or(0));
    let recipe = groups.and_then(|(size, findings)| {
        let group_size = size.unwrap_or(columns.max(1));
        Ok((module.recipe(&W4a16Awq { group_size })?, findings))
    });
    match recipe {
        Ok((recipe, findings)) => {
            Reading::new(SchemeName::ModeloptInt4, PARTS, Ok(recipe)).with(findings)
        }
        Err(error) => Reading::new(SchemeName::ModeloptInt4, PARTS, Err(error)),
    }
}
