use tensorhold_core::{ByteRange, Dtype};

use super::*;
use crate::storage::{Place, Storage};
use crate::tree::{Ndarray, Tensor, Text, Tree};
use crate::{Format, StorageId};

/// A tree with values under the names `a`, `b` and so on, over one storage of 64 bytes.
fn foreign(make: impl FnOnce(&mut Tree) -> Vec<NodeId>) -> Foreign {
    let mut tree = Tree::new();
    let values = make(&mut tree);
    let names = ["a", "b", "c", "d"];
    let pairs = names.iter().zip(values);
    let pairs = pairs.map(|(name, id)| (tree.push(Node::Str(Text::from(*name))), id));
    let pairs = pairs.collect();
    let root = tree.push(Node::Dict(pairs));
    tree.set_root(root);
    let place = Place::InFile(ByteRange::new(100, 164));
    Foreign {
        format: Format::TorchZip,
        tree,
        storages: vec![Storage::new("data/0", place, 64)],
        globals: Vec::new(),
        findings: Vec::new(),
    }
}

fn tensor(element: Element, offset: u64, shape: &[u64], strides: &[u64]) -> Node {
    let storage = (StorageId(0), 64);
    let view = View::new(storage, element, offset, shape.into(), strides.into());
    Node::Tensor(Box::new(Tensor::new(view.expect("it lies inside"))))
}

fn laid(foreign: &Foreign, lie: Lie) -> (serde_json::Value, Vec<(String, Dtype, Vec<u64>)>) {
    let laid = foreign
        .lay_out(foreign.tree.root(), lie)
        .expect("it is in order");
    let stored = laid.stored.into_iter();
    let stored = stored.map(|one| (one.name, one.dtype, one.shape)).collect();
    (
        serde_json::from_str(&laid.text).expect("it is JSON"),
        stored,
    )
}

#[test]
fn a_tensor_that_fills_what_is_used_is_stored_and_others_are_views_of_it() {
    let foreign = foreign(|tree| {
        vec![
            tree.push(tensor(Element::Float32, 8, &[2], &[1])),
            tree.push(tensor(Element::Float32, 4, &[2, 3], &[3, 1])),
            tree.push(tensor(Element::Float32, 4, &[3, 2], &[1, 3])),
            tree.push(tensor(Element::Float32, 4, &[2, 3], &[3, 1])),
        ]
    });
    let (text, stored) = laid(&foreign, Lie::Written);
    assert_eq!(stored, [("b".into(), Dtype::F32, vec![2, 3])]);
    let expected = serde_json::json!({
        "a": {"$tensor": "b", "shape": [2], "offset": 4},
        "b": {"$tensor": "b"},
        "c": {"$tensor": "b", "shape": [3, 2], "stride": [1, 3]},
        "d": {"$tensor": "b"},
    });
    assert_eq!(text["root"], expected);
    let laid = foreign.lay_out(foreign.tree.root(), Lie::Written).unwrap();
    assert_eq!(laid.tied, [("d".to_owned(), "b".to_owned())]);
}

#[test]
fn tensors_that_only_overlap_are_views_of_all_that_is_used() {
    let foreign = foreign(|tree| {
        vec![
            tree.push(tensor(Element::Int64, 1, &[2], &[1])),
            tree.push(tensor(Element::Int64, 2, &[3], &[1])),
        ]
    });
    let (text, stored) = laid(&foreign, Lie::Written);
    assert_eq!(stored, [("a".into(), Dtype::I64, vec![4])]);
    let expected = serde_json::json!({
        "a": {"$tensor": "a", "shape": [2]},
        "b": {"$tensor": "a", "shape": [3], "offset": 1},
    });
    assert_eq!(text["root"], expected);
}

