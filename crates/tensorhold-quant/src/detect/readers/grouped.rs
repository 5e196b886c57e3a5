//! `qweight` with `scales`: GPTQ and AWQ, told apart by their shapes.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::super::module::Module;
use super::super::name::SchemeName;
use super::super::reading::{Reading, ambiguous, conflict};
use super::super::settings::{GroupSize, Settings};
use super::super::weight::QuantFinding;
use super::groups::group_size;
use super::zeros;
use crate::scheme::{AwqGemm, AwqGemv, AwqGemvFast, Gptq, Recipe, Scheme};

const AWQ_CODES: u64 = 8;

/// Which way codes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gptq,
    /// Along the outputs.
    AwqGemm,
    /// Along the inputs, one row for each output.
    AwqGemv,
    /// Four rows in each element of 16 bits.
    AwqFast,
}

pub(in super::super) fn read(module: &Module<'_>) -> Option<Reading> {
    let (kind, mut findings) = match kind(module) {
        Ok(kind) => kind,
        Err(error) => {
            return Some(Reading::new(SchemeName::Gptq, Gptq::PARTS, Err(error)).scales("scales"));
        }
    };
    let (scheme, parts, recipe) = match kind {
        Kind::Gptq => (SchemeName::Gptq, Gptq::PARTS, gptq(module)),
        Kind::AwqGemm => (SchemeName::Awq, AwqGemm::PARTS, awq(module)),
        Kind::AwqGemv | Kind::AwqFast => (SchemeName::Awq, AwqGemvFast::PARTS, gemv(module, kind)),
    };
    let recipe = recipe.map(|(recipe, more)| {
        findings.extend(more);
        recipe
    });
    Some(
        Reading::new(scheme, parts, recipe)
            .scales("scales")
            .with(findings),
    )
}

/// What the shapes of codes and scales say, and the configuration where they leave it open.
fn kind(module: &Module<'_>) -> Result<(Kind, Vec<QuantFinding>)> {
    if module.anchor.dtype == Dtype::I16 {
        return Ok((Kind::AwqFast, Vec::new()));
    }
    let stated = stated(module.settings());
    let (Some([rows, columns]), Some([high, wide])) =
        (module.shape_of("qweight"), module.shape_of("scales"))
    else {
        return Ok((stated.unwrap_or(Kind::Gptq), Vec::new()));
    };
    let suits = |kind: &Kind| match kind {
        Kind::Gptq => columns == wide,
        Kind::AwqGemm => columns.checked_mul(AWQ_CODES) == Some(*wide),
        _ => rows == high && wide.is_multiple_of(AWQ_CODES) && has_narrow_zeros(module, *wide),
    };
    let seen: Vec<Kind> = [Kind::Gptq, Kind::AwqGemm, Kind::AwqGemv]
        .into_iter()
        .filter(suits)
        .collect();
    match (&seen[..], stated) {
        ([], _) => Ok((stated.unwrap_or(Kind::Gptq), Vec::new())),
        (seen, Some(stated)) if seen.contains(&stated) => Ok((stated, Vec::new())),
        ([kind], None) => Ok((*kind, Vec::new())),
        ([kind], Some(stated)) if is_awq(*kind) == is_awq(stated) => Ok((*kind, Vec::new())),
        ([kind], Some(stated)) => Ok((*kind, vec![differ(module, *kind, stated)])),
        _ => Err(ambiguous(
            format!(
                "`qweight` {:?} and `scales` {:?} can be of GPTQ or of AWQ",
                [rows, columns],
                [high, wide]
            ),
            "say it by `quant_method` in the configuration",
        )),
    }
}

/// Whether zeros are as wide as GEMV has them.
fn has_narrow_zeros(module: &Module<'_>, wide: u64) -> bool {
    module
        .shape_of("qzeros")
        .is_none_or(|shape| shape.last() == Some(&(wide / AWQ_CODES)))
}

fn is_awq(kind: Kind) -> bool {
    kind != Kind::Gptq
}

fn stated(settings: &Settings<'_>) -> Option<Kind> {
    let packing = settings.text(&["packing_format"]).unwrap_or_default();
    if settings.is_method(&["awq", "awq_marlin"]) || packing.contains("awq") {
        return Some(
            match settings
                .text(&["version", "format"])
                .map(str::to_ascii_lowercase)
                .as_deref()
            {
                Some("gemv") => Kind::AwqGemv,
                Some("gemv_fast" | "llm-awq") => Kind::AwqFast,
                _ => Kind::AwqGemm,
            },
        );
    }
    let methods = [
        "gptq",
        "gptq_marlin",
        "auto-round",
        "auto_round",
        "intel/auto-round",
    ];
    settings.is_method(&methods).then_some(Kind::Gptq)
}

fn differ(module: &Module<'_>, seen: Kind, stated: Kind) -> QuantFinding {
    let name = |kind| if is_awq(kind) { "AWQ" } else { "GPTQ" };
    conflict(format!(
        "the configuration says {}, but `qweight` {:?} beside `scales` {:?} is {}",
        name(stated),
        module.shape_of("qweight").unwrap_or_default(),
        module.shape_of("scales").unwrap_or_default(),
        name(seen)
    ))
}

type Read = Result<(Recipe, Vec<QuantFinding>)>;

