//! Any bytes as a GGUF file: every tensor lies in the file, and blocks can be taken apart whatever their bits are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_convert::gguf::{self, Blocks, dequantize};
use tensorhold_convert::{Foreign, Limits, Node, Place};
use tensorhold_fuzz::foreign::check;
use tensorhold_fuzz::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|file: &[u8]| {
    if let Some(foreign) = check(file, 256 * 1024, &mut || {
        gguf::read(&file, &Limits::default())
    }) {
        take_apart(file, &foreign);
    }
});

fn take_apart(file: &[u8], foreign: &Foreign) {
    let Node::Dict(pairs) = &foreign.tree[foreign.tree.root()] else {
        panic!("the root is no dict");
    };
    for (_, value) in pairs {
        let Node::Tensor(tensor) = &foreign.tree[*value] else {
            continue;
        };
        let Some(blocks) = Blocks::of(&foreign.tree, tensor) else {
            continue;
        };
        let storage = &foreign.storages[tensor.view.storage().0 as usize];
        let Place::InFile(place) = &storage.place else {
            continue;
        };
        let bytes = &file[place.start as usize..place.end as usize];
        let n_values = blocks.shape.iter().product::<u64>() as usize;
        let mut values = vec![0f32; n_values];
        let done = dequantize(blocks.kind, blocks.is_big_endian, bytes, &mut values);
        assert_eq!(
            done.is_ok(),
            blocks.kind.is_dequantized(blocks.is_big_endian)
        );
    }
}
