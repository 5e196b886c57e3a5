//! What was found: quantized weights, and what is worth knowing about them.

use core::fmt;
use std::collections::BTreeMap;

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::name::SchemeName;
use crate::scheme::{Need, Recipe, Sparse, Window};

/// A quantized weight of a checkpoint: what it is called, what it means, and the tensors that hold it.
#[derive(Debug)]
pub struct QuantizedWeight {
    /// The name that the weight has in a checkpoint that is not quantized, such as `model.layers.0.mlp.down_proj.weight`.
    pub name: String,
    /// What it is written in.
    pub scheme: SchemeName,
    /// What its values are given as where nothing else is asked for: `BF16`, `F16` or `F32`, or the type of the values of a weight whose
    /// zeros alone are left out.
    pub dtype: Dtype,
    /// Where that is said.
    pub dtype_from: DtypeFrom,
    /// What the parts mean, or why that cannot be said.
    pub layout: Layout,
    /// The tensors, by what the recipe calls them: `qweight` is `model.layers.0.mlp.down_proj.qweight`.
    ///
    /// Those that no recipe needs, such as scales of activations, are here too.
    pub parts: BTreeMap<String, String>,
    /// What the configuration and the tensors say differently, and what else is odd, each with its evidence.
    pub findings: Vec<QuantFinding>,
}

/// What the parts of a weight mean.
#[derive(Debug)]
pub enum Layout {
    /// Enough is known to compute it.
    Known(Recipe),
    /// Enough is known to compute it, once its zeros are put back.
    Sparse(Sparse),
    /// It is known what it is, but not read: why.
    Opaque(String),
    /// Its parts do not suit each other, some are missing, or they can be read in two ways.
    Broken(Error),
}

/// Where the type of a weight's values is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DtypeFrom {
    /// By the weight itself.
    Weight,
    /// By the configuration.
    Config,
    /// By the type of the weight's scales.
    Scales,
    /// Nowhere: it is the type in which values are computed.
    Nowhere,
}

impl QuantizedWeight {
    /// Whether more is done to it than that its zeros are left out.
    pub(super) fn is_quantized(&self) -> bool {
        match &self.layout {
            Layout::Sparse(sparse) => sparse.recipe().is_some(),
            Layout::Known(_) | Layout::Opaque(_) | Layout::Broken(_) => true,
        }
    }

    /// The shape of the weight, where its layout is known.
    #[must_use]
    pub fn shape(&self) -> Option<&[u64]> {
        self.logical_shape().ok()
    }

    /// The shape of the weight.
    ///
    /// # Errors
    /// `Unsupported` for a weight that is not read, and what is wrong with one that is broken, with its name.
    pub fn logical_shape(&self) -> Result<&[u64]> {
        match &self.layout {
            Layout::Known(recipe) => Ok(&recipe.shape),
            Layout::Sparse(sparse) => Ok(sparse.shape()),
            Layout::Opaque(_) | Layout::Broken(_) => self.recipe().map(|recipe| &*recipe.shape),
        }
    }

    /// All of the weight.
    ///
    /// # Errors
    /// Those of [`logical_shape`](QuantizedWeight::logical_shape).
    pub fn whole(&self) -> Result<Window> {
        match &self.layout {
            Layout::Sparse(sparse) => Ok(sparse.whole()),
            _ => Ok(self.recipe()?.whole()),
        }
    }

    /// What of each part `window` needs, in the order of [`Recipe::needs`] or [`Sparse::needs`].
    ///
    /// # Errors
    /// Those of [`logical_shape`](QuantizedWeight::logical_shape) and of [`Recipe::needs`].
    pub fn needs(&self, window: &Window) -> Result<Vec<Need>> {
        let needs = match &self.layout {
            Layout::Sparse(sparse) => sparse.needs(window),
            _ => self.recipe()?.needs(window),
        };
        needs.map_err(|error| error.with_tensor(&*self.name))
    }

