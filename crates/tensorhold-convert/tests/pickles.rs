//! Pickles and archives that PyTorch wrote, and bent ones, against what PyTorch and pickletools find in them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{cases, hex, values};
use serde_json::{Value, json};
use tensorhold_convert::{
    Class, Data, Element, Foreign, Format, Lie, Limits, Node, NodeId, Place, Tensor,
};

fn read(file: &[u8]) -> Foreign {
    Foreign::read(&file, &Limits::default()).unwrap()
}

/// A value as the maker of the fixtures describes it.
fn described(file: &[u8], foreign: &Foreign, id: NodeId) -> Value {
    let of = |id: &NodeId| described(file, foreign, *id);
    let list =
        |kind: &str, items: &[NodeId]| json!({kind: items.iter().map(of).collect::<Vec<_>>()});
    let dict = |kind: &str, pairs: &[(NodeId, NodeId)]| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| [of(key), of(value)])
            .collect();
        json!({kind: pairs})
    };
    match &foreign.tree[id] {
        Node::None => Value::Null,
        Node::Bool(truth) => json!(truth),
        Node::Int(number) => json!(number),
        Node::BigInt(bytes) => json!({"int": integer(bytes)}),
        Node::Float(number) => json!({"float": format!("{:016x}", number.to_bits())}),
        Node::Complex(real, imaginary) => {
            let part = |number: &f64| json!({"float": format!("{:016x}", number.to_bits())});
            json!({"complex": [part(real), part(imaginary)]})
        }
        Node::Str(text) => json!(text.as_str().unwrap()),
        Node::Bytes(data) => json!({"bytes": hex(&bytes(file, foreign, data))}),
        Node::ByteArray(data) => json!({"bytearray": hex(&bytes(file, foreign, data))}),
        Node::List(items) => list("list", items),
        Node::Tuple(items) => list("tuple", items),
        Node::Set(items) => list("set", items),
        Node::Dict(pairs) => dict("dict", pairs),
        Node::OrderedDict { pairs, .. } => dict("OrderedDict", pairs),
        Node::Size(sizes) => json!({"size": sizes}),
        Node::Dtype(element) => json!({"word": format!("torch.{}", element.name())}),
        Node::Scalar(name, value) => json!({"scalar": name, "value": of(value)}),
        Node::Tensor(tensor) => described_tensor(file, foreign, tensor),
        Node::Ndarray(array) => json!({
            "array": array.dtype,
            "shape": array.view.shape(),
            "values": hex(&values(file, foreign, &array.view)),
        }),
        other => panic!("{other:?}"),
    }
}

fn described_tensor(file: &[u8], foreign: &Foreign, tensor: &Tensor) -> Value {
    let flags = [
        ("conj", tensor.is_conj),
        ("neg", tensor.is_neg),
        ("parameter", tensor.is_parameter),
        ("requires_grad", tensor.requires_grad),
    ];
    let flags: Vec<_> = flags
        .iter()
        .filter(|flag| flag.1)
        .map(|flag| flag.0)
        .collect();
    json!({
        "tensor": tensor.view.element().name(),
        "shape": tensor.view.shape(),
        "flags": flags,
        "values": hex(&values(file, foreign, &tensor.view)),
    })
}

/// The decimal digits of a number of up to 16 bytes.
fn integer(bytes: &[u8]) -> String {
    let sign = if bytes.last().unwrap() >= &0x80 {
        0xff
    } else {
        0
    };
    let mut word = [sign; 16];
    word[..bytes.len()].copy_from_slice(bytes);
    i128::from_le_bytes(word).to_string()
}

fn bytes(file: &[u8], foreign: &Foreign, data: &Data) -> Vec<u8> {
    match data {
        Data::Memory(bytes) => bytes.clone(),
        Data::Storage(storage) => match &foreign.storages[storage.0 as usize].place {
            Place::InFile(range) => file[range.start as usize..range.end as usize].to_vec(),
            Place::Memory(bytes) => bytes.clone(),
            place => panic!("{place:?}"),
        },
    }
}

#[test]
fn files_have_what_pytorch_loads() {
    let mut n_compared = 0;
    for (name, (file, case)) in cases("pickles", "") {
        if case["tree"].is_null() {
            continue;
        }
        let foreign = read(&file);
        let found = described(&file, &foreign, foreign.tree.root());
        assert_eq!(found, case["tree"], "{name}");
        n_compared += 1;
    }
    assert!(n_compared >= 20, "{n_compared}");
}

#[test]
fn a_pickled_module_has_the_state_dict_that_it_would_give() {
    let (file, case) = cases("pickles", "module.pt").remove("module.pt").unwrap();
    let mut foreign = read(&file);
    let root = foreign.tree.root();
    let state = foreign
        .state_dict(root, &Limits::default())
        .unwrap()
        .unwrap();
    assert_eq!(described(&file, &foreign, state), case["state"]);
}

