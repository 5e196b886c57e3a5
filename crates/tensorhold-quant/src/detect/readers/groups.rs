//! How many inputs share a scale, as the configuration and the scales say it.

use tensorhold_core::{Error, Result};

use super::super::module::Module;
use super::super::reading::{ambiguous, conflict};
use super::super::settings::GroupSize;
use super::super::weight::QuantFinding;

/// The size of a group of `columns` inputs that have `n_groups` scales, and what was odd about it.
///
/// # Errors
/// `InvalidConfig` where nothing says it.
pub(super) fn group_size(
    module: &Module<'_>,
    columns: u64,
    n_groups: u64,
) -> Result<(Option<u64>, Vec<QuantFinding>)> {
    let stated = module.settings().group_size();
    let suits = |size: GroupSize| match size {
        GroupSize::All => n_groups == 1,
        GroupSize::Of(size) => size > 0 && columns.div_ceil(size) == n_groups,
    };
    if let Some(size) = stated.filter(|size| suits(*size)) {
        return Ok((size.of(), Vec::new()));
    }
    let seen = by_shape(columns, n_groups).ok_or_else(|| unknown(columns, n_groups))?;
    let findings = stated.map(|stated| {
        let stated = stated
            .of()
            .map_or("one group".to_owned(), |size| format!("groups of {size}"));
        conflict(format!(
            "the configuration has {stated}, but {columns} inputs have {n_groups} scales"
        ))
    });
    Ok((seen.of(), findings.into_iter().collect()))
}

/// The size by the number of scales alone, where all groups are full.
fn by_shape(columns: u64, n_groups: u64) -> Option<GroupSize> {
    match n_groups {
        0 => None,
        1 => Some(GroupSize::All),
        _ => columns
            .is_multiple_of(n_groups)
            .then(|| GroupSize::Of(columns / n_groups)),
    }
}

fn unknown(columns: u64, n_groups: u64) -> Error {
    let message = format!(
        "{n_groups} groups of {columns} inputs cannot be of one size that the tensors tell"
    );
    ambiguous(message, "say it by `group_size` in the configuration")
}
