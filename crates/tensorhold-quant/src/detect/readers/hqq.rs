//! HQQ, whose settings are tensors: numbers, and texts in bytes, which are read as texts.

use tensorhold_core::{Error, ErrorKind, Result};

use super::super::json::float_dtype;
use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::Reading;
use crate::scheme::{Axis, Hqq};

const PARTS: &[&str] = &[
    "W_q",
    "scale",
    "zero",
    "nbits",
    "group_size",
    "shape",
    "axis",
    "packing",
    "unpack_view_dtype",
    "view_as_float",
    "quant_scale",
    "quant_zero",
    "compute_dtype",
    "offload_meta",
    "encoded_state_dict",
    "stores_quant_config",
    "channel_wise",
    "optimize",
    "round_zero",
];

/// `W_q` with `scale`.
pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    for part in ["quant_scale", "quant_zero"] {
        if matches!(module.integer(part), Ok(Some(1))) {
            let why = "its scales or zeros are themselves quantized";
            return Some(Reading::opaque(SchemeName::Hqq, PARTS, why));
        }
    }
    let dtype = module.text("compute_dtype").ok().flatten();
    let recipe = settings(module).and_then(|scheme| module.recipe(&scheme));
    Some(Reading {
        dtype: dtype.and_then(|name| float_dtype(&name)),
        ..Reading::new(SchemeName::Hqq, PARTS, recipe).scales("scale")
    })
}

fn settings(module: &Module<'_>) -> Result<Hqq> {
    let needed = |part: &'static str| {
        let missing = || {
            Error::new(
                ErrorKind::TensorNotFound,
                format!("part `{part}` is missing"),
            )
        };
        module.integer(part)?.ok_or_else(missing)
    };
    let axis = match needed("axis")? {
        0 => Axis::Rows,
        1 => Axis::Columns,
        other => return Err(wrong(format!("`axis` is {other}: it must be 0 or 1"))),
    };
    let group_size = module.integer("group_size")?.map(|size| {
        u64::try_from(size).map_err(|_| wrong(format!("`group_size` is {size}: it must be a size")))
    });
    Ok(Hqq {
        bits: bits(module)?,
        group_size: group_size.transpose()?,
        axis,
        shape: module.integers("shape")?,
    })
}

/// The width of a code as it is packed, which may be more than its bits.
fn bits(module: &Module<'_>) -> Result<u32> {
    let packing = module.text("packing")?.unwrap_or_default();
    match &*packing {
        "8bit_u8" => Ok(8),
        "4bit_u8" => Ok(4),
        "3bit_32" => Ok(3),
        "2bit_u8" => Ok(2),
        "1bit_u8" => Ok(1),
        other => Err(wrong(format!("`packing` is `{other}`, which is not known"))),
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::InvalidTensor, message)
}
