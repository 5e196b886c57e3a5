//! Our verdict and table held against those of crate `safetensors` 0.8.0.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tensorhold_core::{Header, Rules};

/// Holds the two verdicts and tables against each other; whether the file is accepted.
pub fn check(file: &[u8]) -> bool {
    let ours = Header::parse_file(file, Rules::Compatible);
    // A debug build of the reference panics where a release build wraps around, and refuses.
    let theirs = catch_unwind(AssertUnwindSafe(|| SafeTensors::read_metadata(file)));
    let theirs = theirs.ok().and_then(Result::ok);
    let shown = String::from_utf8_lossy(file.get(8..).unwrap_or_default()).into_owned();
    match (&ours, &theirs) {
        (Ok(ours), Some((length, theirs))) => {
            assert_eq!(ours.data_start(), *length as u64 + 8, "{shown}");
            compare_tables(ours, theirs, &shown);
        }
        (Err(error), Some((length, _))) => {
            let text =
                std::str::from_utf8(&file[8..8 + length]).expect("the reference has read it");
            assert!(has_duplicate_name(text), "{error}: {shown}");
        }
        (Ok(_), None) => panic!("the reference refuses what we accept: {shown}"),
        (Err(_), None) => {}
    }
    check_strict(file, &ours, &shown);
    ours.is_ok()
}

fn compare_tables(ours: &Header, theirs: &Metadata, shown: &str) {
    let tensors = theirs.tensors();
    assert_eq!(ours.len(), tensors.len(), "{shown}");
    assert_eq!(ours.data_size(), theirs.data_len() as u64, "{shown}");
    for (index, tensor) in ours.tensors().enumerate() {
        let their_info = tensors[tensor.name];
        let shape: Vec<u64> = their_info.shape.iter().map(|&size| size as u64).collect();
        let (start, end) = their_info.data_offsets;
        assert_eq!(
            tensor.dtype.to_string(),
            their_info.dtype.to_string(),
            "{shown}"
        );
        assert_eq!(tensor.shape, shape, "{shown}");
        assert_eq!(tensor.offsets.start, start as u64, "{shown}");
        assert_eq!(tensor.offsets.end, end as u64, "{shown}");
        assert_eq!(ours.index_of(tensor.name), Some(index), "{shown}");
        assert_eq!(ours.tensor_at(index), Some(tensor), "{shown}");
    }
    assert!(
        ours.tensors().is_sorted_by_key(|tensor| tensor.offsets),
        "{shown}"
    );
    let our_metadata = ours.metadata().map(|metadata| {
        assert_eq!(metadata.iter().count(), metadata.len());
        metadata
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    });
    assert_eq!(our_metadata, *theirs.metadata(), "{shown}");
}

fn check_strict(file: &[u8], compatible: &tensorhold_core::Result<Header>, shown: &str) {
    let Ok(strict) = Header::parse_file(file, Rules::Strict) else {
        return;
    };
    let compatible = compatible
        .as_ref()
        .expect("strict rules accept what compatible ones refuse");
    assert!(strict.tensors().eq(compatible.tensors()), "{shown}");
    let pairs = |header: &Header| -> Option<Vec<(String, String)>> {
        Some(
            header
                .metadata()?
                .iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        )
    };
    assert_eq!(pairs(&strict), pairs(compatible), "{shown}");
    assert!(
        strict
            .tensors()
            .all(|t| !t.name.is_empty() && !t.name.contains(char::is_control))
    );
}

fn has_duplicate_name(text: &str) -> bool {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = bool;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a header")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let mut names = HashSet::new();
            let mut has_duplicate = false;
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                has_duplicate |= !names.insert(name);
            }
            Ok(has_duplicate)
        }
    }
    serde_json::Deserializer::from_str(text)
        .deserialize_map(Names)
        .expect("the reference has read it")
}
