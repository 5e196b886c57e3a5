//! Rules by name: which ranks hold what of each tensor.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::pattern::Pattern;
use super::placement::Placement;
use super::share::Share;
use super::{DeviceMesh, MeshAxis};
use crate::error::{Error, ErrorKind, Result};

/// What a rule says of the tensors of a module, or of one tensor.
///
/// The first seven are styles of tensor parallelism by the names that Hugging Face's `tp_plan` has for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Style {
    /// `colwise`: the outputs of a linear layer; dimension 0 of its weight and of its bias, the last but one of stacked weights.
    Colwise,
    /// `rowwise`: its inputs; the last dimension of the weight. Each rank has all of a bias.
    Rowwise,
    /// `packed_colwise`: as `colwise`, of two matrices in one.
    PackedColwise,
    /// `packed_rowwise`: as `rowwise`, of two matrices in one.
    PackedRowwise,
    /// `embedding_rowwise`: the vocabulary, dimension 0.
    EmbeddingRowwise,
    /// `embedding_colwise`: dimension 1 of an embedding.
    EmbeddingColwise,
    /// Each rank has all of it.
    Replicate,
    /// This placement.
    Place(Placement),
    /// The part of the name behind the pattern begins with the number of a layer: the stages of a pipeline have ranges of layers, so
    /// many each, or, where no numbers are given, as many each, and the last stage the rest.
    Stages(Option<Vec<u64>>),
    /// The first stage of a pipeline has it.
    FirstStage,
    /// The last stage has it.
    LastStage,
    /// The part of the name behind the pattern begins with the number of an expert: the ranks have ranges of experts, or these lists.
    Experts(Option<Vec<Vec<u64>>>),
}

/// What becomes of a tensor that no rule of tensor parallelism names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmatched {
    /// Each rank has all of it.
    #[default]
    Replicate,
    /// It is refused.
    Refuse,
}

/// Which ranks hold what, by patterns of names, along the axes of a mesh.
///
/// For each axis the rule counts that names the tensor most closely, of several the first.
///
/// ```
/// use tensorhold_core::{DeviceMesh, ParallelRules, Pattern, Style};
///
/// let mut rules = ParallelRules::new("tp=2".parse()?);
/// rules.add(Pattern::new("layers.*.down_proj"), "tp", Style::Rowwise)?;
/// let tensors = [("layers.0.down_proj.weight", &[4, 6][..]), ("norm.weight", &[4])];
/// let held = rules.held(1, tensors.into_iter())?;
/// assert_eq!(held[0].as_ref().map(|held| held.share.shape()), Some(vec![4, 3]));
/// assert!(held[1].as_ref().is_some_and(|held| held.share.is_whole()));
/// # Ok::<(), tensorhold_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ParallelRules {
    mesh: DeviceMesh,
    rules: Vec<Rule>,
    unmatched: Unmatched,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    axis: usize,
    style: Style,
}

/// What a rank holds of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Along each axis of the mesh, how it came to that.
    pub placements: Vec<Placement>,
    /// Which part that is.
    pub share: Share,
}

impl ParallelRules {
    /// Rules for the ranks of `mesh`: none yet, each rank has everything.
    #[must_use]
    pub fn new(mesh: DeviceMesh) -> ParallelRules {
        ParallelRules {
            mesh,
            rules: Vec::new(),
            unmatched: Unmatched::default(),
        }
    }

    /// The same with tensors that no rule names treated so.
    #[must_use]
    pub fn with_unmatched(mut self, unmatched: Unmatched) -> ParallelRules {
        self.unmatched = unmatched;
        self
    }

