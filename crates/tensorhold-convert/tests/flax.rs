//! Message packs that Flax wrote, and bent ones, against what Flax reads of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cases, check_findings, check_refusal, hex, values};
use proptest::prelude::*;
use serde_json::{Value, json};
use tensorhold_convert::{Data, Foreign, Limits, Node, NodeId, Place, flax};

/// A value as the maker of the fixtures describes it.
fn described(file: &[u8], foreign: &Foreign, id: NodeId) -> Value {
    let of = |id: &NodeId| described(file, foreign, *id);
    match &foreign.tree[id] {
        Node::None => Value::Null,
        Node::Bool(truth) => json!(truth),
        Node::Int(number) => json!(number),
        Node::BigInt(bytes) => {
            let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes[8..], [0]);
            json!({"integer": number.to_string()})
        }
        Node::Float(number) => json!(number),
        Node::Complex(real, imaginary) => json!({"complex": [real, imaginary]}),
        Node::Str(text) => json!(text.as_str().unwrap()),
        Node::Bytes(Data::Memory(bytes)) => json!({"bytes": hex(bytes)}),
        Node::Bytes(Data::Storage(storage)) => {
            let Place::InFile(range) = foreign.storages[storage.0 as usize].place else {
                panic!("bytes lie elsewhere");
            };
            json!({"bytes": hex(&file[range.start as usize..range.end as usize])})
        }
        Node::List(items) => json!({"list": items.iter().map(of).collect::<Vec<_>>()}),
        Node::Dict(pairs) => {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(key, value)| [of(key), of(value)])
                .collect();
            json!({"dict": pairs})
        }
        Node::Scalar(name, value) => json!({"scalar": name, "value": of(value)}),
        Node::Tensor(tensor) => json!({
            "array": tensor.view.element().name(),
            "shape": tensor.view.shape(),
            "values": hex(&values(file, foreign, &tensor.view)),
        }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_have_what_flax_finds_in_them() {
    for (name, (file, case)) in cases("flax", ".msgpack") {
        let foreign = flax::read(&&file[..], &Limits::default());
        if case["error"].is_string() {
            check_refusal(&name, foreign, &case);
            continue;
        }
        let foreign = foreign.unwrap_or_else(|error| panic!("{name}: {error}"));
        check_findings(&name, &foreign.findings, &case);
        let found = described(&file, &foreign, foreign.tree.root());
        assert_eq!(found, case["tree"], "{name}");
    }
}

#[test]
fn every_cut_of_a_file_is_refused() {
    for (name, (file, case)) in cases("flax", ".msgpack") {
        if case["error"].is_null() && name != "after.msgpack" {
            for end in 0..file.len() {
                let cut = flax::read(&&file[..end], &Limits::default());
                assert!(cut.is_err(), "{name} at {end}");
            }
        }
    }
}

#[test]
fn the_limit_of_values_is_kept() {
    let mut limits = Limits::default();
    limits.nodes = 10;
    let file = [&[0xdc, 0, 10][..], &[0xc0; 10]].concat();
    let error = flax::read(&&file[..], &limits).unwrap_err();
    assert!(
        error.message().contains("more values than the limit of 10"),
        "{error}"
    );
}

#[test]
fn a_large_array_in_chunks_stays_in_the_file() {
    let (file, _) = &cases("flax", ".msgpack")["chunked.msgpack"];
    let foreign = flax::read(&&file[..], &Limits::default()).unwrap();
    let in_pieces = foreign
        .storages
        .iter()
        .find_map(|storage| match &storage.place {
            Place::Pieces(pieces) => Some(pieces.len()),
            _ => None,
        });
    assert_eq!(in_pieces, Some(4));
}

proptest! {
    #[test]
    fn changed_files_are_read_without_harm(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let files: Vec<_> = cases("flax", ".msgpack").into_iter().collect();
        let (_, (file, _)) = &files[which.index(files.len())];
        let mut file = file.clone();
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Ok(foreign) = flax::read(&&file[..], &Limits::default()) {
            described(&file, &foreign, foreign.tree.root());
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(file in prop::collection::vec(any::<u8>(), 0..500)) {
        if let Ok(foreign) = flax::read(&&file[..], &Limits::default()) {
            described(&file, &foreign, foreign.tree.root());
        }
    }
}
