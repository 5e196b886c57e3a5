//! Any operations in any order: a pickle is read or refused, and neither costs more than it is long.
#![allow(clippy::unwrap_used)]

mod common;

use common::cases;
use proptest::prelude::*;
use tensorhold_convert::{Foreign, Lie, Limits, Node, NodeId};

/// An operation with an argument that is right for it, as bytes.
fn operation() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "ccollections\nOrderedDict\n",
        "ctorch._utils\n_rebuild_tensor_v2\n",
        "ctorch._tensor\n_rebuild_from_type_v2\n",
        "ctorch\nFloatStorage\n",
        "ctorch\nSize\n",
        "cnumpy.core.multiarray\n_reconstruct\n",
        "cnumpy\ndtype\n",
        "c__builtin__\nset\n",
        "c_codecs\nencode\n",
        "ccopy_reg\n_reconstructor\n",
        "cmymodule\nThing\n",
        "imymodule\nThing\n",
    ]);
    let plain = prop::sample::select(
        b"(]}t)l\x85\x86\x87aesudR02b1o\x81\x92\x93\x94\x8f\x90\x91NQ\x88\x89".to_vec(),
    );
    let small = (prop::sample::select(b"KqhK".to_vec()), 0u8..6);
    let text = prop::sample::select(vec!["f4", "latin1", "<", "_parameters", "torch.strided"]);
    prop_oneof![
        2 => names.prop_map(|name| name.as_bytes().to_vec()),
        6 => plain.prop_map(|code| vec![code]),
        4 => small.prop_map(|(code, argument)| vec![code, argument]),
        2 => text.prop_map(|text| [&[0x8c, text.len() as u8], text.as_bytes()].concat()),
    ]
}

fn check(file: &[u8]) {
    let limits = Limits::default();
    let Ok(mut foreign) = Foreign::read(&file, &limits) else {
        return;
    };
    assert!(foreign.tree.n_nodes() <= 64 * file.len() + 64);
    for id in 0..foreign.tree.n_nodes() as u32 {
        if let Node::Tensor(tensor) = &foreign.tree[NodeId(id)] {
            let storage = &foreign.storages[tensor.view.storage().0 as usize];
            assert!(tensor.view.used_bytes().unwrap().end <= storage.size_bytes);
        }
    }
    let root = foreign.tree.root();
    let _ = foreign.lay_out(root, Lie::Written).map(|laid| {
        let text: serde_json::Value = serde_json::from_str(&laid.text).unwrap();
        assert_eq!(text["version"], 1);
    });
    let _ = foreign.state_dict(root, &limits);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn operations_in_any_order_are_read_or_refused(
        operations in prop::collection::vec(operation(), 0..60),
    ) {
        check(&[b"\x80\x02", &operations.concat()[..], b"."].concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_changed_byte_is_read_or_refused(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        name in prop::sample::select(vec!["views_4.pt", "plain_2.pkl", "arrays_5.pt", "legacy.pt", "module.pt", "old.tar"]),
    ) {
        let (mut file, _) = cases("pickles", name).remove(name).unwrap();
        let at = at.index(file.len());
        file[at] = byte;
        check(&file);
    }
}
