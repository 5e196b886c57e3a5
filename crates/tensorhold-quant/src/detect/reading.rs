//! What a reader says of the parts that it was shown.

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::name::SchemeName;
use super::weight::{Layout, QuantFinding, QuantFindingKind};
use crate::scheme::Recipe;

/// What the parts of a module are.
pub(super) struct Reading {
    pub scheme: SchemeName,
    pub layout: Layout,
    /// The parts that are taken, where there are such.
    pub parts: &'static [&'static str],
    /// What the name of the weight ends in, after that of the module.
    pub suffix: &'static str,
    /// The name of the weight where it is made in another way.
    pub name: Option<String>,
    /// The type of its values, where the parts say it.
    pub dtype: Option<Dtype>,
    /// The part whose type is taken for that of the values where nothing says more.
    pub scales: &'static str,
    pub findings: Vec<QuantFinding>,
}

impl Reading {
    /// A weight whose parts are `parts`, and whose name is that of the module with `.weight`.
    pub fn new(
        scheme: SchemeName,
        parts: &'static [&'static str],
        recipe: Result<Recipe>,
    ) -> Reading {
        Reading::of_layout(scheme, parts, recipe.map(Layout::Known))
    }

    /// The same, of whatever layout.
    pub fn of_layout(
        scheme: SchemeName,
        parts: &'static [&'static str],
        layout: Result<Layout>,
    ) -> Reading {
        Reading {
            scheme,
            layout: layout.unwrap_or_else(Layout::Broken),
            parts,
            suffix: ".weight",
            name: None,
            dtype: None,
            scales: "weight_scale",
            findings: Vec::new(),
        }
    }

    pub fn opaque(
        scheme: SchemeName,
        parts: &'static [&'static str],
        why: &'static str,
    ) -> Reading {
        Reading::of_layout(scheme, parts, Ok(Layout::Opaque(why.to_owned())))
    }

    pub fn scales(self, scales: &'static str) -> Reading {
        Reading { scales, ..self }
    }

    pub fn suffix(self, suffix: &'static str) -> Reading {
        Reading { suffix, ..self }
    }

    pub fn with(mut self, findings: Vec<QuantFinding>) -> Reading {
        self.findings.extend(findings);
        self
    }
}

/// The configuration and the tensors differ, and the tensors are followed.
pub(super) fn conflict(message: String) -> QuantFinding {
    QuantFinding::new(QuantFindingKind::Conflict, message)
}

/// The configuration does not say it.
pub(super) fn assumed(message: String) -> QuantFinding {
    QuantFinding::new(QuantFindingKind::Assumed, message)
}

/// Two readings are possible; `hint` says how to choose.
pub(super) fn ambiguous(message: String, hint: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with_hint(hint)
}
