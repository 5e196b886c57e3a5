//! Tensors that only quantized weights have beside them, and what is left where there is no weight.

use std::collections::HashSet;

use tensorhold_core::Dtype;

use super::module::{Module, Scene};
use super::weight::{QuantFinding, QuantFindingKind};

/// Parts that no recipe needs: scales of activations, and marks.
pub(super) const BESIDE_WEIGHTS: &[&str] = &[
    "input_scale",
    "activation_scale",
    "input_global_scale",
    "input_zero_point",
    "scale_input",
    "output_scale",
    "weight_format",
    "comfy_quant",
];

/// Parts that change what the weight is multiplied with, and stay tensors of their own: what each does.
const TOLD: [(&str, &str); 3] = [
    (
        "pre_quant_scale",
        "inputs are multiplied by `pre_quant_scale` before the weight, which does not have it in it",
    ),
    (
        "svdquant_lora_a",
        "a product of low rank, `svdquant_lora_a` and `_b`, is added to what the weight makes",
    ),
    (
        "weight_lora_down",
        "a product of low rank, `weight_lora_down` and `_up`, is added to what the weight makes",
    ),
];

/// What tensors are called that belong to a quantized model and to no weight.
const COMPANIONS: &[&str] = &[
    ".k_scale",
    ".v_scale",
    ".q_scale",
    ".kv_scale",
    ".prob_output_scale",
    ".output_scale",
    ".input_scale",
    ".activation_scale",
    ".input_global_scale",
    ".scale_input",
    "scaled_fp8",
    "gptq_bits",
    "gptq_groupsize",
    "gptq_sym",
];

/// What the names of parts end in that nothing but a quantized weight has, and the part that each lies beside.
const PARTNERS: &[(&str, &str)] = &[
    (".qweight", ".scales"),
    (".qzeros", ".qweight"),
    (".g_idx", ".qweight"),
    (".weight_packed", ".weight_scale"),
    (".weight_scale", ".weight"),
    (".weight_scale_inv", ".weight"),
    (".weight_scale_2", ".weight"),
    (".weight_global_scale", ".weight_packed"),
    (".weight_zero_point", ".weight"),
    (".weight_shape", ".weight_packed"),
    (".weight_g_idx", ".weight_packed"),
    (".qscale_weight", ".weight"),
    (".scale_weight", ".weight"),
    (".SCB", ".weight"),
    (".absmax", ""),
    (".quant_map", ""),
    (".comfy_quant", ".weight"),
    (".W_q", ".scale"),
    (".weight._scale", ".weight._data"),
    (".weight._shift", ".weight._data._data"),
    ("_qdata", "_scale"),
    (".bitmask", ".compressed"),
    ("_scale_inv", ""),
];

/// What is told of parts that a reader of the weight alone would miss.
pub(super) fn told(module: &Module<'_>) -> impl Iterator<Item = QuantFinding> {
    let there = TOLD.iter().filter(|(part, _)| module.has(part));
    there.map(|(_, what)| QuantFinding::new(QuantFindingKind::Note, *what))
}

/// Of the tensors that no weight has taken, those that belong to a quantized model, and those that lack their weight.
pub(super) fn left_over(
    scene: &Scene<'_>,
    taken: &HashSet<String>,
) -> (Vec<String>, Vec<QuantFinding>) {
    let (mut companions, mut orphans) = (Vec::new(), Vec::new());
    for info in &scene.evidence.tensors {
        if taken.contains(info.name) {
            continue;
        }
        if COMPANIONS.iter().any(|suffix| info.name.ends_with(suffix)) {
            companions.push(info.name.to_owned());
        } else if let Some(finding) = orphan(scene, info.name, info.dtype) {
            orphans.push(finding);
        }
    }
    companions.sort_unstable();
    (companions, orphans)
}

fn orphan(scene: &Scene<'_>, name: &str, dtype: Dtype) -> Option<QuantFinding> {
    let found = PARTNERS
        .iter()
        .find_map(|(suffix, partner)| Some((name.strip_suffix(suffix)?, partner)));
    let (module, partner) = found.or_else(|| {
        // Layers of other kinds have a `scale`, too, but not a power of two.
        let module = name
            .strip_suffix(".scale")
            .filter(|_| dtype == Dtype::F8_E8M0)?;
        Some((module, &".weight"))
    })?;
    let partner = format!("{module}{partner}");
    let message = match scene.find(&partner) {
        None => format!("`{name}` is a part of a quantized weight, but there is no `{partner}`"),
        Some(info) => format!(
            "`{name}` is a part of a quantized weight, but `{partner}` is {} {:?}, which no scheme has beside it",
            info.dtype, info.shape
        ),
    };
    Some(QuantFinding::new(QuantFindingKind::Orphan, message).with_tensor(name))
}