#[test]
fn what_lies_alone_is_stored_by_its_values_or_as_it_lies() {
    let foreign = foreign(|tree| vec![tree.push(tensor(Element::Float16, 2, &[3, 2], &[1, 3]))]);
    let (text, stored) = laid(&foreign, Lie::Written);
    assert_eq!(stored, [("a".into(), Dtype::F16, vec![3, 2])]);
    let expected = serde_json::json!({"$tensor": "a", "layout_stride": [1, 3]});
    assert_eq!(text["root"]["a"], expected);
    let (text, stored) = laid(&foreign, Lie::Placed);
    assert_eq!(stored, [("a".into(), Dtype::F16, vec![6])]);
    let expected = serde_json::json!({"$tensor": "a", "shape": [3, 2], "stride": [1, 3]});
    assert_eq!(text["root"]["a"], expected);
}

#[test]
fn types_that_the_format_lacks_lie_in_containers() {
    let foreign = foreign(|tree| vec![tree.push(tensor(Element::Complex128, 1, &[3], &[1]))]);
    let (text, stored) = laid(&foreign, Lie::Written);
    assert_eq!(stored, [("a".into(), Dtype::F64, vec![3, 2])]);
    let expected = serde_json::json!({"$tensor": "a", "dtype": "complex128", "shape": [3]});
    assert_eq!(text["root"]["a"], expected);
}

#[test]
fn a_value_that_occurs_twice_is_shared_and_one_in_itself_is_named() {
    let foreign = foreign(|tree| {
        let list = tree.push(Node::None);
        let one = tree.push(Node::Int(1));
        tree.replace(list, Node::List(vec![one, list]));
        vec![list, list, one, one]
    });
    let (text, _) = laid(&foreign, Lie::Written);
    let expected = serde_json::json!({"a": {"$shared": 0}, "b": {"$shared": 0}, "c": 1, "d": 1});
    assert_eq!(text["root"], expected);
    assert_eq!(
        text["shared"][0][1]["$opaque"],
        "a value that contains itself"
    );
}

#[test]
fn arrays_say_what_their_type_does_not() {
    let array = |dtype: &str| {
        let storage = (StorageId(0), 64);
        let view = View::contiguous(storage, Element::Float32, 0, vec![4]).unwrap();
        Node::Ndarray(Box::new(Ndarray {
            view,
            dtype: dtype.into(),
            is_fortran: false,
        }))
    };
    let foreign = foreign(|tree| vec![tree.push(array("<f4")), tree.push(array(">f4"))]);
    let (text, stored) = laid(&foreign, Lie::Written);
    assert_eq!(stored.len(), 2);
    assert_eq!(text["root"]["a"], serde_json::json!({"$ndarray": "a"}));
    assert_eq!(
        text["root"]["b"],
        serde_json::json!({"$ndarray": "b", "dtype": ">f4"})
    );
}

#[test]
fn depth_is_bounded() {
    let foreign = foreign(|tree| {
        let mut inner = tree.push(Node::None);
        for _ in 0..100_000 {
            inner = tree.push(Node::List(vec![inner]));
        }
        vec![inner]
    });
    let error = foreign
        .lay_out(foreign.tree.root(), Lie::Written)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overflow);
}

#[test]
fn names_are_paths_and_never_twice_the_same() {
    let foreign = foreign(|tree| {
        let x = tree.push(tensor(Element::Int8, 0, &[1], &[1]));
        let y = tree.push(tensor(Element::Int8, 1, &[1], &[1]));
        let key = tree.push(Node::Str(Text::from("x.0")));
        let zero = tree.push(Node::Int(0));
        let inner = tree.push(Node::Str(Text::from("x")));
        let nested = tree.push(Node::Dict(vec![(zero, y)]));
        vec![tree.push(Node::Dict(vec![(key, x), (inner, nested)]))]
    });
    let names = |lie| -> Vec<String> {
        let laid = foreign.lay_out(foreign.tree.root(), lie).unwrap();
        assert!(
            laid.text.contains("[0,{\"$tensor\":\"a.x.0\""),
            "{}",
            laid.text
        );
        laid.stored.into_iter().map(|one| one.name).collect()
    };
    assert_eq!(names(Lie::Written), ["a.x.0"]);
}
