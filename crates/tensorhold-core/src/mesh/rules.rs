//! Rules by name: which ranks hold what of each tensor.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;
use core::ops::Range;

use super::DeviceMesh;
use super::lookup::Lookup;
use super::pattern::Pattern;
use super::placement::Placement;
use super::share::Share;
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
    /// The integers that it has in place of those that lie there, where what they say of the whole is another for the part.
    pub rewritten: Option<Vec<i64>>,
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

    /// The rules as they are for `tensors`, given by name and shape.
    ///
    /// # Errors
    /// `InvalidArgument` with the tensor if, where that is refused, no rule names it; with the rule, if it names no tensor, or if
    /// layers or experts are more or fewer than it has numbers for.
    pub fn bind<'a>(&'a self, tensors: Vec<(&'a str, &'a [u64])>) -> Result<BoundRules<'a>> {
        let n_axes = self.mesh.axes().len();
        let mut counts = vec![None; self.rules.len()];
        let lookup = Lookup::new(self.rules.iter().map(|rule| &rule.pattern));
        let mut closest = Vec::with_capacity(tensors.len() * n_axes);
        for &(name, _) in &tensors {
            let mut of_axes: Vec<Option<Named>> = vec![None; n_axes];
            for number in lookup.candidates(name) {
                let rule = &self.rules[number];
                let Some(named) = rule.names(number, name) else {
                    continue;
                };
                let seen = named.number.map_or(0, |number| number + 1);
                counts[number] = Some(seen.max(counts[number].unwrap_or(0)));
                let best = &mut of_axes[rule.axis];
                if best.is_none_or(|best| named.closeness() > best.closeness()) {
                    *best = Some(named);
                }
            }
            let is_matched = of_axes.iter().any(Option::is_some);
            if !is_matched && self.unmatched == Unmatched::Refuse {
                return Err(invalid("no rule names it".to_string()).with_tensor(name));
            }
            closest.extend(of_axes);
        }
        Ok(BoundRules {
            rules: self,
            counts: self.check(counts)?,
            tensors,
            closest,
        })
    }

    /// What `rank` holds of each of `tensors`, given by name and shape; `None` for those of which it holds nothing.
    ///
    /// # Errors
    /// Those of [`bind`](ParallelRules::bind) and of [`BoundRules::held`].
    pub fn held<'a>(
        &self,
        rank: u64,
        tensors: impl IntoIterator<Item = (&'a str, &'a [u64])>,
    ) -> Result<Vec<Option<Held>>> {
        self.bind(tensors.into_iter().collect())?.held(rank)
    }

    /// For each rule the number of layers or experts that it names, which are to be as many as it has numbers for.
    fn check(&self, counts: Vec<Option<u64>>) -> Result<Vec<u64>> {
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
}

/// Rules for the tensors of one checkpoint: what they say of each is looked up once for all ranks.
#[derive(Debug, Clone)]
pub struct BoundRules<'a> {
    rules: &'a ParallelRules,
    /// By rule, the number of layers or experts.
    counts: Vec<u64>,
    tensors: Vec<(&'a str, &'a [u64])>,
    /// By tensor and axis, the rule that names it most closely.
    closest: Vec<Option<Named>>,
}

/// A rule that names a tensor.
#[derive(Debug, Clone, Copy)]
struct Named {
    rule: usize,
    /// How many parts of the name its pattern takes.
    depth: usize,
    /// The number of the layer or expert.
    number: Option<u64>,
}

impl Named {
    /// More for the rule that counts.
    fn closeness(self) -> (usize, Reverse<usize>) {
        (self.depth, Reverse(self.rule))
    }
}

