//! Weights that ComfyUI names by a text in `comfy_quant`, or by one in the metadata for each layer.

use tensorhold_core::{Error, ErrorKind, Result};

use super::super::json::Json;
use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::Reading;
use super::fp8;
use crate::codec::FloatCode;
use crate::scheme::{IntQuantized, Mx, MxNames, Nvfp4, Nvfp4Names, ScaleOrder, Scheme};

const PARTS: &[&str] = &[
    "weight",
    "weight_scale",
    "weight_scale_2",
    "weight_zero_point",
];

/// `weight` with `comfy_quant`, or with an entry in the metadata.
pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    match format(module)? {
        Ok(format) => Some(of_format(module, &format)),
        Err(error) => Some(Reading::new(SchemeName::ComfyUi, PARTS, Err(error))),
    }
}

/// The name of the format, if there is an entry.
fn format(module: &Module<'_>) -> Option<Result<String>> {
    let json = match module.find("comfy_quant") {
        Some(info) => module.scene.json_blob(info),
        None => match module.scene.comfy_layer(module.prefix) {
            Ok(layer) => Ok(layer?.clone()),
            // Whatever it would have said, the weight cannot be read without it.
            Err(error) if module.has("weight_scale") => Err(error),
            Err(_) => return None,
        },
    };
    Some(json.and_then(|json| {
        let format = json.get("format").and_then(Json::text).map(str::to_owned);
        let message = "the text of ComfyUI for it names no `format`";
        format.ok_or_else(|| Error::new(ErrorKind::InvalidTensor, message))
    }))
}

fn of_format(module: &Module<'_>, format: &str) -> Reading {
    let why = match format {
        "float8_e4m3fn" | "float8_e5m2" => {
            if let Some(reading) = fp8::read(module) {
                return reading;
            }
            "its scale has another name than any that is known"
        }
        "nvfp4" => {
            let names = Nvfp4Names::ComfyUi;
            return Reading::new(
                SchemeName::Nvfp4,
                Nvfp4::PARTS,
                module.recipe(&Nvfp4 { names }),
            );
        }
        "int8_tensorwise" => {
            let recipe = module.recipe(&IntQuantized::default());
            return Reading::new(SchemeName::IntQuantized, IntQuantized::PARTS, recipe);
        }
        "mxfp8" => {
            if let Some(float) = FloatCode::of_dtype(module.anchor.dtype) {
                let (names, scales) = (MxNames::Modelopt, ScaleOrder::Tiles);
                let recipe = module.recipe(&Mx {
                    float,
                    names,
                    scales,
                });
                return Reading::new(SchemeName::Mxfp8, PARTS, recipe);
            }
            "its weights are no floats of 8 bits"
        }
        _ if format.starts_with("convrot") => "its weights are rotated",
        _ => "this format of ComfyUI is not read",
    };
    Reading::opaque(SchemeName::ComfyUi, PARTS, why)
}