#[test]
fn what_a_bent_pickle_asks_for_is_told() {
    for (name, (file, case)) in cases("pickles", "") {
        if !name.starts_with("bent_") && case["globals"].is_null() {
            continue;
        }
        let foreign = read(&file);
        if let Some(expected) = case["globals"].as_array() {
            let found: Vec<_> = foreign
                .globals
                .iter()
                .filter(|global| global.class != Class::Harmless)
                .map(|global| json!([global.dotted(), global.class.name(), global.is_called]))
                .collect();
            for global in expected {
                assert!(found.contains(global), "{name}: {found:?}");
            }
            assert_eq!(found.is_empty(), expected.is_empty(), "{name}: {found:?}");
        }
        for expected in case["findings"].as_array().unwrap_or(&Vec::new()) {
            let is_told = |message: &str| message.contains(expected.as_str().unwrap());
            let mut findings = foreign.findings.iter();
            let found = findings.any(|finding| is_told(&finding.message));
            assert!(found, "{name}: {expected} not in {:?}", foreign.findings);
        }
    }
}

#[test]
fn no_honest_file_has_a_name_that_is_feared() {
    for (name, (file, case)) in cases("pickles", "") {
        if case["tree"].is_null() || name.starts_with("bent_") {
            continue;
        }
        let foreign = read(&file);
        let feared: Vec<_> = foreign
            .globals
            .iter()
            .filter(|global| global.class != Class::Harmless)
            .collect();
        assert!(
            feared.is_empty() && foreign.findings.is_empty(),
            "{name}: {feared:?} {:?}",
            foreign.findings
        );
    }
}

#[test]
fn a_pickle_that_an_unpickler_would_refuse_is_refused_with_its_place() {
    for (name, (file, case)) in cases("pickles", "") {
        let Some(expected) = case["error"].as_str() else {
            continue;
        };
        let error = Foreign::read(&&file[..], &Limits::default()).unwrap_err();
        assert!(error.message().contains(expected), "{name}: {error}");
    }
}

#[test]
fn what_a_pickle_asks_for_before_and_after_it_goes_wrong_is_told() {
    for (name, is_called) in [
        ("refused_after_a_call.pkl", true),
        ("refused_before_a_call.pkl", false),
    ] {
        let (file, _) = cases("pickles", name).remove(name).unwrap();
        let broken = Foreign::examine(&&file[..], &Limits::default()).unwrap_err();
        let [global] = &broken.globals[..] else {
            panic!("{name}: {:?}", broken.globals);
        };
        assert_eq!(
            (global.dotted().as_str(), global.class),
            ("posix.system", Class::Dangerous)
        );
        assert_eq!(global.is_called, is_called, "{name}");
    }
}

#[test]
fn every_cut_of_a_file_is_refused() {
    for name in [
        "plain_2.pkl",
        "plain_4.pkl",
        "legacy.pt",
        "views_2.pt",
        "old.tar",
    ] {
        let (file, _) = cases("pickles", name).remove(name).unwrap();
        // A tar archive ends with records of zeros, which may be missing.
        let end = if name == "old.tar" {
            file.len() - 1024
        } else {
            file.len()
        };
        for end in (0..end).step_by(if end > 2000 { 7 } else { 1 }) {
            let cut = Foreign::read(&&file[..end], &Limits::default());
            assert!(cut.is_err(), "{name} at {end}");
        }
    }
}

#[test]
fn views_of_one_storage_stay_views_of_it() {
    let (file, _) = cases("pickles", "views_2.pt").remove("views_2.pt").unwrap();
    let foreign = read(&file);
    assert_eq!(foreign.format, Format::TorchZip);
    let storage_of = |name: &str| {
        let id = foreign.tree.entry(foreign.tree.root(), name).unwrap();
        let Node::Tensor(tensor) = &foreign.tree[id] else {
            panic!("it is a tensor");
        };
        tensor.view.storage()
    };
    assert_eq!(storage_of("whole"), storage_of("row"));
    assert_eq!(storage_of("whole"), storage_of("turned"));
    let tied = foreign.tree.entry(foreign.tree.root(), "tied").unwrap();
    let items = foreign.tree.items(tied).unwrap();
    assert_eq!(items[0], items[1]);
    let laid = foreign.lay_out(foreign.tree.root(), Lie::Written).unwrap();
    let names: Vec<_> = laid
        .stored
        .iter()
        .map(|stored| stored.name.as_str())
        .collect();
    assert_eq!(
        names
            .iter()
            .filter(|name| ["row", "turned"].contains(name))
            .count(),
        0
    );
}

#[test]
fn the_bytes_of_a_tensor_are_a_range_of_the_file() {
    let (file, _) = cases("pickles", "legacy.pt").remove("legacy.pt").unwrap();
    let foreign = read(&file);
    assert_eq!(foreign.format, Format::TorchLegacy);
    assert!(
        foreign
            .storages
            .iter()
            .all(|storage| matches!(storage.place, Place::InFile(_)))
    );
}

/// A pickle of `n` lists, each in the one before.
fn nested(n: usize) -> Vec<u8> {
    let mut file = b"\x80\x02".to_vec();
    file.extend(std::iter::repeat_n(b']', n + 1));
    file.extend(std::iter::repeat_n(b'a', n));
    file.push(b'.');
    file
}