    /// Adds what `style` says of the tensors that `pattern` names, along an axis.
    ///
    /// # Errors
    /// `InvalidArgument` if the mesh has no such axis, or if the style has numbers for another number of ranks.
    pub fn add(&mut self, pattern: Pattern, axis: &str, style: Style) -> Result<()> {
        let Some(number) = self.mesh.axis(axis) else {
            let message = format!("rule `{pattern}` is for axis `{axis}`, which the mesh has not");
            return Err(invalid(message).with_hint(format!("the mesh is {}", self.mesh)));
        };
        let n_ranks = self.mesh.axes()[number].size;
        let n_given = match &style {
            Style::Stages(Some(counts)) => Some(counts.len()),
            Style::Experts(Some(lists)) => Some(lists.len()),
            _ => None,
        };
        if let Some(n_given) = n_given.filter(|&n_given| n_given as u64 != n_ranks) {
            return Err(invalid(format!(
                "rule `{pattern}` has numbers for {n_given} ranks, but axis `{axis}` has {n_ranks}"
            )));
        }
        self.rules.push(Rule {
            pattern,
            axis: number,
            style,
        });
        Ok(())
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> &DeviceMesh {
        &self.mesh
    }

    /// What `rank` holds of each of `tensors`, given by name and shape; `None` for those of which it holds nothing.
    ///
    /// # Errors
    /// `InvalidArgument` with the tensor if a placement does not suit it or, where that is refused, no rule names it; with the
    /// rule, if it names no tensor; if layers or experts of a rule are more or fewer than it has numbers for; or if there is
    /// no such rank.
    pub fn held<'a>(
        &self,
        rank: u64,
        tensors: impl Iterator<Item = (&'a str, &'a [u64])> + Clone,
    ) -> Result<Vec<Option<Held>>> {
        let coordinates = self.mesh.coordinates(rank)?;
        let numbered = self.count(tensors.clone().map(|(name, _)| name))?;
        tensors
            .map(|(name, shape)| {
                let held = self.held_of(name, shape, &coordinates, &numbered);
                held.map_err(|error| error.with_tensor(name))
            })
            .collect()
    }

    /// For each rule the number of layers or experts that it names; those of which a rule names none are refused.
    fn count<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<u64>> {
        let mut counts = alloc::vec![None; self.rules.len()];
        for name in names {
            for (rule, count) in self.rules.iter().zip(&mut counts) {
                let Some(rest) = rule.pattern.rest(name) else {
                    continue;
                };
                let seen = match rule.style {
                    Style::Stages(_) | Style::Experts(_) => match number(rest) {
                        Some(number) => number + 1,
                        None => continue,
                    },
                    _ => 0,
                };
                *count = Some(seen.max(count.unwrap_or(0)));
            }
        }
        let numbered = self.rules.iter().zip(counts);
        numbered
            .map(|(rule, count)| {
                let count = count.ok_or_else(|| {
                    invalid(format!("rule `{}` names no tensor", rule.pattern))
                        .with_hint("look at the names with `tensorhold inspect`".to_string())
                })?;
                rule.check(count)?;
                Ok(count)
            })
            .collect()
    }

    fn held_of(
        &self,
        name: &str,
        shape: &[u64],
        coordinates: &[u64],
        counts: &[u64],
    ) -> Result<Option<Held>> {
        let mut placements = Vec::with_capacity(coordinates.len());
        let mut share = Share::whole(shape);
        let mut is_matched = false;
        for (axis, (&rank, &MeshAxis { size, .. })) in
            coordinates.iter().zip(self.mesh.axes()).enumerate()
        {
            let mut placement = Placement::Replicate;
            if let Some((rule, count)) = self.closest(axis, name, counts) {
                is_matched = true;
                match rule.verdict(name, shape.len(), count, size, rank) {
                    Verdict::Not => return Ok(None),
                    Verdict::Held(by) => placement = by,
                }
            }
            share.divide(&placement, size, rank)?;
            placements.push(placement);
        }
        if !is_matched && self.unmatched == Unmatched::Refuse {
            return Err(invalid("no rule names it".to_string()));
        }
        Ok(Some(Held { placements, share }))
    }

