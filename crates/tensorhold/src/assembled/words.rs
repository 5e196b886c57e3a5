//! What a file of chunks says beside its tensors.
//!
//! # Source
//! `torch.distributed.checkpoint._hf_utils` of PyTorch 2.15 for the words that begin with `DCP`; the others are ours, and PyTorch's
//! reader passes over them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use tensorhold_core::{Error, ErrorKind, Result};

use crate::checkpoint::Checkpoint;
use crate::file::File;

/// For each tensor of the file, where in the whole one the chunk lies.
const SHARDING: &str = "DCP_SHARDING_INFO";
const VERSION: &str = "DCP_VERSION";
const FORMAT: &str = "format";
const OFFSETS: &str = "saved_offsets";
/// The shape of the whole tensor.
const SHAPE: &str = "global_shape";
/// Values that are no tensors, as a JSON object.
const VALUES: &str = "TENSORHOLD_VALUES";
/// A text that all files of one save have in common.
const SAVE: &str = "TENSORHOLD_SAVE";

/// Where a chunk lies in the whole.
pub(super) struct Place {
    pub offsets: Vec<u64>,
    /// The shape of the whole, if the file says it.
    pub shape: Option<Vec<u64>>,
}

/// The text that the files of one save have in common.
pub(super) fn save_of(file: &File) -> Option<&str> {
    text(file, SAVE)
}

/// What the file says of its chunks, by name.
pub(super) fn sharding_of(file: &File) -> Result<HashMap<String, Place>> {
    let Some(text) = text(file, SHARDING) else {
        return Ok(HashMap::new());
    };
    let Ok(said) = serde_json::from_str::<Map<String, Value>>(text) else {
        return Err(wrong(file, SHARDING, "is no JSON object"));
    };
    let place = |(name, said): (String, Value)| match place(&said) {
        Some(place) => Ok((name, place)),
        None => Err(wrong(file, SHARDING, "has no offsets for a tensor").with_tensor(&name[..])),
    };
    said.into_iter().map(place).collect()
}

fn place(said: &Value) -> Option<Place> {
    let said = said.as_object()?;
    let shape = match said.get(SHAPE) {
        Some(shape) => Some(numbers(shape)?),
        None => None,
    };
    Some(Place {
        offsets: numbers(said.get(OFFSETS)?)?,
        shape,
    })
}

fn numbers(said: &Value) -> Option<Vec<u64>> {
    said.as_array()?.iter().map(Value::as_u64).collect()
}

/// The metadata of the whole checkpoint: without what is said of files and chunks, and with the values of all files.
pub(super) fn metadata_of(source: &Checkpoint) -> Result<BTreeMap<String, String>> {
    let of_files = [SHARDING, VERSION, SAVE, VALUES];
    let texts = source.metadata().into_iter();
    let texts = texts.filter(|(key, _)| !of_files.contains(key));
    let mut metadata: BTreeMap<String, String> = texts
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .collect();
    let mut values: BTreeMap<String, &str> = BTreeMap::new();
    for file in source.files() {
        let Some(text) = text(file, VALUES) else {
            continue;
        };
        let members = members(text).ok_or_else(|| wrong(file, VALUES, "is no JSON object"))?;
        values.extend(members);
    }
    if !values.is_empty() {
        let members = values
            .iter()
            .map(|(name, value)| format!("{}: {value}", json!(name)));
        let members: Vec<String> = members.collect();
        metadata.insert(VALUES.into(), format!("{{{}}}", members.join(", ")));
    }
    Ok(metadata)
}

/// What a file of chunks says, but for most of what the checkpoint says as a whole.
pub(super) fn of_chunks<'a>(
    save: &str,
    whole: &BTreeMap<String, String>,
    chunks: impl Iterator<Item = (&'a str, Vec<u64>, &'a [u64])>,
) -> BTreeMap<String, String> {
    let said: Map<String, Value> = chunks
        .map(|(name, offsets, shape)| (name.to_owned(), json!({OFFSETS: offsets, SHAPE: shape})))
        .collect();
    let texts = [
        (SHARDING, Value::from(said).to_string()),
        (VERSION, "1.0".to_owned()),
        (
            FORMAT,
            whole.get(FORMAT).map_or("pt", |format| format).to_owned(),
        ),
        (SAVE, save.to_owned()),
    ];
    texts
        .into_iter()
        .map(|(key, text)| (key.to_owned(), text))
        .collect()
}

/// The members of a JSON object with the texts of their values, as they are: Python writes infinities, which are no JSON. What is in
/// the values is up to whoever reads them.
fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut members = Vec::new();
    let mut rest = inner;
    loop {
        let colon = end(rest, b':')?;
        let name = serde_json::from_str(rest[..colon].trim()).ok()?;
        rest = rest.get(colon + 1..)?;
        let comma = end(rest, b',')?;
        let value = rest[..comma].trim();
        if value.is_empty() {
            return None;
        }
        members.push((name, value));
        match rest.get(comma + 1..) {
            Some(next) => rest = next,
            None => return Some(members),
        }
    }
}

/// Where `mark` comes first outside of texts and brackets, or the end; `None` if these are not closed.
fn end(text: &str, mark: u8) -> Option<usize> {
    let (mut depth, mut is_text, mut is_escaped) = (0u64, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ if byte == mark && depth == 0 => return Some(at),
            _ => {}
        }
    }
    (depth == 0 && !is_text && mark == b',').then_some(text.len())
}

fn text<'a>(file: &'a File, key: &str) -> Option<&'a str> {
    let metadata = file.header().metadata()?;
    metadata
        .iter()
        .find(|(found, _)| *found == key)
        .map(|(_, text)| text)
}

fn wrong(file: &File, key: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::HeaderJson,
        format!("the metadata `{key}` {what}"),
    )
    .with_file(file.path().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_texts() {
        let text = r#" {"a": 1, "b\"": {"dict": {"x, ]": [1, "}"]}} , "c": Infinity} "#;
        let found = members(text).unwrap();
        let expected = [
            ("a".to_owned(), "1"),
            ("b\"".to_owned(), r#"{"dict": {"x, ]": [1, "}"]}}"#),
            ("c".to_owned(), "Infinity"),
        ];
        assert_eq!(found, expected);
        assert_eq!(members("{ }"), Some(Vec::new()));
        for wrong in [
            "",
            "[]",
            "{",
            "{1: 2}",
            r#"{"a"}"#,
            r#"{"a": }"#,
            r#"{"a": [}"#,
            r#"{"a": 1,}"#,
        ] {
            assert_eq!(members(wrong), None, "{wrong}");
        }
    }
}
