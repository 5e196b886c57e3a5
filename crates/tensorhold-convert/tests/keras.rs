//! HDF5 files and archives that h5py and Keras wrote, and bent ones, against what h5py reads of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cases, check_findings, check_refusal, hex, pairs, values};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tensorhold_convert::{Foreign, Format, Limits, Node, NodeId};

fn described(file: &[u8], foreign: &Foreign, id: NodeId) -> Value {
    match &foreign.tree[id] {
        Node::Dict(_) => {
            let pairs = pairs(foreign, id).into_iter();
            let tree = pairs.map(|(name, value)| (name, described(file, foreign, value)));
            Value::Object(tree.collect::<Map<_, _>>())
        }
        Node::Tensor(tensor) => json!({
            "$array": tensor.view.element().name(),
            "shape": tensor.view.shape(),
            "values": hex(&values(file, foreign, &tensor.view)),
        }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_have_what_h5py_finds_in_them() {
    for (name, (file, case)) in cases("keras", "") {
        let foreign = Foreign::read(&&file[..], &Limits::default());
        if case["error"].is_string() && name != "magic.h5" {
            check_refusal(&name, foreign, &case);
            continue;
        }
        if name == "magic.h5" {
            check_refusal(
                &name,
                tensorhold_convert::hdf5::read(&&file[..], &Limits::default()),
                &case,
            );
            continue;
        }
        let foreign = foreign.unwrap_or_else(|error| panic!("{name}: {error}"));
        let format = if name.ends_with(".keras") {
            Format::Keras
        } else {
            Format::Hdf5
        };
        assert_eq!(foreign.format, format, "{name}");
        check_findings(&name, &foreign.findings, &case);
        let found = described(&file, &foreign, foreign.tree.root());
        assert_eq!(found, case["tree"], "{name}");
    }
}

#[test]
fn a_dataset_with_two_names_lies_in_one_storage() {
    let (file, _) = &cases("keras", ".h5")["kinds.h5"];
    let foreign = Foreign::read(&&file[..], &Limits::default()).unwrap();
    let of = |name: &str| {
        let pairs = pairs(&foreign, foreign.tree.root());
        let (_, id) = pairs.into_iter().find(|(key, _)| key == name).unwrap();
        match &foreign.tree[id] {
            Node::Tensor(tensor) => tensor.view.storage(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of("tied"), of("f4"));
    assert_ne!(of("f8"), of("f4"));
}

#[test]
fn what_is_refused_says_how_to_write_it_again() {
    let (file, _) = &cases("keras", ".h5")["chunks.h5"];
    let error = Foreign::read(&&file[..], &Limits::default()).unwrap_err();
    assert!(
        error.hint().is_some_and(|hint| hint.contains("h5repack")),
        "{error}"
    );
}

proptest! {
    #[test]
    fn changed_files_are_read_without_harm(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let files: Vec<_> = cases("keras", ".h5").into_iter().collect();
        let (_, (file, _)) = &files[which.index(files.len())];
        let mut file = file.clone();
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Ok(foreign) = tensorhold_convert::hdf5::read(&&file[..], &Limits::default()) {
            described(&file, &foreign, foreign.tree.root());
        }
    }
}
