//! Weights in the order of one kernel, and others that are known and not read.

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::Reading;

const PERMUTED: &str = "its codes are permuted for the tiles of a kernel";

/// `B` with `s`.
pub(in super::super) fn marlin(_: &Module<'_>) -> Option<Reading> {
    Some(Reading::opaque(SchemeName::Marlin, &["B", "s", "workspace"], PERMUTED).scales("s"))
}

/// `weight_packed` with `scale_packed`.
pub(in super::super) fn marlin_24(_: &Module<'_>) -> Option<Reading> {
    const PARTS: &[&str] = &["weight_packed", "scale_packed", "meta", "weight_shape"];
    Some(Reading::opaque(SchemeName::Marlin, PARTS, PERMUTED).scales("scale_packed"))
}

/// `trellis`.
pub(in super::super) fn exl3(_: &Module<'_>) -> Option<Reading> {
    const PARTS: &[&str] = &["trellis", "suh", "svh", "su", "sv", "mcg", "mul1"];
    Some(Reading::opaque(
        SchemeName::Exl3,
        PARTS,
        "its codes are steps through a trellis",
    ))
}

/// Integers with scales that no other line of the table knows.
pub(in super::super) fn unknown(_: &Module<'_>) -> Option<Reading> {
    const PARTS: &[&str] = &[
        "weight",
        "weight_scale",
        "weight_zero_point",
        "scales",
        "biases",
    ];
    let why = "no scheme that is known has a `weight` of integers with these scales";
    Some(Reading::opaque(SchemeName::Unknown, PARTS, why))
}