#[test]
fn depth_is_no_matter_to_the_machine() {
    let foreign = read(&nested(2_000_000));
    assert!(foreign.tree.n_nodes() > 2_000_000);
    assert!(foreign.lay_out(foreign.tree.root(), Lie::Written).is_err());
    let foreign = read(&nested(900));
    assert!(foreign.lay_out(foreign.tree.root(), Lie::Written).is_ok());
}

#[test]
fn lists_that_double_again_and_again_take_no_more_than_their_file() {
    // Each list has the one before it ten times over: 10^1000 items, were they copied.
    let mut file = b"\x80\x02]q\0".to_vec();
    for _ in 0..1000 {
        file.extend(b"](h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0eq\0");
    }
    file.push(b'.');
    let foreign = read(&file);
    assert!(foreign.tree.n_nodes() < 20_000);
    let laid = foreign.lay_out(foreign.tree.root(), Lie::Written);
    assert!(laid.is_err() || laid.unwrap().text.len() < 10 * file.len());
}

#[test]
fn arguments_that_many_calls_share_are_written_a_bounded_number_of_times() {
    let mut file = b"\x80\x02cmymodule\nThing\nq\0)q\x01".to_vec();
    for _ in 0..200 {
        file.extend(b"0h\0h\x01Rq\x02h\0h\x01R\x86q\x01");
    }
    file.push(b'.');
    let foreign = read(&file);
    let laid = foreign.lay_out(foreign.tree.root(), Lie::Written);
    assert!(laid.is_err() || laid.unwrap().text.len() < 100 * file.len());
}

#[test]
fn text_that_is_encoded_again_and_again_is_refused() {
    let mut file = b"\x80\x02](X\x00\x00\x01\x00".to_vec();
    file.extend(vec![b'a'; 1 << 16]);
    file.extend(b"q\x01X\x06\x00\x00\x00latin1q\x02\x86q\x03");
    for _ in 0..300 {
        file.extend(b"c_codecs\nencode\nh\x03R");
    }
    file.extend(b"e.");
    let refused = Foreign::read(&&file[..], &Limits::default()).unwrap_err();
    assert!(
        refused.message().contains("more bytes than the limit"),
        "{refused}"
    );
}

#[test]
fn the_limits_of_operations_and_values_are_kept() {
    let file = nested(1000);
    let mut limits = Limits::default();
    limits.operations = 500;
    let refused = Foreign::read(&&file[..], &limits).unwrap_err();
    assert!(
        refused
            .message()
            .contains("more operations than the limit of 500"),
        "{refused}"
    );
    let mut limits = Limits::default();
    limits.nodes = 500;
    let refused = Foreign::read(&&file[..], &limits).unwrap_err();
    assert!(
        refused
            .message()
            .contains("more values than the limit of 500"),
        "{refused}"
    );
}

#[test]
fn every_dtype_of_pytorch_is_known_by_its_global() {
    for name in [
        "float8_e5m2fnuz",
        "complex32",
        "bits1x8",
        "uint7",
        "quint2x4",
        "half",
    ] {
        let file = format!("\u{2}ctorch\n{name}\n.");
        let file = [&[0x80], file.as_bytes()].concat();
        let foreign = read(&file);
        let expected = Element::from_name(name).unwrap();
        assert_eq!(foreign.tree[foreign.tree.root()], Node::Dtype(expected));
    }
}

#[test]
fn modules_that_double_again_and_again_are_refused() {
    let key = |name: &str| [&[0x8c, name.len() as u8], name.as_bytes()].concat();
    let module = |inner: &[u8]| {
        let (parameters, buffers, modules) = (key("_parameters"), key("_buffers"), key("_modules"));
        let state = [
            &parameters[..],
            b"}",
            &buffers,
            b"}",
            &modules,
            b"}(",
            inner,
            b"u",
        ];
        [b"cmymodule\nThing\n)\x81}(", &state.concat()[..], b"ub"].concat()
    };
    let mut file = [b"\x80\x04", &module(b"")[..], b"q\x01"].concat();
    for _ in 0..60 {
        let inner = [&key("a")[..], b"h\x01", &key("b"), b"h\x01"].concat();
        file.extend([b"0", &module(&inner)[..], b"q\x01"].concat());
    }
    file.push(b'.');
    let mut foreign = read(&file);
    let root = foreign.tree.root();
    let refused = foreign.state_dict(root, &Limits::default()).unwrap_err();
    assert!(refused.message().contains("too long together"), "{refused}");
}

#[test]
fn an_operation_that_crosses_the_end_of_its_frame_is_refused_and_what_follows_told() {
    let torn = b"\x80\x04\x95\x03\0\0\0\0\0\0\0\x8a\x08builtinst(ios\nsystem\n.".as_slice();
    let broken = Foreign::examine(&torn, &Limits::default()).unwrap_err();
    let message =
        "an operation crosses the end of a frame, behind which readers go on at different bytes";
    assert_eq!(broken.error.message(), message);
    let names: Vec<String> = broken.globals.iter().map(|name| name.dotted()).collect();
    assert_eq!(names, ["os.system"]);
}
