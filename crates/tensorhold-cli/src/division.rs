//! How a checkpoint is divided between ranks, in arguments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use tensorhold::{DeviceMesh, Error, ErrorKind, ParallelRules, Pattern, Style, Unmatched};

#[derive(Args)]
pub(crate) struct Division {
    /// The axes of the mesh with their sizes, the slowest first: `pp=2,tp=4`
    #[arg(long)]
    pub(crate) mesh: DeviceMesh,
    /// A pattern of names and what is done with them: `PATTERN=STYLE`, or `PATTERN@AXIS=STYLE`
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<String>,
    /// A JSON file with an object from patterns to styles, or to objects from axes to styles
    #[arg(long = "rules", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Refuse tensors that no rule names, instead of giving each rank all of them
    #[arg(long)]
    refuse_unmatched: bool,
}

impl Division {
    /// What the arguments say.
    pub(crate) fn rules(&self) -> Result<ParallelRules, Error> {
        let mut rules = ParallelRules::new(self.mesh.clone());
        if self.refuse_unmatched {
            rules = rules.with_unmatched(Unmatched::Refuse);
        }
        for rule in &self.rules {
            let (name, style) = rule.split_once('=').ok_or_else(|| {
                let message = format!("rule `{rule}` has no `=`");
                Error::new(ErrorKind::InvalidArgument, message)
                    .with_hint("write `PATTERN=STYLE`, as in `**.q_proj=colwise`")
            })?;
            let (pattern, axis) = match name.split_once('@') {
                Some((pattern, axis)) => (pattern, Some(axis)),
                None => (name, None),
            };
            self.add(&mut rules, pattern, axis, style)?;
        }
        if let Some(file) = &self.file {
            self.add_file(&mut rules, file)?;
        }
        Ok(rules)
    }

    fn add_file(&self, rules: &mut ParallelRules, file: &Path) -> Result<(), Error> {
        let named = |error: Error| error.with_file(file.to_string_lossy());
        let text = std::fs::read(file)
            .map_err(|error| named(Error::new(ErrorKind::Io, format!("cannot read: {error}"))))?;
        let wrong = |what: String| named(Error::new(ErrorKind::InvalidArgument, what));
        let found: BTreeMap<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| wrong(format!("these are no rules: {error}")))?;
        for (pattern, said) in &found {
            let by_axis: Vec<(Option<&str>, &Value)> = match said {
                Value::Object(by_axis) => by_axis
                    .iter()
                    .map(|(axis, style)| (Some(&axis[..]), style))
                    .collect(),
                style => vec![(None, style)],
            };
            for (axis, style) in by_axis {
                let style = style.as_str();
                let style =
                    style.ok_or_else(|| wrong(format!("rule `{pattern}` says no style")))?;
                self.add(rules, pattern, axis, style).map_err(named)?;
            }
        }
        Ok(())
    }

    /// Adds a rule, but for one of a usual axis that the mesh has not: that is not divided.
    fn add(
        &self,
        rules: &mut ParallelRules,
        pattern: &str,
        axis: Option<&str>,
        style: &str,
    ) -> Result<(), Error> {
        let style: Style = style.parse()?;
        let usual = style.usual_axis();
        match axis {
            None if self.mesh.axis(usual).is_none() => Ok(()),
            axis => rules.add(Pattern::new(pattern), axis.unwrap_or(usual), style),
        }
    }
}
