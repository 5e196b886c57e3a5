//! GGUF files that the package `gguf` wrote, and bent ones, against what it reads of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cases, check_findings, check_refusal, fixtures, hex, pairs, values};
use proptest::prelude::*;
use serde_json::{Value, json};
use tensorhold_convert::gguf::{self, Blocks, Kind, METADATA, dequantize};
use tensorhold_convert::{Data, Foreign, Limits, Node, NodeId};

/// A value of the metadata as JSON.
fn json_of(foreign: &Foreign, node: NodeId) -> Value {
    match &foreign.tree[node] {
        Node::Bool(truth) => json!(truth),
        Node::Int(number) => json!(number),
        Node::BigInt(bytes) => json!(u64::from_le_bytes(bytes[..8].try_into().unwrap())),
        Node::Float(number) => json!(number),
        Node::Str(text) => json!(text.as_str().unwrap()),
        Node::Bytes(Data::Memory(bytes)) => json!({"bytes": hex(bytes)}),
        Node::List(items) => items.iter().map(|item| json_of(foreign, *item)).collect(),
        other => panic!("{other:?}"),
    }
}

fn check_tensor(name: &str, file: &[u8], foreign: &Foreign, node: NodeId, expected: &Value) {
    let Node::Tensor(tensor) = &foreign.tree[node] else {
        panic!("{name}: {:?}", foreign.tree[node]);
    };
    let kind = Kind::from_name(expected["type"].as_str().unwrap()).unwrap();
    let mut view_shape = &expected["shape"];
    if let Some(blocks) = Blocks::of(&foreign.tree, tensor) {
        assert_eq!(blocks.kind, kind, "{name}");
        assert_eq!(json!(blocks.shape), expected["shape"], "{name}");
        assert_eq!(tensor.view.element().name(), "uint8", "{name}");
        view_shape = &expected["bytes_shape"];
    } else {
        assert_eq!(Some(tensor.view.element()), kind.element(), "{name}");
    }
    assert_eq!(&json!(tensor.view.shape()), view_shape, "{name}");
    let values = values(file, foreign, &tensor.view);
    assert_eq!(hex(&values), expected["values"].as_str().unwrap(), "{name}");
}

#[test]
fn files_have_what_the_package_finds_in_them() {
    for (name, (file, case)) in cases("gguf", ".gguf") {
        let foreign = gguf::read(&&file[..], &Limits::default());
        let Some(tensors) = case["tensors"].as_object() else {
            check_refusal(&name, foreign, &case);
            continue;
        };
        let foreign = foreign.unwrap_or_else(|error| panic!("{name}: {error}"));
        check_findings(&name, &foreign.findings, &case);
        let mut n_tensors = 0;
        for (key, node) in pairs(&foreign, foreign.tree.root()) {
            if key == METADATA {
                let metadata = pairs(&foreign, node);
                let found: serde_json::Map<String, Value> = metadata
                    .into_iter()
                    .map(|(key, value)| (key, json_of(&foreign, value)))
                    .collect();
                assert_eq!(Value::Object(found), case["metadata"], "{name}");
            } else {
                check_tensor(&name, &file, &foreign, node, &tensors[&key]);
                n_tensors += 1;
            }
        }
        assert_eq!(n_tensors, tensors.len(), "{name}");
    }
}

#[test]
fn every_cut_of_a_file_is_refused() {
    for (name, (file, case)) in cases("gguf", ".gguf") {
        let is_whole = case["findings"].as_array().is_some_and(Vec::is_empty);
        let has_data = case["tensors"]
            .as_object()
            .is_some_and(|tensors| !tensors.is_empty());
        if !is_whole || !has_data || name == "empty.gguf" {
            continue;
        }
        // What fills the last tensor up to the alignment may be missing.
        let foreign = gguf::read(&&file[..], &Limits::default()).unwrap();
        let last = foreign.storages.iter().map(|storage| match &storage.place {
            tensorhold_convert::Place::InFile(range) => range.end,
            other => panic!("{other:?}"),
        });
        for end in 0..last.max().unwrap() as usize {
            let cut = gguf::read(&&file[..end], &Limits::default());
            assert!(cut.is_err(), "{name} at {end}");
        }
    }
}

