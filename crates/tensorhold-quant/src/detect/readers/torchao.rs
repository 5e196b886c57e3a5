//! The tensor subclasses of torchao, as the metadata of a file describes them.

use tensorhold_core::{Error, ErrorKind, Result};

use super::super::json::{Json, MAX_BLOB_BYTES};
use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::Reading;
use crate::codec::FloatCode;
use crate::scheme::{
    Fp8, IntQuantized, Mx, MxNames, Nvfp4, Nvfp4Names, Recipe, ScaleOrder, Scheme,
};

const PARTS: &[&str] = &[
    "qdata",
    "scale",
    "zero_point",
    "per_tensor_scale",
    "act_per_tensor_scale",
];

/// `X._weight_qdata`, with an entry for `X.weight` in the metadata.
pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    let (owner, parameter) = module.prefix.rsplit_once("._")?;
    let name = format!("{owner}.{parameter}");
    let reading = match description(module, &name) {
        Ok(Some(json)) => of_description(module, &json),
        Ok(None) => {
            let message =
                format!("the metadata has no entry for `{name}`, which says what its parts are");
            let error = Error::new(ErrorKind::InvalidConfig, message);
            Reading::new(SchemeName::Torchao, PARTS, Err(error))
        }
        Err(error) => Reading::new(SchemeName::Torchao, PARTS, Err(error)),
    };
    Some(Reading {
        name: Some(name),
        ..reading.scales("scale")
    })
}

fn description(module: &Module<'_>, name: &str) -> Result<Option<Json>> {
    let text = module.scene.metadata(name);
    text.map(|text| Json::parse(text, MAX_BLOB_BYTES))
        .transpose()
}

fn of_description(module: &Module<'_>, json: &Json) -> Reading {
    let kind = json.get("_type").and_then(Json::text).unwrap_or_default();
    let nothing = Json::Null;
    let data = json.get("_data").unwrap_or(&nothing);
    let (scheme, recipe) = match kind {
        "Float8Tensor" => (SchemeName::Fp8, float8(module, data)),
        "Int8Tensor" | "IntxUnpackedToInt8Tensor" => {
            (SchemeName::IntQuantized, integers(module, data))
        }
        "MXTensor" => mx(module, data),
        "NVFP4Tensor" => (SchemeName::Nvfp4, nvfp4(module, data)),
        _ => {
            let why = "it is of a tensor class of torchao that is not read";
            return Reading::opaque(SchemeName::Torchao, PARTS, why);
        }
    };
    Reading {
        dtype: value(data, "dtype")
            .or_else(|| value(data, "orig_dtype"))
            .and_then(Json::dtype),
        ..Reading::new(scheme, PARTS, recipe)
    }
}

/// What a typed entry of a description holds.
fn value<'a>(data: &'a Json, key: &str) -> Option<&'a Json> {
    data.get(key)?.get("_data")
}

/// Rows and columns of a block, and those of the weight.
fn block(module: &Module<'_>, data: &Json) -> Result<([u64; 2], [u64; 2])> {
    let sizes = data
        .get("block_size")
        .and_then(Json::sizes)
        .unwrap_or_default();
    match (&sizes[..], module.anchor.shape) {
        ([.., high, wide], [.., rows, columns]) => Ok(([*high, *wide], [*rows, *columns])),
        (sizes, shape) => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("blocks of {sizes:?} are none of a weight of {shape:?}"),
        )),
    }
}

fn float8(module: &Module<'_>, data: &Json) -> Result<Recipe> {
    let (block, [rows, columns]) = block(module, data)?;
    let is_whole = block == [1, columns] || block == [rows, columns];
    let block = (!is_whole).then_some(block);
    // Names that this scheme has elsewhere are no parts here.
    Fp8 { block }.recipe(&module.parts(PARTS))
}

fn integers(module: &Module<'_>, data: &Json) -> Result<Recipe> {
    let ([high, wide], [rows, columns]) = block(module, data)?;
    if high != 1 && (high, wide) != (rows, columns) {
        let message =
            format!("blocks of {high} x {wide} integers are not read: they must be of one row");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let group_size = (wide != columns).then_some(wide);
    IntQuantized { group_size }.recipe(&module.parts(PARTS))
}

fn mx(module: &Module<'_>, data: &Json) -> (SchemeName, Result<Recipe>) {
    const BLOCK: u64 = 32;
    let (scheme, float) = match value(data, "elem_dtype").and_then(Json::text) {
        Some("float8_e4m3fn") => (SchemeName::Mxfp8, FloatCode::E4m3),
        Some("float8_e5m2") => (SchemeName::Mxfp8, FloatCode::E5m2),
        Some("float4_e2m1fn_x2") => (SchemeName::Mxfp4, FloatCode::E2m1),
        _ => {
            let error = Error::new(
                ErrorKind::Unsupported,
                "its elements are of a type that is not read",
            );
            return (SchemeName::Torchao, Err(error));
        }
    };
    let block_size = data.get("block_size").and_then(Json::size);
    if block_size != Some(BLOCK) {
        let error = Error::new(ErrorKind::Unsupported, "its blocks are not of 32 elements");
        return (scheme, Err(error));
    }
    let scales = match is_swizzled(data) {
        true => ScaleOrder::Tiles,
        false => ScaleOrder::Rows,
    };
    let names = MxNames::Torchao;
    (
        scheme,
        module.recipe(&Mx {
            float,
            names,
            scales,
        }),
    )
}

fn nvfp4(module: &Module<'_>, data: &Json) -> Result<Recipe> {
    let names = match is_swizzled(data) {
        true => Nvfp4Names::TorchaoTiles,
        false => Nvfp4Names::Torchao,
    };
    module.recipe(&Nvfp4 { names })
}

fn is_swizzled(data: &Json) -> bool {
    data.get("is_swizzled_scales").and_then(Json::flag) == Some(true)
}
