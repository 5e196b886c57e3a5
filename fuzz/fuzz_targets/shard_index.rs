//! Any text: reading an index never panics, says what `serde_json` reads, and lets no name of a
//! shard lead out of the folder.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tensorhold_core::{ErrorKind, ShardIndex};

fuzz_target!(|text: &[u8]| {
    let index = match ShardIndex::parse(text) {
        Ok(index) => index,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidIndex);
            return;
        }
    };
    for shard in index.shards() {
        let mut parts = Path::new(shard).components();
        assert!(matches!(parts.next(), Some(Component::Normal(name)) if name == shard.as_str()));
        assert!(parts.next().is_none() && !shard.contains(['\\', '\0']));
    }
    assert!(index.shards().is_sorted_by(|left, right| left < right));
    compare(&index, text);
    write_again(&index);
});

fn compare(index: &ShardIndex, text: &[u8]) {
    let read: Value = serde_json::from_slice(text).expect("it is JSON");
    let map = read["weight_map"].as_object().expect("it has a weight_map");
    assert_eq!(index.len(), map.len());
    for (tensor, place) in index.entries() {
        assert_eq!(map[tensor].as_str(), Some(index.shards()[place].as_str()));
        assert_eq!(index.shard_of(tensor), Some(place));
    }
    assert_eq!(index.total_size(), read["metadata"]["total_size"].as_u64());
    let metadata = index
        .metadata()
        .map(|raw| serde_json::from_str(raw).expect("it is JSON"));
    assert_eq!(metadata.as_ref(), read.get("metadata"));
}

fn write_again(index: &ShardIndex) {
    let entries = index
        .entries()
        .map(|(tensor, place)| (tensor, index.shards()[place].as_str()));
    let json = ShardIndex::to_json(entries.clone(), 7, &[]);
    let again = ShardIndex::parse(json.as_bytes()).expect("what is written can be read");
    assert!(again.entries().eq(index.entries()));
    assert_eq!(again.shards(), index.shards());
    let map: serde_json::Map<String, Value> = entries
        .map(|(tensor, shard)| (tensor.to_owned(), shard.into()))
        .collect();
    let read: Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(read["weight_map"].as_object(), Some(&map));
}
