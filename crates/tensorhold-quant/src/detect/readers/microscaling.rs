//! Floats of 4 and 6 bits with scales of 16 or 32 of them.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::{Reading, ambiguous, assumed};
use crate::codec::FloatCode;
use crate::scheme::{Mx, MxNames, Nvfp4, Nvfp4Names, ScaleOrder, Scheme};

/// Bytes of codes of 6 bits for one scale.
const BYTES_OF_6: u64 = 24;

/// `weight_packed` with `weight_global_scale`.
pub(in super::super) fn nvfp4_packed(module: &Module<'_>) -> Option<Reading> {
    let names = Nvfp4Names::CompressedTensors;
    Some(of_nvfp4(module, names))
}

/// `weight` with `weight_scale_2`; what ComfyUI writes has the same parts.
pub(in super::super) fn nvfp4(module: &Module<'_>) -> Option<Reading> {
    if module.dtype_of("weight_scale") != Some(Dtype::F8_E4M3) {
        let error = Error::new(
            ErrorKind::InvalidTensor,
            "beside `weight_scale_2` there must be `weight_scale` F8_E4M3",
        );
        return Some(Reading::new(SchemeName::Nvfp4, Nvfp4::PARTS, Err(error)));
    }
    let of_modelopt = of_nvfp4(module, Nvfp4Names::Modelopt);
    let is_plain = module
        .recipe(&Nvfp4 {
            names: Nvfp4Names::Modelopt,
        })
        .is_ok();
    let in_tiles = module
        .recipe(&Nvfp4 {
            names: Nvfp4Names::ComfyUi,
        })
        .is_ok();
    if is_plain || !in_tiles {
        return Some(of_modelopt);
    }
    let message = "scales fill tiles of 128 x 4, as ComfyUI has them; so codes are taken for its, the first in the upper half";
    Some(of_nvfp4(module, Nvfp4Names::ComfyUi).with(vec![assumed(message.to_owned())]))
}

fn of_nvfp4(module: &Module<'_>, names: Nvfp4Names) -> Reading {
    Reading::new(
        SchemeName::Nvfp4,
        Nvfp4::PARTS,
        module.recipe(&Nvfp4 { names }),
    )
}

/// `weight_packed` with powers of two.
pub(in super::super) fn mx_packed(module: &Module<'_>) -> Option<Reading> {
    is_power(module, "weight_scale").then(|| of_mx(module, MxNames::CompressedTensors))
}

/// `weight` with powers of two.
pub(in super::super) fn mx(module: &Module<'_>) -> Option<Reading> {
    is_power(module, "weight_scale").then(|| of_mx(module, MxNames::Modelopt))
}

/// `weight` with `scale` F8_E8M0.
pub(in super::super) fn deepseek(module: &Module<'_>) -> Option<Reading> {
    let is_scale = module.dtype_of("scale") == Some(Dtype::F8_E8M0);
    is_scale.then(|| of_mx(module, MxNames::DeepSeek).scales("scale"))
}

/// `_blocks` with `_scales`.
pub(in super::super) fn gpt_oss(module: &Module<'_>) -> Option<Reading> {
    if !is_power(module, "_scales") {
        return None;
    }
    let scheme = Mx {
        float: FloatCode::E2m1,
        names: MxNames::GptOss,
        scales: ScaleOrder::Rows,
    };
    let reading = Reading::new(SchemeName::Mxfp4, Mx::PARTS, module.recipe(&scheme));
    Some(reading.scales("_scales").suffix(""))
}

fn is_power(module: &Module<'_>, scales: &str) -> bool {
    matches!(module.dtype_of(scales), Some(Dtype::U8 | Dtype::F8_E8M0))
}

fn of_mx(module: &Module<'_>, names: MxNames) -> Reading {
    let float = float(module, names);
    let scheme = match &float {
        Ok(float) if float.width_bits() == 4 => SchemeName::Mxfp4,
        _ => SchemeName::Mxfp6,
    };
    let recipe = float.and_then(|float| {
        module.recipe(&Mx {
            float,
            names,
            scales: ScaleOrder::Rows,
        })
    });
    Reading::new(scheme, Mx::PARTS, recipe)
}

/// What codes are: by their type, by their width beside that of the scales, and by the configuration.
fn float(module: &Module<'_>, names: MxNames) -> Result<FloatCode> {
    if let Some(float) = FloatCode::of_dtype(module.anchor.dtype) {
        return Ok(float);
    }
    let scales = if names == MxNames::DeepSeek {
        "scale"
    } else {
        "weight_scale"
    };
    let n_scales = module
        .shape_of(scales)
        .and_then(|shape| shape.last().copied())
        .unwrap_or(0);
    let is_split = module.anchor.shape.len() > module.shape_of(scales).map_or(0, <[u64]>::len);
    let width = module.anchor.shape.last().copied().unwrap_or(0);
    let is_6 = match is_split {
        true => width == BYTES_OF_6,
        false => n_scales > 0 && Some(width) == n_scales.checked_mul(BYTES_OF_6),
    };
    match (is_6, names) {
        (false, _) => Ok(FloatCode::E2m1),
        _ if module.settings().names("e3m2") => Ok(FloatCode::E3m2),
        // compressed-tensors has no other one of 6 bits.
        (true, MxNames::CompressedTensors) => Ok(FloatCode::E2m3),
        _ if module.settings().names("e2m3") => Ok(FloatCode::E2m3),
        _ => Err(ambiguous(
            format!(
                "{BYTES_OF_6} bytes for each scale are floats of 6 bits, E2M3 or E3M2, and nothing says which"
            ),
            "say it by `weight_dtype` in the configuration: `mxfp6_e2m3` or `mxfp6_e3m2`",
        )),
    }
}
