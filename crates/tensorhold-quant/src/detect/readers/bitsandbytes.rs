//! bitsandbytes.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::super::json::Json;
use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::Reading;
use crate::codec::FourBitTable;
use crate::scheme::{Bitsandbytes4, Bitsandbytes8, NestedScales, Scheme};

const STATE_NF4: &str = "weight.quant_state.bitsandbytes__nf4";
const STATE_FP4: &str = "weight.quant_state.bitsandbytes__fp4";

/// The state by the name that GPTQModel gives it, whichever table it is of.
const STATE_OF_GPTQMODEL: &str = "weight_quant_state";

const PARTS_OF_4: &[&str] = &[
    "weight",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    STATE_NF4,
    STATE_FP4,
    "weight_absmax",
    "weight_quant_map",
    "weight_nested_absmax",
    "weight_nested_quant_map",
    STATE_OF_GPTQMODEL,
];

/// A quantization state in JSON, beside `weight`.
pub(in super::super) fn four_bits(module: &Module<'_>) -> Option<Reading> {
    let scheme = match module.has(STATE_NF4) {
        true => SchemeName::Nf4,
        false => SchemeName::BnbFp4,
    };
    Some(of_four_bits(
        module,
        scheme,
        module.scene.json_blob(&module.anchor),
    ))
}

fn of_four_bits(module: &Module<'_>, scheme: SchemeName, state: Result<Json>) -> Reading {
    let dtype = state
        .as_ref()
        .ok()
        .and_then(|state| state.get("dtype")?.dtype());
    let recipe = state.and_then(|state| module.recipe(&of_state(module, scheme, &state)?));
    Reading {
        dtype,
        ..Reading::new(scheme, PARTS_OF_4, recipe)
    }
}

/// `weight` I8 with `SCB`, or `weight_scb`.
pub(in super::super) fn eight_bits(module: &Module<'_>) -> Option<Reading> {
    const ROWS: i64 = 0;
    let recipe = match module.integer("weight_format") {
        Ok(None | Some(ROWS)) => module.recipe(&Bitsandbytes8),
        Ok(Some(_)) => {
            let why = "its rows lie in the tiles of a kernel, as `weight_format` says";
            return Some(Reading::opaque(
                SchemeName::BnbInt8,
                Bitsandbytes8::PARTS,
                why,
            ));
        }
        Err(error) => Err(error),
    };
    Some(Reading::new(SchemeName::BnbInt8, Bitsandbytes8::PARTS, recipe).scales("SCB"))
}

/// Four bits whose parts have the names that GPTQModel gives them: those of bitsandbytes, with `weight_` before them.
pub(in super::super) fn of_gptqmodel(module: &Module<'_>) -> Option<Reading> {
    let missing = || {
        let message = format!("part `{STATE_OF_GPTQMODEL}` is missing");
        Error::new(ErrorKind::TensorNotFound, message)
    };
    let state = module.find(STATE_OF_GPTQMODEL).ok_or_else(missing);
    let state = state.and_then(|info| module.scene.json_blob(info));
    let table = state
        .as_ref()
        .ok()
        .and_then(|state| state.get("quant_type")?.text());
    let scheme = match table {
        Some("fp4") => SchemeName::BnbFp4,
        _ => SchemeName::Nf4,
    };
    let state = match table {
        Some("nf4" | "fp4") => state,
        _ => state.and_then(|_| Err(incomplete("quant_type"))),
    };
    Some(of_four_bits(module, scheme, state))
}

fn of_state(module: &Module<'_>, scheme: SchemeName, state: &Json) -> Result<Bitsandbytes4> {
    let block_size = state.get("blocksize").and_then(Json::size);
    let shape = state.get("shape").and_then(Json::sizes);
    let nested = match state.get("nested_blocksize") {
        None => None,
        Some(size) => Some(NestedScales {
            block_size: size.size().ok_or_else(|| incomplete("nested_blocksize"))?,
            offset: state
                .get("nested_offset")
                .and_then(Json::float)
                .ok_or_else(|| incomplete("nested_offset"))? as f32,
        }),
    };
    Ok(Bitsandbytes4 {
        shape: shape.ok_or_else(|| incomplete("shape"))?,
        block_size: block_size.ok_or_else(|| incomplete("blocksize"))?,
        table: table(module, scheme)?,
        nested,
    })
}

fn incomplete(key: &str) -> Error {
    let message = format!("the quantization state has no `{key}`, or not as it must be");
    Error::new(ErrorKind::InvalidTensor, message)
}

/// The numbers that the file has for the codes, or those that the name stands for.
fn table(module: &Module<'_>, scheme: SchemeName) -> Result<FourBitTable> {
    let tables = ["weight.quant_map", "weight_quant_map"];
    let Some((part, info)) = tables
        .into_iter()
        .find_map(|part| Some((part, module.find(part)?)))
    else {
        return Ok(match scheme {
            SchemeName::Nf4 => FourBitTable::NF4,
            _ => FourBitTable::BITSANDBYTES_FP4,
        });
    };
    let numbers = module.scene.blob(info)?;
    let numbers = numbers
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes));
    let numbers: Vec<f32> = numbers.collect();
    match (info.dtype, <[f32; 16]>::try_from(numbers)) {
        (Dtype::F32, Ok(numbers)) => Ok(FourBitTable(numbers)),
        _ => {
            let (dtype, shape) = (info.dtype, info.shape);
            let message = format!("part `{part}` is {dtype} {shape:?}: it must be F32 [16]");
            Err(Error::new(ErrorKind::InvalidTensor, message))
        }
    }
}
