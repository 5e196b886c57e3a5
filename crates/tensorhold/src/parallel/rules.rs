//! Rules for the tensors of a checkpoint, some of which are parts of quantized weights.

use std::collections::HashMap;
use std::sync::OnceLock;

use tensorhold_core::{
    BoundRules, DeviceMesh, Error, ErrorKind, Held, ParallelRules, Placement, Result, Share,
    TensorInfo,
};
use tensorhold_quant::detect::{Layout, Quantization, QuantizedWeight};

use crate::checkpoint::Checkpoint;
use crate::quantized::{Piece, beside, held_beside};

/// Rules for the tensors of one checkpoint. What they say of each is looked up once for all ranks.
///
/// Rules name a quantized weight as it is called without quantization, and divide it as it is shaped then; a rank gets what that share
/// needs of its parts, which is a weight of its own.
#[derive(Debug)]
pub struct CheckpointRules<'a> {
    checkpoint: &'a Checkpoint,
    rules: BoundRules<'a>,
    /// In the order in which they are bound.
    subjects: Vec<Subject<'a>>,
    n_tensors: usize,
}

/// What rules name: a tensor, or a weight with the tensors that are its.
#[derive(Debug)]
struct Subject<'a> {
    name: &'a str,
    weight: Option<&'a QuantizedWeight>,
    tensors: Vec<Member<'a>>,
    /// Whether the groups of columns that a part names follow one another.
    follows: OnceLock<bool>,
}

/// A tensor, and what it is to the weight.
#[derive(Debug)]
struct Member<'a> {
    /// Its place in the result.
    number: usize,
    info: TensorInfo<'a>,
    role: Role<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Role<'a> {
    /// Nothing: it is the tensor that is named.
    Itself,
    /// A number that belongs to a quantized model: nobody's part.
    Companion,
    /// The part of this name.
    Part(&'a str),
    /// What lies beside it by this name.
    Beside(&'static str),
    /// Any part of a weight that is known by another name.
    Tied,
}

/// What a rank holds of a tensor, or of a weight as it is without quantization.
#[derive(Debug, Clone)]
pub struct NamedHeld<'a> {
    /// Its name.
    pub name: &'a str,
    /// The shape of all of it.
    pub shape: &'a [u64],
    /// The quantized weight that it is a part of.
    pub weight: Option<&'a QuantizedWeight>,
    /// What is held of it.
    pub held: Held,
}

impl<'a> NamedHeld<'a> {
    /// What is held of a tensor that is no part of a weight.
    fn of(name: &'a str, shape: &'a [u64], held: Held) -> NamedHeld<'a> {
        NamedHeld {
            name,
            shape,
            weight: None,
            held,
        }
    }
}

impl<'a> CheckpointRules<'a> {
    /// `rules` for the tensors of `checkpoint`, and for `tied`: names for tensors that are there by another.
    ///
    /// # Errors
    /// Those of [`ParallelRules::bind`] and of [`Checkpoint::quantization`]; `TensorNotFound` for a tied tensor that is not there.
    pub fn bind(
        checkpoint: &'a Checkpoint,
        rules: &'a ParallelRules,
        tied: &'a [(String, String)],
    ) -> Result<CheckpointRules<'a>> {
        let quantization = checkpoint.known_quantization()?;
        let mut subjects = subjects_of(checkpoint, quantization);
        let n_tensors = checkpoint.n_tensors();
        for (number, (name, stored)) in tied.iter().enumerate() {
            subjects.push(tied_subject(
                checkpoint,
                quantization,
                n_tensors + number,
                name,
                stored,
            )?);
        }
        let named = subjects
            .iter()
            .map(|subject| (subject.name, subject.shape()));
        let bound = rules.bind(named.collect());
        let first = quantization.weights.first();
        let bound = bound.map_err(|error| match first {
            Some(weight) if error.message().ends_with("names no tensor") => {
                named_otherwise(&error, weight)
            }
            _ => error,
        });
        Ok(CheckpointRules {
            checkpoint,
            rules: bound?,
            subjects,
            n_tensors: n_tensors + tied.len(),
        })
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> &DeviceMesh {
        self.rules.mesh()
    }

    /// What `rank` holds of each tensor of the checkpoint, in its order, and then of the tied ones; `None` for those of which it holds
    /// nothing.
    ///
    /// Headers are looked at, and, where a weight is cut along its inputs whose groups stand in a tensor, that tensor.
    ///
    /// # Errors
    /// `InvalidArgument` with the tensor or the weight if a placement does not suit it, or if a weight would be cut inside of a unit of
    /// its scheme, with the nearest cuts; with no tensor if there is no such rank. What is wrong with a weight that cannot be divided;
    /// `Unsupported` for a tied one that is quantized.
    pub fn held(&self, rank: u64) -> Result<Vec<Option<Held>>> {
        let mut held: Vec<Option<Held>> = vec![None; self.n_tensors];
        self.each(rank, &mut |member, _, found| {
            held[member.number] = Some(found)
        })?;
        Ok(held)
    }