    /// What its parts mean.
    ///
    /// # Errors
    /// `Unsupported` for a weight that is not read, or whose zeros are left out, and what is wrong with one that is broken, with its name.
    pub fn recipe(&self) -> Result<&Recipe> {
        match &self.layout {
            Layout::Known(recipe) => Ok(recipe),
            Layout::Sparse(_) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "a weight in {} is not taken as it lies in the file: its zeros are left out",
                    self.scheme
                ),
            )
            .with_tensor(&*self.name)
            .with_hint("take it as numbers: `dequantize=True`")),
            Layout::Opaque(why) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("a weight in {} is not read: {why}", self.scheme),
            )
            .with_tensor(&*self.name)),
            Layout::Broken(error) => Err(copy(error).with_tensor(&*self.name)),
        }
    }
}

/// The same error once more, without what caused it.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned());
    if let Some(file) = error.file() {
        copy = copy.with_file(file);
    }
    if let Some(tensor) = error.tensor() {
        copy = copy.with_tensor(tensor);
    }
    if let Some(hint) = error.hint() {
        copy = copy.with_hint(hint.to_owned());
    }
    copy
}

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum QuantFindingKind {
    /// The configuration says one thing and the tensors another; the tensors are followed.
    Conflict,
    /// The configuration leaves something open, and what programs take for granted was taken.
    Assumed,
    /// Something about the weight that its values do not show, such as a scale for its inputs.
    Note,
    /// A tensor that only a quantized weight has, without the weight.
    Orphan,
    /// The configuration asks for something that no tensor shows.
    Unused,
    /// The configuration has a key or a value that is not known.
    UnknownConfig,
    /// Something is wrong with a part.
    Wrong,
}

impl QuantFindingKind {
    /// One word for it, such as `conflict`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            QuantFindingKind::Conflict => "conflict",
            QuantFindingKind::Assumed => "assumed",
            QuantFindingKind::Note => "note",
            QuantFindingKind::Orphan => "orphan",
            QuantFindingKind::Unused => "unused",
            QuantFindingKind::UnknownConfig => "unknown config",
            QuantFindingKind::Wrong => "wrong",
        }
    }

    /// Whether a checkpoint with it is not as it must be.
    #[must_use]
    pub const fn is_wrong(self) -> bool {
        matches!(self, QuantFindingKind::Orphan | QuantFindingKind::Wrong)
    }
}

/// One thing that is worth knowing about a quantized weight or checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuantFinding {
    /// What kind of thing it is.
    pub kind: QuantFindingKind,
    /// What it is, with its evidence, as a sentence without a stop.
    pub message: String,
    /// The tensor that shows it.
    pub tensor: Option<String>,
}

impl QuantFinding {
    /// A finding that says `message`.
    #[must_use]
    pub fn new(kind: QuantFindingKind, message: impl Into<String>) -> QuantFinding {
        QuantFinding {
            kind,
            message: message.into(),
            tensor: None,
        }
    }

    /// Says which tensor shows it.
    #[must_use]
    pub fn with_tensor(mut self, name: impl Into<String>) -> QuantFinding {
        self.tensor = Some(name.into());
        self
    }
}

impl fmt::Display for QuantFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

/// What of a checkpoint is quantized.
#[derive(Debug, Default)]
pub struct Quantization {
    /// The quantized weights, by name in ascending order, each name once.
    pub weights: Vec<QuantizedWeight>,
    /// Tensors that belong to the quantization and to no weight, such as scales of caches, in ascending order.
    pub companions: Vec<String>,
    /// What is worth knowing about the checkpoint as a whole.
    pub findings: Vec<QuantFinding>,
    /// Where its configuration stands, such as ``config.json, `quantization_config` ``; none where there is none.
    pub config: Option<String>,
}

impl Quantization {
    /// Whether nothing is quantized, and nothing says that it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty() && self.findings.is_empty()
    }

    /// The quantized weight of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&QuantizedWeight> {
        let place = self
            .weights
            .binary_search_by(|weight| (*weight.name).cmp(name));
        self.weights.get(place.ok()?)
    }

    /// The names of all tensors that a checkpoint without quantization would not have, or would have as weights.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let parts = self.weights.iter().flat_map(|weight| weight.parts.values());
        parts.chain(&self.companions).map(String::as_str)
    }
}