fn gptq(module: &Module<'_>) -> Read {
    let (bits, mut findings) = bits(module)?;
    let columns = columns(module, bits).unwrap_or(0);
    let n_groups = module
        .shape_of("scales")
        .and_then(|shape| shape.first().copied());
    let (group_size, more) = group_size(module, columns, n_groups.unwrap_or(0))?;
    findings.extend(more);
    check_parts(module, group_size)?;
    let (format, more) = zeros::format(module, bits)?;
    findings.extend(more);
    let planes_or_words = bits == 3 && module.settings().method.is_none() && !module.has("qzeros");
    if planes_or_words {
        let message =
            "codes of 3 bits lie one after another or in planes, and nothing says which".to_owned();
        return Err(ambiguous(
            message,
            "say it by `checkpoint_format`: `gptq` or `gptq_v2`, or `gptq_p` for planes",
        ));
    }
    Ok((
        module.recipe(&Gptq {
            bits,
            group_size,
            format,
        })?,
        findings,
    ))
}

/// Refuses weights without the parts that the configuration says there are.
fn check_parts(module: &Module<'_>, group_size: Option<u64>) -> Result<()> {
    let is_set = |key: &str, value: bool| module.settings().flag(&[key]) == Some(value);
    let message = if is_set("desc_act", true) && group_size.is_some() && !module.has("g_idx") {
        "the configuration says that groups are not in order (`desc_act`), but `g_idx` is missing"
    } else if is_set("sym", false) && !module.has("qzeros") {
        "the configuration says that weights are not symmetric, but `qzeros` is missing"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::TensorNotFound, message))
}

/// The width of a code: of as many as there are zeros for each scale, or inputs for each word.
fn bits(module: &Module<'_>) -> Result<(u32, Vec<QuantFinding>)> {
    let of_zeros = || match (module.shape_of("qzeros")?, module.shape_of("scales")?) {
        ([_, words], [_, outputs]) => exact(*words, *outputs),
        _ => None,
    };
    let of_index = || match (module.shape_of("qweight")?, module.shape_of("g_idx")?) {
        ([words, _], [inputs]) => exact(*words, *inputs),
        _ => None,
    };
    let seen = of_zeros().or_else(of_index);
    match (seen, module.settings().bits()) {
        (Some(seen), Some(stated)) if seen != stated => {
            let message = format!(
                "the configuration has {stated} bits, but the tensors have codes of {seen} bits"
            );
            Ok((seen, vec![conflict(message)]))
        }
        (Some(bits), _) | (None, Some(bits)) if (1..=8).contains(&bits) => Ok((bits, Vec::new())),
        (_, Some(bits)) => {
            let message = format!("GPTQ has no codes of {bits} bits: it has 2 to 8");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        }
        _ => Err(ambiguous(
            "neither a configuration nor zeros or `g_idx` tell how wide codes are".to_owned(),
            "say it by `bits` in the configuration",
        )),
    }
}

/// The width of so many codes in so many words, if it is a whole number from 2 to 8.
fn exact(words: u64, codes: u64) -> Option<u32> {
    let n_bits = words.checked_mul(32)?;
    let bits = n_bits.checked_div(codes)?;
    let is_exact = n_bits.is_multiple_of(codes) && (2..=8).contains(&bits);
    u32::try_from(bits).ok().filter(|_| is_exact)
}

/// The number of inputs.
fn columns(module: &Module<'_>, bits: u32) -> Option<u64> {
    if let Some([inputs]) = module.shape_of("g_idx") {
        return Some(*inputs);
    }
    let words = module.shape_of("qweight")?.first()?;
    Some(words.checked_mul(32)? / u64::from(bits.max(1)))
}

/// Rows of scales are filled up, so that they do not tell the size of groups.
fn gemv(module: &Module<'_>, kind: Kind) -> Read {
    let group_size = module.settings().group_size().map(GroupSize::of).ok_or_else(|| {
        ambiguous(
            "scales for the GEMV kernels of AWQ are filled up, so that they do not tell the size of groups".to_owned(),
            "say it by `group_size` in the configuration",
        )
    })?;
    let recipe = match kind {
        Kind::AwqFast => module.recipe(&AwqGemvFast { group_size })?,
        _ => module.recipe(&AwqGemv { group_size })?,
    };
    Ok((recipe, Vec::new()))
}

fn awq(module: &Module<'_>) -> Read {
    let mut findings = Vec::new();
    if let Some(bits) = module.settings().bits().filter(|bits| *bits != 4) {
        findings.push(conflict(format!(
            "the configuration has {bits} bits, but AWQ has codes of 4 bits only"
        )));
    }
    let columns = module
        .shape_of("qweight")
        .and_then(|shape| shape.first().copied());
    let n_groups = module
        .shape_of("scales")
        .and_then(|shape| shape.first().copied());
    let (group_size, more) = group_size(module, columns.unwrap_or(0), n_groups.unwrap_or(0))?;
    findings.extend(more);
    if module.settings().flag(&["zero_point"]) == Some(true) && !module.has("qzeros") {
        let message = "the configuration says that there are zeros, but `qzeros` is missing";
        return Err(Error::new(ErrorKind::TensorNotFound, message));
    }
    Ok((module.recipe(&AwqGemm { group_size })?, findings))
}
