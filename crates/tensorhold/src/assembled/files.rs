//! How the files of a distributed checkpoint are called.
//!
//! # Source
//! `_gen_file_name` of `torch.distributed.checkpoint._hf_utils` in PyTorch 2.15, but for the parts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tensorhold_core::Result;

const SUFFIX: &str = ".safetensors";

/// What a save that is not divided has beside its files; it could name one file only for each tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The name of a file that a rank has; further chunks of the same tensors have files of their own.
pub(super) fn name(rank: u64, part: usize) -> String {
    let more = match part {
        0 => String::new(),
        part => format!("-part-{part:05}"),
    };
    format!("shard-{:05}-model-00001-of-00001{more}{SUFFIX}", rank + 1)
}

/// Whether a file has a name that a save gives, or has given before it failed.
pub(super) fn is_of_a_save(name: &str) -> bool {
    let temporary = || {
        let (name, key) = name.strip_prefix('.')?.rsplit_once('.')?;
        let is_key = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_key.then_some(name)
    };
    chunks_of(temporary().unwrap_or(name)).is_some()
}

/// What the name of a file of a save says: whether a rank has written it, or it has further chunks, so that others hold the rest.
fn chunks_of(name: &str) -> Option<bool> {
    let (mut rest, mut is_divided) = (name, false);
    if let Some(shard) = rest.strip_prefix("shard-") {
        rest = number(shard)?.strip_prefix('-')?;
        is_divided = true;
    }
    rest = number(rest.strip_prefix("model-")?)?.strip_prefix("-of-")?;
    rest = number(rest)?;
    if let Some(part) = rest.strip_prefix("-part-") {
        rest = number(part)?;
        is_divided = true;
    }
    (rest == SUFFIX).then_some(is_divided)
}

/// What comes behind a number of five digits or more.
fn number(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (text.len() - rest.len() >= 5).then_some(rest)
}

/// All files of tensors in a folder in which ranks have saved; `None` of any other path.
pub(super) fn of_ranks(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !path.is_dir() {
        return Ok(None);
    }
    let names = of_tensors(path)?;
    let is_divided = |name: &OsString| chunks_of(&name.to_string_lossy()) == Some(true);
    let paths = || names.iter().map(|name| path.join(name)).collect();
    Ok(names.iter().any(is_divided).then(paths))
}

/// A file in `folder` that a save of chunks to it replaces, or that would be taken for one of it: the first by name, if there is any.
///
/// # Errors
/// `Io` if the folder cannot be listed.
pub fn existing_chunks(folder: &Path) -> Result<Option<PathBuf>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let names = all(folder)?;
    let first = names
        .iter()
        .find(|name| is_of_tensors(name) || *name == INDEX);
    Ok(first.map(|name| folder.join(name)))
}

/// The names of the files of tensors in a folder, in order.
pub(super) fn of_tensors(folder: &Path) -> Result<Vec<OsString>> {
    let mut names = all(folder)?;
    names.retain(is_of_tensors);
    Ok(names)
}

fn is_of_tensors(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.ends_with(SUFFIX) && !name.starts_with('.')
}

/// The names of everything in a folder, in order.
pub(super) fn all(folder: &Path) -> Result<Vec<OsString>> {
    let cannot = |error| tensorhold_io::io_error(error, folder, "list the folder");
    let entries = std::fs::read_dir(folder).map_err(cannot)?;
    let names = entries.map(|entry| Ok(entry.map_err(cannot)?.file_name()));
    let mut names: Vec<OsString> = names.collect::<Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_saves_are_known() {
        assert_eq!(name(0, 0), "shard-00001-model-00001-of-00001.safetensors");
        let key = "0123456789abcdef0123456789abcdef";
        for name in [
            &name(3, 0),
            &name(123_456, 2),
            "model-00001-of-00002.safetensors",
            "model-00001-of-00002-part-00001.safetensors",
            &format!(".{}.{key}", name(0, 1)),
        ] {
            assert!(is_of_a_save(name), "{name}");
        }
        for name in [
            "model.safetensors",
            "model-1-of-2.safetensors",
            "shard-00001-model.safetensors",
            &format!("{}.{key}", name(0, 1)),
            &format!(".{}.abc", name(0, 1)),
        ] {
            assert!(!is_of_a_save(name), "{name}");
        }
    }
}