fn table() -> Value {
    let table = std::fs::read(fixtures().join("gguf_blocks.json")).unwrap();
    serde_json::from_slice(&table).unwrap()
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn every_type_has_the_number_and_the_block_that_the_package_gives() {
    let table = table();
    let kinds = table["kinds"].as_object().unwrap();
    for (name, expected) in kinds {
        let kind = Kind::from_name(name).unwrap_or_else(|| panic!("{name} is not known"));
        let found = json!([kind.number(), kind.block_elements(), kind.block_bytes()]);
        assert_eq!(&found, expected, "{name}");
    }
    assert_eq!(kinds.len() + 1, Kind::all().count());
}

#[test]
fn blocks_stand_for_the_numbers_that_the_package_makes_of_them_bit_for_bit() {
    let table = table();
    for (name, golden) in table["dequantized"].as_object().unwrap() {
        let kind = Kind::from_name(name).unwrap();
        let (blocks, expected) = (unhex(&golden["blocks"]), unhex(&golden["values"]));
        let mut values = vec![0f32; expected.len() / 4];
        dequantize(kind, false, &blocks, &mut values).unwrap();
        let found: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(hex(&found), hex(&expected), "{name}");
    }
}

#[test]
fn big_endian_blocks_stand_for_the_same_numbers() {
    let table = table();
    for (kind, scales) in [
        (Kind::Q4_0, &[0][..]),
        (Kind::Q8_0, &[0]),
        (Kind::Q4_K, &[0, 2]),
        (Kind::Q6_K, &[208]),
        (Kind::MXFP4, &[]),
    ] {
        let golden = &table["dequantized"][kind.name()];
        let (mut blocks, expected) = (unhex(&golden["blocks"]), unhex(&golden["values"]));
        for block in blocks.chunks_exact_mut(kind.block_bytes() as usize) {
            scales.iter().for_each(|&at| block.swap(at, at + 1));
        }
        let mut values = vec![0f32; expected.len() / 4];
        dequantize(kind, true, &blocks, &mut values).unwrap();
        let found: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(hex(&found), hex(&expected), "{kind:?}");
    }
}

#[test]
fn blocks_that_are_not_taken_apart_are_refused() {
    let refused = |kind: Kind, is_big_endian, n_bytes: usize, n_values: usize| {
        let mut values = vec![0f32; n_values];
        dequantize(kind, is_big_endian, &vec![0; n_bytes], &mut values)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(Kind::IQ2_XXS, false, 66, 256).contains("IQ2_XXS are not dequantized"));
    assert!(refused(Kind::Q5_0, true, 22, 32).contains("big-endian blocks of the type Q5_0"));
    assert!(refused(Kind::Q4_0, false, 17, 32).contains("17 bytes of Q4_0 are not 32 values"));
    assert!(refused(Kind::Q4_0, false, 18, 31).contains("are not 31 values"));
    for kind in Kind::all() {
        let is_known = table()["dequantized"][kind.name()].is_object();
        assert_eq!(kind.is_dequantized(false), is_known, "{kind:?}");
    }
}

proptest! {
    #[test]
    fn changed_files_are_read_without_harm(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let files: Vec<_> = cases("gguf", ".gguf").into_iter().collect();
        let (_, (file, _)) = &files[which.index(files.len())];
        let mut file = file.clone();
        for (place, byte) in changes {
            // The head is where changes matter.
            let place = place.index(file.len().min(600));
            file[place] = byte;
        }
        if let Ok(foreign) = gguf::read(&&file[..], &Limits::default()) {
            for (_, node) in pairs(&foreign, foreign.tree.root()) {
                if let Node::Tensor(tensor) = &foreign.tree[node] {
                    let n_values = values(&file, &foreign, &tensor.view).len();
                    prop_assert!(n_values <= file.len());
                }
            }
        }
    }
}
