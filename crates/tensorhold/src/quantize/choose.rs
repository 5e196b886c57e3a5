//! Which tensors of a checkpoint are weights to quantize.

use std::collections::HashMap;

use tensorhold_core::{Dtype, Error, ErrorKind, Pattern, Result};

use super::scheme::QuantizeScheme;
use crate::checkpoint::{Checkpoint, Tensor};

/// Why a tensor stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// It is not called `*.weight`.
    Name,
    /// It has the weights of several experts, three dimensions of F32, BF16 or F16, which the format that is written has no place for.
    Experts,
    /// It does not have two dimensions.
    Shape,
    /// It is no F32, BF16 or F16.
    Dtype,
    /// It is called as embeddings, output layers, norms and routers are, which are left as they are unless they are included by name.
    Role,
    /// A pattern says that it is left.
    Ignored,
    /// Patterns say what is included, and it is not.
    NotIncluded,
}

impl Kept {
    /// The reason in a few words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Kept::Name => "no `.weight`",
            Kept::Experts => "the weights of several experts in one tensor",
            Kept::Shape => "not of two dimensions",
            Kept::Dtype => "no F32, BF16 or F16",
            Kept::Role => "an embedding, output layer, norm or router",
            Kept::Ignored => "ignored",
            Kept::NotIncluded => "not included",
        }
    }
}

/// What becomes of each tensor: quantized where `None`.
pub(super) fn choose(
    source: &Checkpoint,
    scheme: QuantizeScheme,
    include: &[String],
    ignore: &[String],
) -> Result<Vec<Option<Kept>>> {
    let include = Patterns::of(include);
    let ignore = Patterns::of(ignore);
    let chosen = source
        .tensors()
        .map(|tensor| {
            let unfit = unfit(&tensor).filter(|why| {
                *why != Kept::Experts || !takes_experts(scheme, source, tensor.info().name)
            });
            one(&tensor, unfit, &include, &ignore)
        })
        .collect::<Result<Vec<_>>>()?;
    include.require_used(source, "included")?;
    ignore.require_used(source, "ignored")?;
    require_pairs(source, &chosen)?;
    Ok(chosen)
}

fn one(
    tensor: &Tensor<'_>,
    unfit: Option<Kept>,
    include: &Patterns,
    ignore: &Patterns,
) -> Result<Option<Kept>> {
    let info = tensor.info();
    let is_included = include.match_any(info.name);
    Ok(match unfit {
        _ if ignore.match_any(info.name) => Some(Kept::Ignored),
        Some(Kept::Dtype) if is_included && info.shape.len() == 2 => {
            let message = format!(
                "a weight of type {} is not quantized: F32, BF16 and F16 are",
                info.dtype
            );
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return Err(tensor.file().blame(&info, error));
        }
        Some(why) => Some(why),
        None if is_included => None,
        None if !include.0.is_empty() => Some(Kept::NotIncluded),
        None if has_role(info.name) => Some(Kept::Role),
        None => None,
    })
}

fn unfit(tensor: &Tensor<'_>) -> Option<Kept> {
    let info = tensor.info();
    if has_experts(info.name, info.dtype, info.shape) {
        return Some(Kept::Experts);
    }
    if !info.name.ends_with(".weight") {
        return Some(Kept::Name);
    }
    if info.shape.len() != 2 || info.shape.contains(&0) {
        return Some(Kept::Shape);
    }
    match info.dtype {
        Dtype::F32 | Dtype::BF16 | Dtype::F16 => None,
        _ => Some(Kept::Dtype),
    }
}

/// Whether this holds the weights of several experts, as `experts.gate_up_proj` of Transformers 5 does.
fn has_experts(name: &str, dtype: Dtype, shape: &[u64]) -> bool {
    let is_float = matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16);
    let is_stack = matches!(shape, [_, rows, columns] if *rows > 1 && *columns > 1);
    let mut parts = name.split('.');
    is_float && is_stack && parts.any(|part| part.contains("expert") || part.contains("moe"))
}

/// Whether engines that read `scheme` find the weights of several experts where this tensor has them: those of Transformers 5, `[experts,
/// outputs, inputs]` without a bias, whose blocks end where an expert does.
fn takes_experts(scheme: QuantizeScheme, source: &Checkpoint, name: &str) -> bool {
    let QuantizeScheme::Fp8Finegrained { rows, .. } = scheme else {
        return false;
    };
    let Some(module) = experts_of(name) else {
        return false;
    };
    let find = |part: &str| source.find(&format!("{module}.{part}"));
    let shape = |part: &str| find(part).map(|tensor| tensor.info().shape.to_vec());
    let (Some(up), Some(down)) = (shape("gate_up_proj"), shape("down_proj")) else {
        return false;
    };
    let is_turned_so = match (&up[..], &down[..]) {
        (&[experts, both, inputs], &[others, outputs, inner]) => {
            experts == others && inputs == outputs && inner.checked_mul(2) == Some(both)
        }
        _ => false,
    };
    let is_whole = [&up, &down]
        .iter()
        .all(|shape| shape[1].is_multiple_of(rows));
    is_turned_so && is_whole && find("gate_up_proj_bias").is_none()
}

