//! optimum-quanto.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::{Reading, conflict};
use super::super::weight::QuantFinding;
use super::fp8;
use crate::scheme::{Fp8, IntQuantized, QuantoBits, Recipe, Scheme};

/// `weight._data._data`: codes of 2 or 4 bits.
pub(in super::super) fn bits(module: &Module<'_>) -> Option<Reading> {
    let scheme = SchemeName::Quanto;
    let reading = match of_bits(module) {
        Ok((recipe, findings)) => {
            Reading::new(scheme, QuantoBits::PARTS, Ok(recipe)).with(findings)
        }
        Err(error) => Reading::new(scheme, QuantoBits::PARTS, Err(error)),
    };
    Some(reading.scales("weight._scale"))
}

/// `weight._data`: integers or floats of 8 bits.
pub(in super::super) fn bytes(module: &Module<'_>) -> Option<Reading> {
    const PARTS: &[&str] = &["weight._data", "weight._scale"];
    // What these schemes are made of elsewhere may be there, too, and is no part of this weight.
    let parts = module.parts(PARTS);
    let recipe = match module.anchor.dtype {
        Dtype::I8 => IntQuantized::default().recipe(&parts),
        dtype if fp8::is_float(dtype) => Fp8::default().recipe(&parts),
        _ => {
            return Some(Reading::opaque(
                SchemeName::Quanto,
                PARTS,
                "its codes are of no type of quanto",
            ));
        }
    };
    Some(Reading::new(SchemeName::Quanto, PARTS, recipe).scales("weight._scale"))
}

fn of_bits(module: &Module<'_>) -> Result<(Recipe, Vec<QuantFinding>)> {
    let (Some([lines, group_size]), Some([n_groups, ..])) = (
        module.shape_of("weight._data._data"),
        module.shape_of("weight._scale"),
    ) else {
        let message = "`weight._data._data` must have two dimensions, and `weight._scale` a row for each group";
        return Err(Error::new(ErrorKind::InvalidTensor, message));
    };
    let stated = match module.settings().text(&["weights"]) {
        Some("qint2") => Some(2),
        Some("qint4") => Some(4),
        _ => None,
    };
    // Groups are cut into as many parts as there are codes in a byte.
    let fits = |bits: &u32| n_groups.div_ceil(8 / u64::from(*bits)) == *lines;
    let seen: Vec<u32> = [2, 4].into_iter().filter(fits).collect();
    let (bits, findings) = match (&seen[..], stated) {
        (seen, Some(stated)) if seen.contains(&stated) => (stated, Vec::new()),
        ([seen], Some(stated)) => (*seen, vec![differ(stated, *seen)]),
        ([seen], None) => (*seen, Vec::new()),
        _ => {
            let message = format!(
                "{lines} lines of codes suit {n_groups} groups with neither 2 nor 4 bits, or with both"
            );
            return Err(Error::new(ErrorKind::InvalidTensor, message));
        }
    };
    let shape = shape(module, *n_groups, *group_size)?;
    Ok((module.recipe(&QuantoBits { bits, shape })?, findings))
}

fn differ(stated: u32, seen: u32) -> QuantFinding {
    conflict(format!(
        "the configuration has codes of {stated} bits, but the tensors have codes of {seen} bits"
    ))
}

/// Outputs and inputs: there is a bias for each output, and no other part tells.
fn shape(module: &Module<'_>, n_groups: u64, group_size: u64) -> Result<[u64; 2]> {
    let unknown = || {
        let message = format!(
            "{n_groups} groups of {group_size} are a matrix whose number of rows no tensor says: there is no `bias`"
        );
        Error::new(ErrorKind::Unsupported, message)
    };
    let Some([rows]) = module.shape_of("bias") else {
        return Err(unknown());
    };
    let n_codes = n_groups.checked_mul(group_size);
    let columns = n_codes.filter(|n_codes| *rows > 0 && n_codes.is_multiple_of(*rows));
    let columns = columns.map(|n_codes| n_codes / rows);
    columns.map(|columns| [*rows, columns]).ok_or_else(|| {
        let message = format!("{n_groups} groups of {group_size} do not fill {rows} rows, of which there are as many as in `bias`");
        Error::new(ErrorKind::InvalidTensor, message)
    })
}
