//! Fixtures, and the values of tensors found in them.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tensorhold_convert::{Finding, Foreign, Node, NodeId, Place, Storage, View};
use tensorhold_core::{ByteRange, Result};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The files of the folder `name` that end as `suffix` says, each with what `name.json` says of it.
pub fn cases(name: &str, suffix: &str) -> BTreeMap<String, (Vec<u8>, Value)> {
    let table = std::fs::read(fixtures().join(name).with_extension("json")).unwrap();
    let table: BTreeMap<String, Value> = serde_json::from_slice(&table).unwrap();
    let files = table.into_iter().filter(|(file, _)| file.ends_with(suffix));
    files
        .map(|(file, case)| {
            let bytes = std::fs::read(fixtures().join(name).join(&file)).unwrap();
            (file, (bytes, case))
        })
        .collect()
}

pub fn check_findings(name: &str, findings: &[Finding], case: &Value) {
    let expected = case["findings"].as_array().unwrap();
    assert_eq!(findings.len(), expected.len(), "{name}: {findings:?}");
    for (finding, expected) in findings.iter().zip(expected) {
        let expected = expected.as_str().unwrap();
        assert!(finding.message.contains(expected), "{name}: {findings:?}");
    }
}

pub fn check_refusal<T: std::fmt::Debug>(name: &str, read: Result<T>, case: &Value) {
    let error = read.expect_err(name);
    let expected = case["error"].as_str().unwrap();
    assert!(error.message().contains(expected), "{name}: {error}");
    if let Some(kind) = case["kind"].as_str() {
        assert_eq!(format!("{:?}", error.kind()), kind, "{name}: {error}");
    }
}

/// The pairs of a dict whose keys are text.
pub fn pairs(foreign: &Foreign, dict: NodeId) -> Vec<(String, NodeId)> {
    let Node::Dict(pairs) = &foreign.tree[dict] else {
        panic!("{:?} is no dict", foreign.tree[dict]);
    };
    let name = |key: &NodeId| match &foreign.tree[*key] {
        Node::Str(name) => name.as_str().unwrap().to_owned(),
        other => panic!("{other:?} is no name"),
    };
    pairs
        .iter()
        .map(|(key, value)| (name(key), *value))
        .collect()
}

fn bytes_of(file: &[u8], storage: &Storage) -> Vec<u8> {
    let mut bytes = match &storage.place {
        Place::InFile(range) => file[range.start as usize..range.end as usize].to_vec(),
        Place::Pieces(ranges) => {
            let piece = |range: &ByteRange| &file[range.start as usize..range.end as usize];
            ranges.iter().map(piece).collect::<Vec<_>>().concat()
        }
        Place::Deflated(range) => {
            let packed = &file[range.start as usize..range.end as usize];
            miniz_oxide::inflate::decompress_to_vec(packed).unwrap()
        }
        Place::Memory(bytes) => bytes.clone(),
        Place::Missing => panic!("a storage is missing"),
    };
    assert_eq!(bytes.len() as u64, storage.size_bytes);
    if let Some(crc32) = storage.crc32 {
        assert_eq!(crc32fast::hash(&bytes), crc32);
    }
    for number in bytes.chunks_exact_mut(storage.swap_width_bytes as usize) {
        number.reverse();
    }
    bytes
}

/// The elements of a view one after another, the last dimension fastest.
pub fn values(file: &[u8], foreign: &Foreign, view: &View) -> Vec<u8> {
    let storage = bytes_of(file, &foreign.storages[view.storage().0 as usize]);
    let width = view.element().width_bytes();
    let mut values = Vec::new();
    let mut index = vec![0; view.shape().len()];
    for _ in 0..view.n_elements() {
        let steps = index
            .iter()
            .zip(view.strides())
            .map(|(at, stride)| at * stride);
        let start = ((view.offset() + steps.sum::<u64>()) * width) as usize;
        values.extend(&storage[start..start + width as usize]);
        for (at, extent) in index.iter_mut().zip(view.shape()).rev() {
            *at += 1;
            if *at < *extent {
                break;
            }
            *at = 0;
        }
    }
    values
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