    /// What `rank` holds, tensor by tensor.
    ///
    /// # Errors
    /// Those of [`held`](CheckpointRules::held).
    pub fn tensors(&self, rank: u64) -> Result<Vec<NamedHeld<'a>>> {
        let mut all: Vec<(usize, NamedHeld<'a>)> = Vec::new();
        self.each(rank, &mut |member, subject, held| {
            let name = match member.role {
                Role::Itself => subject.name,
                _ => member.info.name,
            };
            let is_part = matches!(member.role, Role::Part(_));
            let weight = subject.weight.filter(|_| is_part);
            let found = NamedHeld::of(name, member.info.shape, held);
            all.push((member.number, NamedHeld { weight, ..found }));
        })?;
        Ok(in_order(all))
    }

    /// What `rank` holds where weights are read as numbers: of each its share, which may be any, and the tensors that are no parts.
    ///
    /// # Errors
    /// Those of [`held`](CheckpointRules::held), but for cuts, all of which can be made.
    pub fn logical(&self, rank: u64) -> Result<Vec<NamedHeld<'a>>> {
        let coordinates = self.mesh().coordinates(rank)?;
        let mut all: Vec<(usize, NamedHeld<'a>)> = Vec::new();
        for (number, subject) in self.subjects.iter().enumerate() {
            if let Some(weight) = subject.weight {
                self.add_numbers(number, weight, &coordinates, &mut all)?;
                continue;
            }
            self.each_of(number, &coordinates, &mut |member, held| {
                all.push((
                    member.number,
                    NamedHeld::of(subject.name, member.info.shape, held),
                ));
            })?;
        }
        Ok(in_order(all))
    }

