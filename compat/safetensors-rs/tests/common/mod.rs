//! What several tests need of the published crate.
#![allow(dead_code)]

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;

pub const DTYPES: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

/// The published crate's dtype of the same name.
pub fn published_dtype(dtype: Dtype) -> published::Dtype {
    serde_json::from_value(dtype.to_string().into()).unwrap()
}

/// A file with this header and this many bytes of data.
pub fn file(header: &str, data_size: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..data_size).map(|n| n as u8));
    file
}

/// The variant of an error: the first word of how it prints for debugging, which both crates derive.
pub fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let end = text.find(['(', ' ']).unwrap_or(text.len());
    text[..end].to_owned()
}

/// What a reader makes of a file: everything it tells of every tensor, or the variant and text of its error.
#[derive(Debug, PartialEq, Clone)]
pub enum Verdict {
    Accepted {
        header_length: usize,
        metadata: Option<BTreeMap<String, String>>,
        tensors: BTreeMap<String, Seen>,
    },
    Refused {
        variant: String,
        text: String,
    },
}

#[derive(Debug, PartialEq, Clone)]
pub struct Seen {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
    data: Vec<u8>,
}

macro_rules! verdict {
    ($name:ident, $reader:ident) => {
        pub fn $name(file: &[u8]) -> Verdict {
            let read = $reader::SafeTensors::read_metadata(file);
            let opened = $reader::SafeTensors::deserialize(file);
            let (header_length, metadata) = match (read, &opened) {
                (Ok(read), Ok(_)) => read,
                (Err(error), Err(_)) => {
                    return Verdict::Refused {
                        variant: variant(&error),
                        text: error.to_string(),
                    };
                }
                (read, _) => panic!("read_metadata: {read:?}, deserialize: {opened:?}"),
            };
            let opened = opened.unwrap();
            let mut names = opened.names();
            names.sort_unstable();
            let mut listed: Vec<String> =
                opened.tensors().into_iter().map(|(name, _)| name).collect();
            listed.sort_unstable();
            let mut iterated: Vec<&str> = opened.iter().map(|(name, _)| name).collect();
            iterated.sort_unstable();
            assert_eq!(
                (names.len(), names.is_empty()),
                (opened.len(), opened.is_empty())
            );
            assert_eq!((&names, names.len()), (&iterated, metadata.tensors().len()));
            assert_eq!(listed, names);
            // Tensors without bytes at the same offset have no order in the published crate.
            let mut in_offset_order = metadata.offset_keys();
            assert!(
                in_offset_order.is_sorted_by_key(|name| metadata.info(name).unwrap().data_offsets)
            );
            in_offset_order.sort_unstable();
            assert_eq!(in_offset_order, names);
            let tensors = names.iter().map(|&name| {
                let (view, info) = (opened.tensor(name).unwrap(), metadata.info(name).unwrap());
                assert_eq!((view.dtype(), view.shape()), (info.dtype, &info.shape[..]));
                let seen = Seen {
                    dtype: view.dtype().to_string(),
                    shape: view.shape().to_vec(),
                    data_offsets: info.data_offsets,
                    data: view.data().to_vec(),
                };
                (name.to_owned(), seen)
            });
            Verdict::Accepted {
                header_length,
                metadata: metadata
                    .metadata()
                    .clone()
                    .map(|entries| entries.into_iter().collect()),
                tensors: tensors.collect(),
            }
        }
    };
}

verdict!(verdict_of_ours, safetensors);
verdict!(verdict_of_published, published);

/// The names of tensors that stand in a header more than once.
pub fn names_that_stand_twice(file: &[u8]) -> Vec<String> {
    use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

    struct Keys;

    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Vec<String>, M::Error> {
            let mut keys = Vec::new();
            while let Some((key, IgnoredAny)) = map.next_entry()? {
                keys.push(key);
            }
            Ok(keys)
        }
    }

    let length = usize::from(file[0]) | usize::from(file[1]) << 8;
    let mut header = serde_json::Deserializer::from_slice(&file[8..8 + length]);
    let mut keys = header.deserialize_map(Keys).unwrap();
    keys.sort_unstable();
    let twice = keys.windows(2).filter(|pair| pair[0] == pair[1]);
    twice.map(|pair| pair[0].clone()).collect()
}

/// One dimension's part of an index, for both crates.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    At(usize),
    Range(std::ops::Bound<usize>, std::ops::Bound<usize>, usize),
}

macro_rules! indexers {
    ($name:ident, $slicer:ident) => {
        pub fn $name(parts: &[Part]) -> Vec<$slicer::slice::TensorIndexer> {
            use $slicer::slice::TensorIndexer::{Narrow, Select};
            let each = |part: &Part| match *part {
                Part::At(position) => Select(position),
                Part::Range(start, stop, step) => Narrow(start, stop, step.try_into().unwrap()),
            };
            parts.iter().map(each).collect()
        }
    };
}

indexers!(our_indexers, safetensors);
indexers!(published_indexers, published);