    /// The rule of this axis that names the tensor most closely, and its number of layers or experts.
    fn closest(&self, axis: usize, name: &str, counts: &[u64]) -> Option<(&Rule, u64)> {
        let of_axis = self.rules.iter().zip(counts);
        let depth = |(rule, &count): (_, &u64)| {
            let rule: &Rule = rule;
            let depth = rule.pattern.depth(name)?;
            Some((depth, rule, count))
        };
        let named = of_axis
            .filter(|(rule, _)| rule.axis == axis && rule.speaks_of(name))
            .filter_map(depth);
        let closest = named.reduce(|best, next| if next.0 > best.0 { next } else { best });
        closest.map(|(_, rule, count)| (rule, count))
    }
}

/// What a rule says to one rank along its axis.
enum Verdict {
    Not,
    Held(Placement),
}

impl Rule {
    /// Whether what the rule says holds for the tensor, if its pattern does.
    fn speaks_of(&self, name: &str) -> bool {
        match self.style {
            Style::Stages(_) | Style::Experts(_) => {
                self.pattern.rest(name).and_then(number).is_some()
            }
            _ => true,
        }
    }

    fn check(&self, count: u64) -> Result<()> {
        let Rule { pattern, style, .. } = self;
        match style {
            Style::Stages(Some(counts)) => {
                let total = counts.iter().copied().fold(0u64, u64::saturating_add);
                if total != count {
                    return Err(invalid(format!(
                        "rule `{pattern}` divides {total} layers, but there are {count}"
                    )));
                }
            }
            Style::Experts(Some(lists)) => {
                let mut owners: BTreeMap<u64, usize> = BTreeMap::new();
                for &expert in lists.iter().flatten() {
                    *owners.entry(expert).or_default() += 1;
                }
                let lost = (0..count).find(|expert| !owners.contains_key(expert));
                if let Some(lost) = lost {
                    return Err(invalid(format!(
                        "rule `{pattern}` gives expert {lost} to no rank"
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn verdict(&self, name: &str, n_dims: usize, count: u64, n_ranks: u64, rank: u64) -> Verdict {
        let is = |holds: bool| match holds {
            true => Verdict::Held(Placement::Replicate),
            false => Verdict::Not,
        };
        let numbered = || self.pattern.rest(name).and_then(number);
        match &self.style {
            Style::Stages(counts) => {
                let stage = stage(counts.as_deref(), count, n_ranks, rank);
                is(numbered().is_some_and(|layer| stage.contains(&layer)))
            }
            Style::Experts(Some(lists)) => {
                let list = usize::try_from(rank).ok().and_then(|rank| lists.get(rank));
                is(numbered()
                    .zip(list)
                    .is_some_and(|(expert, list)| list.contains(&expert)))
            }
            Style::Experts(None) => {
                let size = count.div_ceil(n_ranks).max(1);
                is(numbered().is_some_and(|expert| expert / size == rank))
            }
            Style::FirstStage => is(rank == 0),
            Style::LastStage => is(rank + 1 == n_ranks),
            _ => Verdict::Held(self.style.placement(name, n_dims)),
        }
    }
}

impl Style {
    /// The style that a `tp_plan` calls `name`. Styles that say how a module computes and leave its tensors whole are `Replicate`.
    ///
    /// # Source
    /// transformers 5.23, `distributed/tensor_parallel.py` and `distributed/expert_parallel.py`.
    #[must_use]
    pub fn named(name: &str) -> Option<Style> {
        Some(match name {
            "colwise" | "colwise_rep" | "colwise_gather_output" => Style::Colwise,
            "rowwise" | "rowwise_rep" | "rowwise_split_input" => Style::Rowwise,
            "packed_colwise" => Style::PackedColwise,
            "packed_rowwise" => Style::PackedRowwise,
            "embedding_rowwise" => Style::EmbeddingRowwise,
            "embedding_colwise" => Style::EmbeddingColwise,
            "grouped_gemm" => Style::Place(Placement::Shard { dim: 0 }),
            "replicate"
            | "sequence_parallel"
            | "replicated_with_grad_allreduce"
            | "mla_kv_a_proj"
            | "all_reduce"
            | "moe_tp_experts"
            | "moe_identity_expert"
            | "local_params"
            | "ep_dispatch_experts" => Style::Replicate,
            "stages" => Style::Stages(None),
            "first_stage" => Style::FirstStage,
            "last_stage" => Style::LastStage,
            "experts" => Style::Experts(None),
            _ => return None,
        })
    }

    /// What programs call the axis of a mesh that such a rule is for.
    #[must_use]
    pub fn usual_axis(&self) -> &'static str {
        match self {
            Style::Stages(_) | Style::FirstStage | Style::LastStage => "pp",
            Style::Experts(_) => "ep",
            _ => "tp",
        }
    }

    /// What it does to the tensor called `name` with so many dimensions.
    fn placement(&self, name: &str, n_dims: usize) -> Placement {
        let rank = n_dims as i64;
        let is_vector = n_dims <= 1;
        let is_bias = name.rsplit('.').next() == Some("bias");
        match self {
            // A tensor without dimensions, such as the scale of a quantized weight, is nobody's part.
            Style::Place(placement) => placement.clone(),
            _ if n_dims == 0 => Placement::Replicate,
            Style::Colwise | Style::PackedColwise if is_vector => Placement::Shard { dim: -1 },
            Style::Colwise => Placement::Shard { dim: rank - 2 },
            Style::PackedColwise => Placement::StridedShard {
                dim: rank - 2,
                split_factor: 2,
            },
            Style::Rowwise if is_bias => Placement::Replicate,
            Style::Rowwise => Placement::Shard { dim: -1 },
            Style::PackedRowwise if is_vector => Placement::Replicate,
            Style::PackedRowwise => Placement::StridedShard {
                dim: -1,
                split_factor: 2,
            },
            Style::EmbeddingRowwise => Placement::Shard { dim: 0 },
            Style::EmbeddingColwise => Placement::Shard { dim: 1 },
            _ => Placement::Replicate,
        }
    }
}

/// The layers of one stage.
fn stage(counts: Option<&[u64]>, n_layers: u64, n_stages: u64, stage: u64) -> Range<u64> {
    match counts {
        Some(counts) => {
            let mut start = 0u64;
            for (number, &count) in counts.iter().enumerate() {
                if number as u64 == stage {
                    return start..start.saturating_add(count);
                }
                start = start.saturating_add(count);
            }
            0..0
        }
        None => {
            let each = n_layers / n_stages;
            let end = match stage + 1 == n_stages {
                true => n_layers,
                false => (stage + 1) * each,
            };
            stage * each..end
        }
    }
}

/// The number that the part of a name begins with, as in `11.mlp.weight`.
fn number(rest: &str) -> Option<u64> {
    let first = rest.split('.').next()?;
    let is_plain = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    first
        .parse()
        .ok()
        .filter(|&number: &u64| is_plain && number < 1 << 32)
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = match self {
            Style::Place(placement) => return write!(f, "{placement}"),
            Style::Colwise => "colwise".into(),
            Style::Rowwise => "rowwise".into(),
            Style::PackedColwise => "packed_colwise".into(),
            Style::PackedRowwise => "packed_rowwise".into(),
            Style::EmbeddingRowwise => "embedding_rowwise".into(),
            Style::EmbeddingColwise => "embedding_colwise".into(),
            Style::Replicate => "replicate".into(),
            Style::Stages(_) => "stages".into(),
            Style::FirstStage => "first_stage".into(),
            Style::LastStage => "last_stage".into(),
            Style::Experts(_) => "experts".into(),
        };
        f.write_str(&text)
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