impl BoundRules<'_> {
    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> &DeviceMesh {
        &self.rules.mesh
    }

    /// What `rank` holds of each tensor; `None` for those of which it holds nothing.
    ///
    /// # Errors
    /// `InvalidArgument` with the tensor if a placement does not suit it, or if there is no such rank.
    pub fn held(&self, rank: u64) -> Result<Vec<Option<Held>>> {
        let coordinates = self.mesh().coordinates(rank)?;
        (0..self.tensors.len())
            .map(|number| self.held_of(number, &coordinates))
            .collect()
    }

    /// What the rank at `coordinates` holds of tensor `number`; `None` if it holds nothing.
    ///
    /// # Errors
    /// `InvalidArgument` with the tensor if a placement does not suit it.
    ///
    /// # Panics
    /// If there is no such tensor, or if the mesh has other axes.
    pub fn held_of(&self, number: usize, coordinates: &[u64]) -> Result<Option<Held>> {
        let (name, shape) = self.tensors[number];
        let Some(placements) = self.placements_of(number, shape.len(), coordinates) else {
            return Ok(None);
        };
        let mut share = Share::whole(shape);
        let axes = self.mesh().axes().iter().zip(coordinates);
        for (placement, (axis, &rank)) in placements.iter().zip(axes) {
            let divided = share.divide(placement, axis.size, rank);
            divided.map_err(|error| error.with_tensor(name))?;
        }
        Ok(Some(Held {
            placements,
            share,
            rewritten: None,
        }))
    }

    /// What each axis does to tensor `number`, if it had so many dimensions, for the rank at `coordinates`; `None` if that holds
    /// nothing of it.
    ///
    /// # Panics
    /// If there is no such tensor, or if the mesh has other axes.
    #[must_use]
    pub fn placements_of(
        &self,
        number: usize,
        n_dims: usize,
        coordinates: &[u64],
    ) -> Option<Vec<Placement>> {
        let axes = self.mesh().axes();
        assert_eq!(axes.len(), coordinates.len(), "a coordinate for each axis");
        let (name, _) = self.tensors[number];
        let closest = &self.closest[number * axes.len()..][..axes.len()];
        let seats = axes.iter().zip(coordinates);
        closest
            .iter()
            .zip(seats)
            .map(|(named, (axis, &rank))| {
                let Some(named) = named else {
                    return Some(Placement::Replicate);
                };
                let (rule, count) = (&self.rules.rules[named.rule], self.counts[named.rule]);
                let seat = Seat {
                    n_ranks: axis.size,
                    rank,
                };
                match rule.verdict(name, n_dims, named.number, count, seat) {
                    Verdict::Not => None,
                    Verdict::Held(placement) => Some(placement),
                }
            })
            .collect()
    }
}

/// One of the ranks along an axis.
#[derive(Debug, Clone, Copy)]
struct Seat {
    n_ranks: u64,
    rank: u64,
}

/// What a rule says to one rank along its axis.
enum Verdict {
    Not,
    Held(Placement),
}

impl Rule {
    /// Whether, and how closely, rule number `rule` names the tensor.
    fn names(&self, rule: usize, name: &str) -> Option<Named> {
        let (depth, rest) = self.pattern.matched(name)?;
        let is_numbered = matches!(self.style, Style::Stages(_) | Style::Experts(_));
        let number = match is_numbered {
            true => Some(number(rest)?),
            false => None,
        };
        Some(Named {
            rule,
            depth,
            number,
        })
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

    fn verdict(
        &self,
        name: &str,
        n_dims: usize,
        number: Option<u64>,
        count: u64,
        seat: Seat,
    ) -> Verdict {
        let is = |holds: bool| match holds {
            true => Verdict::Held(Placement::Replicate),
            false => Verdict::Not,
        };
        let Seat { n_ranks, rank } = seat;
        match &self.style {
            Style::Stages(counts) => {
                let stage = stage(counts.as_deref(), count, n_ranks, rank);
                is(number.is_some_and(|layer| stage.contains(&layer)))
            }
            Style::Experts(Some(lists)) => {
                let list = usize::try_from(rank).ok().and_then(|rank| lists.get(rank));
                is(number
                    .zip(list)
                    .is_some_and(|(expert, list)| list.contains(&expert)))
            }
            Style::Experts(None) => {
                let size = count.div_ceil(n_ranks).max(1);
                is(number.is_some_and(|expert| expert / size == rank))
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
