//! Floats of 8 bits.

use tensorhold_core::{Dtype, Error, ErrorKind};

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::{Reading, ambiguous, conflict};
use super::super::settings::{Listed, Settings};
use crate::codec::FloatCode;
use crate::scheme::{Fp8, Scheme};

/// What scales are called beside a `weight`.
pub(in super::super) const SCALES: &[&str] = &[
    "weight_scale_inv",
    "weight_scale",
    "scale",
    "qscale_weight",
    "scale_weight",
];

const MX_BLOCK: u64 = 32;

/// `weight` with one of [`SCALES`].
pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    let there: Vec<&'static str> = SCALES
        .iter()
        .copied()
        .filter(|part| module.has(part))
        .collect();
    let [scale] = there[..] else {
        let message = format!("there are two scales, `{}`", there.join("` and `"));
        let error = Error::new(ErrorKind::InvalidTensor, message);
        return Some(Reading::new(SchemeName::Fp8, Fp8::PARTS, Err(error)));
    };
    let parts = ["weight", scale];
    let reading = of_parts(module, parts);
    Some(reading.scales(scale))
}

/// A tensor of experts, beside which lies one of its name with `_scale_inv`.
pub(in super::super) fn fused(module: &Module<'_>) -> Option<Reading> {
    let is_float = module.dtype_of("").is_some_and(is_float);
    // `X.weight_scale_inv` is a part of `X.weight`.
    if !is_float || module.prefix.ends_with(".weight") {
        return None;
    }
    let reading = of_parts(module, ["", "_scale_inv"]);
    Some(reading.scales("_scale_inv").suffix(""))
}

/// A float of 8 bits that should have a scale, by its configuration or by the others.
pub(in super::super) fn without_scale(module: &Module<'_>) -> Option<Reading> {
    let is_asked_for = asks_for_scales(module.settings()) || module.scene.has_scaled_floats();
    if module.settings().listed == Listed::Ignored || !is_asked_for {
        return None;
    }
    let message = format!(
        "its scale is missing: there is none of `{}`",
        SCALES.join("`, `")
    );
    let error = Error::new(ErrorKind::TensorNotFound, message);
    Some(Reading::new(SchemeName::Fp8, &["weight"], Err(error)))
}

pub(in super::super) fn is_float(dtype: Dtype) -> bool {
    FloatCode::of_dtype(dtype).is_some_and(|float| float.width_bits() == 8)
}

pub(super) fn asks_for_scales(settings: &Settings<'_>) -> bool {
    settings.is_method(&["fp8", "fbgemm_fp8", "deepseek_v4_fp8"])
        || settings.names("fp8")
        || settings.names("float-quantized")
}

fn of_parts(module: &Module<'_>, [weight, scale]: [&'static str; 2]) -> Reading {
    let parts = module.parts(&[weight, scale]);
    if is_mx(module, weight, scale) {
        let block = Some([1, MX_BLOCK]);
        return Reading::new(SchemeName::Mxfp8, Fp8::PARTS, Fp8 { block }.recipe(&parts));
    }
    let stated = stated_block(module.settings());
    let plain = Fp8::default().recipe(&parts);
    let (recipe, findings) = match (
        stated.map(|block| Fp8 { block: Some(block) }.recipe(&parts)),
        plain,
    ) {
        (Some(Ok(recipe)), _) => (Ok(recipe), Vec::new()),
        (Some(Err(_)), Ok(recipe)) => {
            let [rows, columns] = stated.unwrap_or_default();
            let message = format!(
                "the configuration has blocks of {rows} x {columns}, but `{scale}` has one scale of the tensor or of each row"
            );
            (Ok(recipe), vec![conflict(message)])
        }
        (Some(Err(error)), Err(_)) => (Err(error), Vec::new()),
        (None, plain) => (
            plain.map_err(|error| needs_block(module, [weight, scale], error)),
            Vec::new(),
        ),
    };
    Reading::new(SchemeName::Fp8, Fp8::PARTS, recipe).with(findings)
}

/// The block that the configuration states, or that its algorithm always has.
fn stated_block(settings: &Settings<'_>) -> Option<[u64; 2]> {
    const OF_MODELOPT: [u64; 2] = [128, 128];
    let of_algorithm = || settings.names("fp8_pb").then_some(OF_MODELOPT);
    settings.block().or_else(of_algorithm)
}

/// Whether scales are powers of two, one for every 32 inputs and nothing else.
fn is_mx(module: &Module<'_>, weight: &str, scale: &str) -> bool {
    let is_power = matches!(module.dtype_of(scale), Some(Dtype::U8 | Dtype::F8_E8M0));
    let sizes = (module.shape_of(weight), module.shape_of(scale));
    let (Some([rows @ .., columns]), Some([scale_rows @ .., blocks])) = sizes else {
        return false;
    };
    let is_one_by_32 =
        rows == scale_rows && columns.is_multiple_of(MX_BLOCK) && columns / MX_BLOCK == *blocks;
    is_power
        && is_one_by_32
        && module
            .settings()
            .block()
            .is_none_or(|block| block == [1, MX_BLOCK])
}

/// Says of a grid of scales which blocks it would suit.
fn needs_block(module: &Module<'_>, [weight, scale]: [&str; 2], error: Error) -> Error {
    let sizes = (module.shape_of(weight), module.shape_of(scale));
    let (Some([.., rows, columns]), Some([.., high, wide])) = sizes else {
        return error;
    };
    let [Some(tall), Some(broad)] = [blocks(*rows, *high), blocks(*columns, *wide)] else {
        return error;
    };
    let message = format!(
        "`{scale}` has {high} x {wide} scales for {rows} x {columns} weights, which suits blocks of {tall} rows and {broad} columns"
    );
    let hint = "say which by `weight_block_size` in the configuration, such as [128, 128]";
    ambiguous(message, hint)
}

/// The sizes of blocks of which `n_blocks` cover `n`, the last of them perhaps in part.
fn blocks(n: u64, n_blocks: u64) -> Option<String> {
    let least = n.div_ceil((n_blocks > 0).then_some(n_blocks)?);
    let most = match n_blocks {
        1 => return Some(format!("{least} or more")),
        _ => n.checked_sub(1)? / (n_blocks - 1),
    };
    (least > 0 && least <= most).then(|| match least == most {
        true => least.to_string(),
        false => format!("{least} to {most}"),
    })
}
