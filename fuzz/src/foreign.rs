//! A read of a foreign file that is held to its size in memory, and its result to the file.

use tensorhold_convert::{Foreign, Node, NodeId, Place, View};
use tensorhold_core::Result;

use crate::memory::peak_of;

/// Memory for each byte of a file: a value that takes one byte there is a node and a number here, in vectors that double.
const FOR_EACH_BYTE: usize = 256;

/// Reads `file`; panics where that takes too much beside `spare_bytes`, or gives places outside it.
pub fn check(
    file: &[u8],
    spare_bytes: usize,
    read: &mut dyn FnMut() -> Result<Foreign>,
) -> Option<Foreign> {
    let mut foreign = None;
    let peak = peak_of(|| foreign = read().ok());
    let allowed = FOR_EACH_BYTE * file.len() + spare_bytes;
    assert!(peak < allowed, "{peak} bytes for a file of {}", file.len());
    let foreign = foreign?;
    for storage in &foreign.storages {
        let size_bytes = match &storage.place {
            Place::InFile(range) => range.len(),
            Place::Pieces(ranges) => ranges.iter().map(|range| range.len()).sum(),
            Place::Memory(bytes) => bytes.len() as u64,
            Place::Deflated(_) | Place::Missing => storage.size_bytes,
        };
        assert_eq!(size_bytes, storage.size_bytes);
        for range in ranges(&storage.place) {
            assert!(range.end <= file.len() as u64);
        }
    }
    for id in 0..foreign.tree.n_nodes() as u32 {
        if let Some(view) = view_of(&foreign.tree[NodeId(id)]) {
            let used = view.used_bytes().expect("its size was checked");
            assert!(used.end <= foreign.storages[view.storage().0 as usize].size_bytes);
        }
    }
    Some(foreign)
}

fn ranges(place: &Place) -> Vec<tensorhold_core::ByteRange> {
    match place {
        Place::InFile(range) | Place::Deflated(range) => vec![*range],
        Place::Pieces(ranges) => ranges.clone(),
        Place::Memory(_) | Place::Missing => Vec::new(),
    }
}

fn view_of(node: &Node) -> Option<&View> {
    match node {
        Node::Tensor(tensor) => Some(&tensor.view),
        Node::Ndarray(array) => Some(&array.view),
        _ => None,
    }
}