    /// Adds what is held of `weight`, which is subject `number`, and of what lies beside it.
    fn add_numbers(
        &self,
        number: usize,
        weight: &'a QuantizedWeight,
        coordinates: &[u64],
        all: &mut Vec<(usize, NamedHeld<'a>)>,
    ) -> Result<()> {
        if self.rules.placements_of(number, 2, coordinates).is_none() {
            return Ok(());
        }
        let shape = weight.logical_shape()?;
        let Some(whole) = self.rules.held_of(number, coordinates)? else {
            return Ok(());
        };
        let subject = &self.subjects[number];
        for Member { info, number, role } in &subject.tensors {
            if let Role::Beside(part) = role {
                let share = held_beside(part, info, shape, &whole.share);
                let held = Held {
                    share,
                    ..whole.clone()
                };
                all.push((*number, NamedHeld::of(info.name, info.shape, held)));
            }
        }
        let place = subject.tensors.first().map_or(0, |member| member.number);
        let found = NamedHeld::of(subject.name, shape, whole);
        all.push((
            place,
            NamedHeld {
                weight: Some(weight),
                ..found
            },
        ));
        Ok(())
    }

    fn each(&self, rank: u64, give: &mut dyn FnMut(&Member<'a>, &Subject<'a>, Held)) -> Result<()> {
        let coordinates = self.mesh().coordinates(rank)?;
        for (number, subject) in self.subjects.iter().enumerate() {
            self.each_of(number, &coordinates, &mut |member, held| {
                give(member, subject, held)
            })?;
        }
        Ok(())
    }

    /// What is held of each tensor of subject `number`.
    fn each_of(
        &self,
        number: usize,
        coordinates: &[u64],
        give: &mut dyn FnMut(&Member<'a>, Held),
    ) -> Result<()> {
        let subject = &self.subjects[number];
        let Some(held) = self.held_of(number, coordinates)? else {
            return Ok(());
        };
        let piece = self.piece(subject, &held)?;
        for member in &subject.tensors {
            let info = &member.info;
            let (share, rewritten) = match (member.role, &piece) {
                (Role::Itself | Role::Companion, _) => (held.share.clone(), None),
                (Role::Part(part), Some(piece)) => piece.held(part, info)?,
                (Role::Beside(part), _) => {
                    (held_beside(part, info, subject.shape(), &held.share), None)
                }
                _ => (Share::whole(info.shape), None),
            };
            let placements = held.placements.clone();
            give(
                member,
                Held {
                    placements,
                    share,
                    rewritten,
                },
            );
        }
        Ok(())
    }

    /// What is held of a weight, where that is not all of it.
    fn piece(&self, subject: &Subject<'a>, held: &Held) -> Result<Option<Piece<'a>>> {
        let Some(weight) = subject.weight else {
            return Ok(None);
        };
        if matches!(
            subject.tensors[..],
            [Member {
                role: Role::Tied,
                ..
            }]
        ) {
            return Err(refuse_tied(subject.name, weight));
        }
        if held.share.is_whole() {
            return Ok(None);
        }
        Piece::of(self.checkpoint, weight, &held.share, &subject.follows).map(Some)
    }

    /// What is held of what subject `number` is called.
    fn held_of(&self, number: usize, coordinates: &[u64]) -> Result<Option<Held>> {
        let subject = &self.subjects[number];
        let is_companion = matches!(
            subject.tensors[..],
            [Member {
                role: Role::Companion,
                ..
            }]
        );
        let unknown = subject
            .weight
            .filter(|weight| !matches!(weight.layout, Layout::Known(_)));
        if !is_companion && unknown.is_none() {
            return self.rules.held_of(number, coordinates);
        }
        // Most weights have two dimensions; a number has none.
        let n_dims = if is_companion { 0 } else { 2 };
        let Some(placements) = self.rules.placements_of(number, n_dims, coordinates) else {
            return Ok(None);
        };
        let is_divided = |placement: &Placement| placement.dim().is_some();
        if let (Some(weight), true) = (unknown, placements.iter().any(is_divided)) {
            weight.recipe()?;
        }
        let placements = placements.iter().map(|_| Placement::Replicate).collect();
        Ok(Some(Held {
            placements,
            share: Share::whole(subject.shape()),
            rewritten: None,
        }))
    }
}

impl<'a> Subject<'a> {
    /// What rules divide.
    fn shape(&self) -> &'a [u64] {
        let tensor = || {
            self.tensors
                .first()
                .map_or(&[][..], |member| member.info.shape)
        };
        self.weight
            .map_or_else(tensor, |weight| weight.shape().unwrap_or(&[]))
    }
}

/// What is held, by the places of the tensors.
fn in_order(mut all: Vec<(usize, NamedHeld<'_>)>) -> Vec<NamedHeld<'_>> {
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, held)| held).collect()
}

/// All tensors, those of a weight together, in the order in which the checkpoint has the first of each.
fn subjects_of<'a>(checkpoint: &'a Checkpoint, quantization: &'a Quantization) -> Vec<Subject<'a>> {
    let roles = roles_of(quantization);
    let mut subjects: Vec<Subject<'a>> = Vec::new();
    let mut of_weight: Vec<Option<usize>> = vec![None; quantization.weights.len()];
    for (number, tensor) in checkpoint.tensors().enumerate() {
        let info = tensor.info();
        let (weight, role) = match roles.get(info.name) {
            Some(&(weight, role)) => (weight, role),
            None => (None, Role::Itself),
        };
        let known = weight.and_then(|weight| of_weight[weight]);
        let at = known.unwrap_or(subjects.len());
        if at == subjects.len() {
            let weight = weight.map(|weight: usize| {
                of_weight[weight] = Some(at);
                &quantization.weights[weight]
            });
            subjects.push(Subject {
                name: weight.map_or(info.name, |weight| &weight.name),
                weight,
                tensors: Vec::new(),
                follows: OnceLock::new(),
            });
        }
        // A companion of several numbers, such as one for each head, is a tensor as any other.
        let role = match role {
            Role::Companion if info.shape.iter().any(|size| *size != 1) => Role::Itself,
            role => role,
        };
        subjects[at].tensors.push(Member { number, info, role });
    }
    subjects
}

/// By the names of tensors, what they are to which weight.
fn roles_of(quantization: &Quantization) -> HashMap<String, (Option<usize>, Role<'_>)> {
    let mut roles = HashMap::new();
    for (number, weight) in quantization.weights.iter().enumerate() {
        for (part, name) in beside(weight) {
            roles.insert(name, (Some(number), Role::Beside(part)));
        }
        for (part, name) in &weight.parts {
            roles.insert(name.clone(), (Some(number), Role::Part(part)));
        }
    }
    for name in &quantization.companions {
        roles.entry(name.clone()).or_insert((None, Role::Companion));
    }
    roles
}

fn tied_subject<'a>(
    checkpoint: &'a Checkpoint,
    quantization: &'a Quantization,
    number: usize,
    name: &'a str,
    stored: &str,
) -> Result<Subject<'a>> {
    let weight = quantization.find(stored);
    let part = weight.and_then(|weight| weight.parts.values().next());
    let info = checkpoint.tensor(part.map_or(stored, |part| part))?.info();
    let role = weight.map_or(Role::Itself, |_| Role::Tied);
    Ok(Subject {
        name,
        weight,
        tensors: vec![Member { number, info, role }],
        follows: OnceLock::new(),
    })
}

/// A weight that is held under another name than its own has parts that have no names.
fn refuse_tied(name: &str, weight: &QuantizedWeight) -> Error {
    let message = format!("it is tied to `{}`, which is quantized", weight.name);
    let error = Error::new(ErrorKind::Unsupported, message).with_tensor(name);
    error.with_hint("load with `dequantize=True`, or the weight under its own name")
}

/// An error of a rule that names nothing, where there are names that are not those of tensors.
fn named_otherwise(error: &Error, weight: &QuantizedWeight) -> Error {
    let hint = format!(
        "quantized weights are named as without quantization, such as `{}`; `tensorhold inspect` lists all names",
        weight.name
    );
    Error::new(error.kind(), error.message().to_owned()).with_hint(hint)
}
