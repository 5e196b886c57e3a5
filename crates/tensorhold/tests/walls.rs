//! The walls of the house: which crate may use which.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use toml_edit::DocumentMut;

/// Every edge between our crates that may be, besides those to `tensorhold-core`, which all may use.
const ALLOWED: [(&str, &str); 8] = [
    ("tensorhold", "tensorhold-convert"),
    ("tensorhold", "tensorhold-device"),
    ("tensorhold", "tensorhold-io"),
    ("tensorhold", "tensorhold-quant"),
    ("tensorhold-cli", "tensorhold"),
    ("tensorhold-python", "tensorhold"),
    // The wheel carries the command line, so that one `pip install` brings both.
    ("tensorhold-python", "tensorhold-cli"),
    // The Rust drop-in saves files, which the facade does.
    ("safetensors", "tensorhold"),
];

#[test]
fn crates_use_only_what_their_wall_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut manifests: Vec<_> = fs::read_dir(root.join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("Cargo.toml"))
        .filter(|manifest| manifest.exists())
        .collect();
    manifests.push(root.join("python/Cargo.toml"));
    manifests.push(root.join("compat/safetensors-rs/Cargo.toml"));
    let mut seen = BTreeSet::new();
    for manifest in manifests {
        for edge in edges(&manifest) {
            let is_allowed = ALLOWED
                .iter()
                .any(|(from, to)| edge == (from.to_string(), to.to_string()));
            assert!(
                edge.1 == "tensorhold-core" || is_allowed,
                "{} must not use {}: only the facade `tensorhold` joins the crates",
                edge.0,
                edge.1
            );
            seen.insert(edge);
        }
    }
    assert!(
        seen.contains(&("tensorhold".into(), "tensorhold-io".into())),
        "no edge was found at all"
    );
}

/// The edges from the crate of a manifest to crates of ours; tests may use what they like.
fn edges(manifest: &Path) -> Vec<(String, String)> {
    let table: DocumentMut = fs::read_to_string(manifest).unwrap().parse().unwrap();
    let from = table["package"]["name"].as_str().unwrap().to_owned();
    let dependencies = table
        .get("dependencies")
        .and_then(|table| table.as_table_like());
    let names = dependencies
        .into_iter()
        .flat_map(|table| table.iter().map(|(name, _)| name.to_owned()));
    let ours = names.filter(|name| name.starts_with("tensorhold"));
    ours.map(|to| (from.clone(), to)).collect()
}

#[test]
fn the_core_opens_no_file_and_has_no_unsafe_code() {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tensorhold-core/src/lib.rs");
    let lib = fs::read_to_string(lib).unwrap();
    assert!(lib.contains("#![no_std]") && lib.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn the_double_of_the_runtimes_uses_nothing_of_ours() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tensorhold-double/Cargo.toml");
    assert_eq!(edges(&manifest), []);
}