/// The module that holds these weights of experts, by the names of Transformers 5.
pub(super) fn experts_of(name: &str) -> Option<&str> {
    let (module, part) = name.rsplit_once('.')?;
    let is_part = matches!(part, "gate_up_proj" | "down_proj");
    (is_part && module.ends_with("experts")).then_some(module)
}

/// Refuses to quantize one half of experts and not the other.
fn require_pairs(source: &Checkpoint, chosen: &[Option<Kept>]) -> Result<()> {
    let experts = source.tensors().zip(chosen);
    let experts = experts.filter_map(|(tensor, kept)| {
        let name = tensor.info().name;
        let is_stack = tensor.info().shape.len() == 3;
        Some((experts_of(name).filter(|_| is_stack)?, kept.is_none()))
    });
    let mut found: HashMap<&str, bool> = HashMap::new();
    for (module, is_quantized) in experts {
        if *found.entry(module).or_insert(is_quantized) != is_quantized {
            let message = format!(
                "`gate_up_proj` and `down_proj` of `{module}` are quantized together, or neither is"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
    }
    Ok(())
}

/// Whether a name is one of those that are left as they are in quantized models.
fn has_role(name: &str) -> bool {
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let last = module.rsplit('.').next().unwrap_or(module);
    // Further up, these are names of ordinary layers: `attention.output.dense`.
    matches!(last, "output" | "head" | "gate" | "classifier" | "score")
        || last.ends_with("_gate")
        || module.split('.').any(|part| {
            matches!(part, "lm_head" | "wte" | "wpe" | "router")
                || part.contains("embed")
                || part.contains("norm")
                || part.ends_with("_router")
                || part.starts_with("ln_")
        })
}

/// Patterns, as they were given.
struct Patterns(Vec<(String, Pattern)>);

impl Patterns {
    fn of(texts: &[String]) -> Patterns {
        Patterns(
            texts
                .iter()
                .map(|text| (text.clone(), Pattern::new(text)))
                .collect(),
        )
    }

    fn match_any(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(_, pattern)| pattern.depth(name).is_some())
    }

    /// Refuses a pattern that no tensor has: a slip of the pen quantizes what it should not.
    fn require_used(&self, source: &Checkpoint, what: &str) -> Result<()> {
        let unused = self.0.iter().find(|(_, pattern)| {
            !source
                .tensors()
                .any(|tensor| pattern.depth(tensor.info().name).is_some())
        });
        match unused {
            None => Ok(()),
            Some((text, _)) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("`{text}` is to be {what}, and no tensor is called so"),
            )
            .with_hint(
                "`*` stands for one part of a name between dots, `**` for any number of them",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tensorhold_core::Dtype;

    use super::{has_experts, has_role};

    #[test]
    fn stacks_of_experts_are_told_from_biases_and_convolutions() {
        let shape = [8, 64, 32];
        for name in [
            "model.layers.0.mlp.experts.gate_up_proj",
            "model.layers.0.mlp.experts.down_proj",
            "model.layers.0.block_sparse_moe.input_linear.weight",
        ] {
            assert!(has_experts(name, Dtype::BF16, &shape), "{name}");
        }
        let bias = "model.layers.0.mlp.experts.gate_up_proj_bias";
        assert!(!has_experts(bias, Dtype::BF16, &shape[..2]));
        let scales = "model.layers.0.mlp.experts.gate_up_proj_blocks";
        assert!(!has_experts(scales, Dtype::U8, &shape));
        assert!(!has_experts("encoder.conv1.weight", Dtype::BF16, &shape));
    }

    #[test]
    fn layers_are_told_from_embeddings_heads_and_routers() {
        for name in [
            "lm_head.weight",
            "output.weight",
            "model.embed_tokens.weight",
            "bert.embeddings.word_embeddings.weight",
            "transformer.wte.weight",
            "model.layers.0.mlp.gate.weight",
            "model.layers.0.mlp.shared_expert_gate.weight",
            "model.layers.0.mlp.router.weight",
            "transformer.blocks.0.ffn.router.layer.weight",
            "model.layers.0.input_layernorm.weight",
            "classifier.weight",
        ] {
            assert!(has_role(name), "{name}");
        }
        for name in [
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.experts.7.down_proj.weight",
            "bert.encoder.layer.0.attention.output.dense.weight",
            "bert.encoder.layer.0.output.dense.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "transformer.h.0.attn.c_attn.weight",
        ] {
            assert!(!has_role(name), "{name}");
        }
    }
}
