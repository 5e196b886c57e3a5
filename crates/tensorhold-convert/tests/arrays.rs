//! Arrays and archives that NumPy wrote, and bent ones, against what NumPy says of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cases, check_findings, check_refusal, hex, pairs, values};
use proptest::prelude::*;
use serde_json::Value;
use tensorhold_convert::{Foreign, Limits, Node, NodeId, npy, npz};
use tensorhold_core::Result;

fn read(name: &str, file: &[u8]) -> Result<Foreign> {
    match name.ends_with(".npz") {
        true => npz::read(&file, &Limits::default()),
        false => npy::read(&file, &Limits::default()),
    }
}

/// The arrays by name; that of a bare file has none.
fn arrays(foreign: &Foreign) -> Vec<(String, NodeId)> {
    let root = foreign.tree.root();
    match foreign.tree[root] {
        Node::Ndarray(_) => vec![(String::new(), root)],
        _ => pairs(foreign, root),
    }
}

fn check_array(name: &str, file: &[u8], foreign: &Foreign, array: NodeId, expected: &Value) {
    let Node::Ndarray(array) = &foreign.tree[array] else {
        panic!("{name}: {:?}", foreign.tree[array]);
    };
    assert_eq!(array.view.element().name(), expected["element"], "{name}");
    assert_eq!(array.dtype, expected["dtype"].as_str().unwrap(), "{name}");
    assert_eq!(array.is_fortran, expected["fortran"], "{name}");
    let shape: Vec<u64> = serde_json::from_value(expected["shape"].clone()).unwrap();
    assert_eq!(array.view.shape(), shape, "{name}");
    let values = values(file, foreign, &array.view);
    assert_eq!(hex(&values), expected["values"].as_str().unwrap(), "{name}");
}

fn check(suffix: &str) {
    for (name, (file, case)) in cases("arrays", suffix) {
        let Some(expected) = case["arrays"].as_object() else {
            check_refusal(&name, read(&name, &file), &case);
            continue;
        };
        let foreign = read(&name, &file).unwrap_or_else(|error| panic!("{name}: {error}"));
        check_findings(&name, &foreign.findings, &case);
        let arrays = arrays(&foreign);
        assert_eq!(arrays.len(), expected.len(), "{name}");
        for (key, array) in arrays {
            check_array(&name, &file, &foreign, array, &expected[&key]);
        }
    }
}

#[test]
fn arrays_have_what_numpy_finds_in_them() {
    check(".npy");
}

#[test]
fn archives_of_arrays_have_what_numpy_finds_in_them() {
    check(".npz");
}

#[test]
fn a_refused_type_says_what_to_do() {
    let (file, _) = &cases("arrays", ".npy")["objects.npy"];
    let error = npy::read(&&file[..], &Limits::default()).unwrap_err();
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("arrays of numbers"))
    );
    let (file, _) = &cases("arrays", ".npy")["bfloat16.npy"];
    let error = npy::read(&&file[..], &Limits::default()).unwrap_err();
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("safetensors"))
    );
}

#[test]
fn every_cut_of_an_array_is_refused() {
    for (name, (file, case)) in cases("arrays", ".npy") {
        if case["arrays"].is_object() && name != "after.npy" {
            for end in 0..file.len() {
                assert!(read(&name, &file[..end]).is_err(), "{name} at {end}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_header_gives_an_array_inside_the_file_or_none(
        descr in prop_oneof![Just("<f4"), Just(">i8"), Just("|u1"), Just("<c16"), Just("O")],
        is_fortran in any::<bool>(),
        shape in prop::collection::vec(prop_oneof![0u64..4, any::<u64>()], 0..5),
        n_bytes in 0usize..300,
    ) {
        let fortran = if is_fortran { "True" } else { "False" };
        let shape_text: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
        let text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({shape_text})}}");
        let length = (text.len() as u16).to_le_bytes();
        let file = [b"\x93NUMPY\x01\0", &length[..], text.as_bytes(), &vec![7; n_bytes]].concat();
        if let Ok(foreign) = read("a.npy", &file) {
            let Node::Ndarray(array) = &foreign.tree[foreign.tree.root()] else {
                panic!("no array");
            };
            prop_assert_eq!(array.view.shape(), shape);
            let width = array.view.element().width_bytes();
            let n_values = values(&file, &foreign, &array.view).len() as u64;
            prop_assert_eq!(n_values, array.view.n_elements() * width);
            prop_assert!(n_values <= n_bytes as u64);
        }
    }

    #[test]
    fn changed_arrays_are_read_without_harm(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let files: Vec<_> = cases("arrays", "").into_iter().collect();
        let (name, (file, _)) = &files[which.index(files.len())];
        let mut file = file.clone();
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let _ = read(name, &file);
    }
}
