//! Which of many rules may name a tensor, without asking each of them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::pattern::{Pattern, ends};

/// The numbers of rules by what their patterns name. A plan that was written out has a rule for each module, so that asking all
/// rules about all tensors would take longer than reading the tensors.
pub(super) struct Lookup<'a> {
    /// Those whose patterns are names.
    plain: BTreeMap<&'a str, Vec<usize>>,
    /// The others.
    starred: Vec<usize>,
}

impl<'a> Lookup<'a> {
    /// Of rules with these patterns, numbered from 0 on.
    pub fn new(patterns: impl Iterator<Item = &'a Pattern>) -> Lookup<'a> {
        let mut lookup = Lookup {
            plain: BTreeMap::new(),
            starred: Vec::new(),
        };
        for (number, pattern) in patterns.enumerate() {
            match pattern.plain() {
                Some(name) => lookup.plain.entry(name).or_default().push(number),
                None => lookup.starred.push(number),
            }
        }
        lookup
    }

    /// The numbers of all rules that name the tensor or a module that it is in, and of some that do not, in no order. A rule may
    /// come twice.
    pub fn candidates(&self, name: &str) -> impl Iterator<Item = usize> {
        let modules = [0].into_iter().chain(ends(name));
        let plain = modules.filter_map(|end| self.plain.get(&name[..end]));
        self.starred.iter().chain(plain.flatten()).copied()
    }
}
