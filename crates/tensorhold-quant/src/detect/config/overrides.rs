//! What a configuration says of some modules and not of others.
//!
//! | where | names | first that counts |
//! |---|---|---|
//! | `config_groups.*.targets` (compressed-tensors, modelopt) | names, `re:`, classes such as `Linear` | name, pattern, class |
//! | `ignore`, `modules_to_not_convert`, `ignored_layers`, `exclude_modules` | names, `re:`, `*` | |
//! | `dynamic` (GPTQModel) | `+:` and `-:` before patterns | in the order of the file |
//! | `extra_config` (AutoRound), `quantized_layers` (modelopt), names beside `bits` (MLX), `*_qmap.json` | names | |

use std::collections::HashMap;

use tensorhold_core::Result;

use super::super::json::Json;
use super::super::pattern::{Pattern, Patterns, check_count};
use super::entries;

const IGNORE_KEYS: [&str; 5] = [
    "ignore",
    "modules_to_not_convert",
    "ignored_layers",
    "exclude_modules",
    "llm_int8_skip_modules",
];

/// The settings of some modules.
#[derive(Debug, Default)]
pub(in super::super) struct Override {
    /// The nearest first.
    pub layers: Vec<Json>,
    pub is_quantized: bool,
}

/// The settings of all modules that have their own.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    all: Vec<Override>,
    named: HashMap<String, usize>,
    matched: Vec<(Pattern, usize)>,
    /// For all modules of a class, which names do not tell; set where there is one such group.
    of_class: Option<usize>,
    ignored: Patterns,
}

impl Overrides {
    pub fn of(method: Option<&str>, json: &Json) -> Result<Overrides> {
        let mut overrides = Overrides::default();
        for names in IGNORE_KEYS.iter().filter_map(|key| json.get(key)) {
            for name in names.list().iter().filter_map(Json::text) {
                overrides.ignored.add(name)?;
            }
        }
        if let Some(groups) = json.get("config_groups") {
            overrides.add_groups(groups)?;
        }
        if let Some(dynamic) = json.get("dynamic") {
            overrides.add_dynamic(dynamic)?;
        }
        for key in ["extra_config", "quantized_layers"] {
            if let Some(layers) = json.get(key) {
                overrides.add_named(entries(layers, key)?);
            }
        }
        if matches!(method, Some("mlx" | "quanto")) {
            overrides.add_named(entries(json, "quantization")?);
        }
        Ok(overrides)
    }

    /// The settings of `module`, if it has its own.
    pub fn find(&self, module: &str) -> Option<&Override> {
        let by_pattern = || {
            let mut matched = self.matched.iter();
            matched
                .find(|(pattern, _)| pattern.matches(module))
                .map(|(_, place)| *place)
        };
        let named = self.named.get(module).copied();
        let place = named
            .or_else(by_pattern)
            .or_else(|| match self.is_ignored(module) {
                true => None,
                false => self.of_class,
            });
        self.all.get(place?)
    }

    pub fn is_ignored(&self, module: &str) -> bool {
        self.ignored.matches(module)
    }

    fn add(&mut self, layers: Vec<Json>, is_quantized: bool) -> usize {
        self.all.push(Override {
            layers,
            is_quantized,
        });
        self.all.len() - 1
    }

    fn add_groups(&mut self, groups: &Json) -> Result<()> {
        let mut of_class = Vec::new();
        for (_, group) in entries(groups, "config_groups")? {
            let weights = group.get("weights").cloned();
            let place = self.add(weights.into_iter().chain([group.clone()]).collect(), true);
            let targets = group.get("targets").map_or(&[][..], Json::list);
            for target in targets.iter().filter_map(Json::text) {
                match target.strip_prefix("re:") {
                    Some(pattern) => self.add_pattern(pattern, place)?,
                    None if is_class(target) => of_class.push((place, target == "Linear")),
                    None => {
                        self.named.insert(target.to_owned(), place);
                    }
                }
            }
        }
        self.of_class = match of_class[..] {
            [(place, _)] => Some(place),
            _ => {
                let mut linear = of_class.iter().filter(|(_, is_linear)| *is_linear);
                let first = linear.next().map(|(place, _)| *place);
                first.filter(|_| linear.next().is_none())
            }
        };
        Ok(())
    }

    fn add_dynamic(&mut self, dynamic: &Json) -> Result<()> {
        for (pattern, settings) in entries(dynamic, "dynamic")? {
            let is_quantized = !pattern.starts_with("-:");
            let text = pattern
                .strip_prefix("-:")
                .or_else(|| pattern.strip_prefix("+:"));
            let place = self.add(vec![settings.clone()], is_quantized);
            self.add_pattern(text.unwrap_or(pattern), place)?;
        }
        Ok(())
    }

    fn add_named(&mut self, layers: &[(String, Json)]) {
        for (name, settings) in layers {
            let is_quantized = match settings {
                Json::Object(_) => true,
                Json::Flag(is_quantized) => *is_quantized,
                _ => continue,
            };
            let place = self.add(vec![settings.clone()], is_quantized);
            self.named.insert(name.clone(), place);
        }
    }

    fn add_pattern(&mut self, text: &str, place: usize) -> Result<()> {
        check_count(self.matched.len())?;
        self.matched.push((Pattern::new(text)?, place));
        Ok(())
    }
}

/// Whether a target is the name of a class, as `Linear`, and not that of a module.
fn is_class(target: &str) -> bool {
    !target.contains('.') && target.starts_with(|first: char| first.is_ascii_uppercase())
}
