//! Patterns of the names of modules and tensors.

use alloc::string::{String, ToString};
use core::fmt;

/// A name of a module or of a tensor in which `*` stands for any one part between dots, or for any letters of it, and `**` for any
/// number of parts, none among them.
///
/// ```
/// use tensorhold_core::Pattern;
///
/// let pattern = Pattern::new("model.layers.*.self_attn.*_proj");
/// let name = "model.layers.11.self_attn.q_proj.weight";
/// assert_eq!(pattern.depth(name), Some(5));
/// assert_eq!(pattern.matched(name), Some((5, "weight")));
/// assert_eq!(pattern.depth("model.norm.weight"), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern that is written so. An empty one matches everything.
    #[must_use]
    pub fn new(text: &str) -> Pattern {
        Pattern(text.to_string())
    }

    /// How many parts of `name` the pattern takes, the most where it can take different numbers: it matches a tensor by its whole
    /// name, or by that of a module that the tensor is in. `None` if it does not match.
    #[must_use]
    pub fn depth(&self, name: &str) -> Option<usize> {
        let mut depth = None;
        if self.0.is_empty() {
            return Some(0);
        }
        if !name.starts_with(self.head()) {
            return None;
        }
        for (number, end) in ends(name).enumerate() {
            if matches(&self.0, &name[..end]) {
                depth = Some(number + 1);
            }
        }
        depth
    }

    /// [`depth`](Pattern::depth), and what of `name` comes behind that; nothing if the pattern matches the whole name.
    #[must_use]
    pub fn matched<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        let depth = self.depth(name)?;
        let Some(last) = depth.checked_sub(1) else {
            return Some((0, name));
        };
        let end = name.match_indices('.').nth(last);
        Some((depth, end.map_or("", |(at, _)| &name[at + 1..])))
    }

    /// The one name that it stands for, where there is no `*` in it.
    pub(super) fn plain(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// What each name begins with that it matches. The dot before a `**` that stands for nothing is not there.
    fn head(&self) -> &str {
        match self.0.split_once('*') {
            Some((head, _)) => head.strip_suffix('.').unwrap_or(head),
            None => &self.0,
        }
    }
}

/// Where the names of the modules that a tensor is in end, from the outermost on, and its own.
pub(super) fn ends(name: &str) -> impl Iterator<Item = usize> {
    let dots = name.match_indices('.').map(|(at, _)| at);
    dots.chain([name.len()])
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `pattern` matches all of `name`, part by part.
fn matches(pattern: &str, name: &str) -> bool {
    let (part, later) = split(pattern);
    if part == "**" {
        let Some(later) = later else {
            return true;
        };
        let ends = name.match_indices('.').map(|(at, _)| at + 1);
        return [0]
            .into_iter()
            .chain(ends)
            .any(|at| matches(later, &name[at..]));
    }
    let (first, rest) = split(name);
    match (later, rest) {
        _ if !matches_part(part.as_bytes(), first.as_bytes()) => false,
        (None, None) => true,
        (Some(later), Some(rest)) => matches(later, rest),
        (Some(later), None) => later.split('.').all(|part| part == "**"),
        _ => false,
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    }
}

/// Whether `pattern` matches one part. Each `*` takes as little as it can; where that fails further on, the last one takes more.
fn matches_part(pattern: &[u8], part: &[u8]) -> bool {
    let (mut p, mut at) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while at < part.len() {
        if pattern.get(p) == Some(&b'*') {
            last_star = Some((p, at));
            p += 1;
        } else if pattern.get(p) == Some(&part[at]) {
            (p, at) = (p + 1, at + 1);
        } else if let Some((star, taken)) = last_star {
            last_star = Some((star, taken + 1));
            (p, at) = (star + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}
