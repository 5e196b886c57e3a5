//! MLX.

use tensorhold_core::{Error, ErrorKind, Result};

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::{Reading, ambiguous};
use crate::scheme::{Mlx, MlxMode, Scheme};

/// `weight` U32 with `scales`.
pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    let mode = mode(module);
    let scheme = match mode {
        Ok(MlxMode::Mxfp4) => SchemeName::Mxfp4,
        Ok(MlxMode::Mxfp8) => SchemeName::Mxfp8,
        Ok(MlxMode::Nvfp4) => SchemeName::Nvfp4,
        _ => SchemeName::Mlx,
    };
    let recipe = mode.and_then(|mode| module.recipe(&of_mode(module, mode)?));
    Some(Reading::new(scheme, Mlx::PARTS, recipe).scales("scales"))
}

fn mode(module: &Module<'_>) -> Result<MlxMode> {
    match module.settings().text(&["mode"]) {
        None | Some("affine") => Ok(MlxMode::Affine),
        Some("mxfp4") => Ok(MlxMode::Mxfp4),
        Some("mxfp8") => Ok(MlxMode::Mxfp8),
        Some("nvfp4") => Ok(MlxMode::Nvfp4),
        Some(other) => {
            let message = format!("`{other}` is no mode of MLX that is known");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        }
    }
}

/// The widths and sizes of a mode, which the configuration must say where there are several.
fn of_mode(module: &Module<'_>, mode: MlxMode) -> Result<Mlx> {
    let fixed = match mode {
        MlxMode::Affine => None,
        MlxMode::Mxfp4 => Some((4, 32)),
        MlxMode::Mxfp8 => Some((8, 32)),
        MlxMode::Nvfp4 => Some((4, 16)),
    };
    let settings = module.settings();
    let stated = settings.bits().zip(settings.size(&["group_size"]));
    let (bits, group_size) = stated.or(fixed).ok_or_else(|| {
        ambiguous(
            "the tensors do not tell the width of codes from the size of groups".to_owned(),
            "say both by `bits` and `group_size`",
        )
    })?;
    Ok(Mlx {
        mode,
        bits,
        group_size,
    })
}
