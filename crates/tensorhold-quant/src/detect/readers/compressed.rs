//! Integers of compressed-tensors.

use tensorhold_core::{Error, ErrorKind, Result};

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::{Reading, ambiguous};
use super::super::weight::QuantFinding;
use super::groups::group_size;
use crate::codec::BitOrder;
use crate::scheme::{IntQuantized, PackQuantized, Parts, Recipe, Scheme};

pub(super) type Read = Result<(Recipe, Vec<QuantFinding>)>;

/// `weight_packed` in words of 32 bits.
pub(in super::super) fn packed(module: &Module<'_>) -> Option<Reading> {
    Some(reading(
        SchemeName::PackQuantized,
        PackQuantized::PARTS,
        pack_recipe(module),
    ))
}

/// `weight` I8 with `weight_scale`.
pub(in super::super) fn integers(module: &Module<'_>) -> Option<Reading> {
    Some(reading(
        SchemeName::IntQuantized,
        IntQuantized::PARTS,
        int_recipe(module),
    ))
}

fn reading(scheme: SchemeName, parts: &'static [&'static str], read: Read) -> Reading {
    match read {
        Ok((recipe, findings)) => Reading::new(scheme, parts, Ok(recipe)).with(findings),
        Err(error) => Reading::new(scheme, parts, Err(error)),
    }
}

fn pack_recipe(module: &Module<'_>) -> Read {
    let shape = shape_in(module, "weight_shape")?;
    check_zeros(module)?;
    let (group_size, findings) = groups(module, shape[1])?;
    let is_ordered = module.settings().text(&["actorder"]) == Some("group");
    if is_ordered && group_size.is_some() && !module.has("weight_g_idx") {
        let message = "the configuration says that groups are not in order (`actorder`), but `weight_g_idx` is missing";
        return Err(Error::new(ErrorKind::TensorNotFound, message));
    }
    let scheme = PackQuantized {
        bits: bits(module, shape[1])?,
        group_size,
        shape,
        order: None,
    };
    Ok((module.recipe(&scheme)?, findings))
}

/// The two sizes that a part holds.
pub(super) fn shape_in(module: &Module<'_>, part: &'static str) -> Result<[u64; 2]> {
    let sizes = module.integers(part)?.try_into();
    sizes.map_err(|sizes: Vec<u64>| {
        let message = format!("part `{part}` has {} sizes: it must have 2", sizes.len());
        Error::new(ErrorKind::InvalidTensor, message)
    })
}

fn int_recipe(module: &Module<'_>) -> Read {
    let columns = module.anchor.shape.last().copied().unwrap_or(0);
    int_recipe_of(module, columns, &module.parts(IntQuantized::PARTS))
}

/// The recipe of integers of so many columns, which are `weight` of `parts`.
pub(super) fn int_recipe_of(module: &Module<'_>, columns: u64, parts: &Parts<'_>) -> Read {
    check_zeros(module)?;
    let (group_size, findings) = groups(module, columns)?;
    Ok((IntQuantized { group_size }.recipe(parts)?, findings))
}

fn groups(module: &Module<'_>, columns: u64) -> Result<(Option<u64>, Vec<QuantFinding>)> {
    let n_groups = match module.shape_of("weight_scale") {
        Some([_, n_groups]) => *n_groups,
        _ => 1,
    };
    group_size(module, columns, n_groups)
}

/// Refuses weights that have zeros by their configuration, and none in the file.
fn check_zeros(module: &Module<'_>) -> Result<()> {
    let is_asymmetric = module.settings().flag(&["symmetric"]) == Some(false);
    match is_asymmetric && !module.has("weight_zero_point") {
        false => Ok(()),
        true => {
            let message = "the configuration says that weights are not symmetric, but `weight_zero_point` is missing";
            Err(Error::new(ErrorKind::TensorNotFound, message))
        }
    }
}

/// The width of a code: as the configuration has it, or the only one of which `columns` fill the words that there are.
fn bits(module: &Module<'_>, columns: u64) -> Result<u32> {
    if let Some(bits) = module.settings().bits() {
        return Ok(bits);
    }
    let words = module.anchor.shape.last().copied().unwrap_or(0);
    let fits = |bits: &u32| {
        let orders = [BitOrder::lsb_words(*bits), BitOrder::padded(*bits)];
        let mut sizes = orders
            .into_iter()
            .filter_map(|order| order.ok()?.size_bytes(columns).ok());
        sizes.any(|size_bytes| size_bytes / 4 == words)
    };
    let there: Vec<u32> = (1..=8).filter(fits).collect();
    match there[..] {
        [bits] => Ok(bits),
        _ => {
            let message =
                format!("{words} words for {columns} inputs can have codes of {there:?} bits");
            Err(ambiguous(
                message,
                "say it by `num_bits` in the configuration",
            ))
        }
    }
}
