//! Names and patterns of modules, as configurations give them.

use std::collections::HashSet;

use fancy_regex::{Regex, RegexBuilder};
use tensorhold_core::{Error, ErrorKind, Result};

/// Steps back that a search may take; then the pattern counts as not matching.
const MAX_STEPS_BACK: usize = 20_000;
/// The size of a compiled pattern in bytes, and of what a search by it keeps.
const MAX_COMPILED_BYTES: usize = 128 << 10;
/// Patterns beside plain names in a configuration.
const MAX_PATTERNS: usize = 1024;

/// A pattern that names match from their start on, as with Python's `re.match`.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// `InvalidConfig` for one that cannot be compiled.
    pub fn new(text: &str) -> Result<Pattern> {
        let anchored = format!("^(?:{text})");
        let made = RegexBuilder::new(&anchored)
            .backtrack_limit(MAX_STEPS_BACK)
            .delegate_size_limit(MAX_COMPILED_BYTES)
            .delegate_dfa_size_limit(MAX_COMPILED_BYTES)
            .build();
        made.map(Pattern).map_err(|error| {
            let message = format!("pattern `{text}` cannot be read: {error}");
            Error::new(ErrorKind::InvalidConfig, message)
        })
    }

    /// One in which `*` stands for anything, for whole names.
    fn glob(text: &str) -> Result<Pattern> {
        let parts: Vec<_> = text.split('*').map(fancy_regex::escape).collect();
        Pattern::new(&format!("(?:{})$", parts.join(".*")))
    }

    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name).unwrap_or(false)
    }
}

/// A list of names and patterns.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    names: HashSet<String>,
    patterns: Vec<Pattern>,
}

impl Patterns {
    /// Adds a name, a `re:` pattern, or one with `*`.
    ///
    /// # Errors
    /// `InvalidConfig` for a pattern that cannot be compiled, and for too many.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let pattern = match text.strip_prefix("re:") {
            Some(pattern) => Pattern::new(pattern)?,
            None if text.contains('*') => Pattern::glob(text)?,
            None => {
                self.names.insert(text.to_owned());
                return Ok(());
            }
        };
        check_count(self.patterns.len())?;
        self.patterns.push(pattern);
        Ok(())
    }

    pub fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub fn matches(&self, name: &str) -> bool {
        self.has_name(name) || self.has_pattern_for(name)
    }

    pub fn has_pattern_for(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

/// Refuses one more pattern than so many.
pub(super) fn check_count(n_patterns: usize) -> Result<()> {
    match n_patterns < MAX_PATTERNS {
        true => Ok(()),
        false => {
            let message = format!("more than {MAX_PATTERNS} patterns for names");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_the_programs_that_write_them_match() {
        let mut patterns = Patterns::default();
        for text in [
            "lm_head",
            "re:.*self_attn",
            r"re:^(?!model\.).*gate$",
            "visual*",
        ] {
            patterns.add(text).expect("it can be read");
        }
        for (name, expected) in [
            ("lm_head", true),
            ("model.lm_head", false),
            ("model.layers.0.self_attn.q_proj", true),
            ("mtp.gate", true),
            ("model.gate", false),
            ("visual.blocks.0", true),
            ("model.visual", false),
        ] {
            assert_eq!(patterns.matches(name), expected, "{name}");
        }
        assert!(patterns.add("re:(").is_err());
    }

    #[test]
    fn a_pattern_that_explodes_matches_nothing() {
        let pattern = Pattern::new(r"(a|aa)+(?=c)d$").expect("it can be read");
        assert!(!pattern.matches(&"a".repeat(5000)));
    }
}
