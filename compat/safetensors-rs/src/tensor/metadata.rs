//! The table of a file, apart from the file.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tensorhold_core::{Escaped, Header};

use super::error::refused;
use super::info::size_bytes;
use super::{SafeTensorError, TensorInfo};
use crate::HashMap;
use crate::hash_map::Entry;

const METADATA: &str = "__metadata__";

/// The tensors of a file without their bytes, and its free-form entries.
#[derive(Debug, Clone)]
pub struct Metadata {
    metadata: Option<HashMap<String, String>>,
    tensors: Vec<TensorInfo>,
    /// From names to places in `tensors`.
    places: HashMap<String, usize>,
}

impl Metadata {
    /// The table with these tensors, whose bytes follow each other in the order given.
    ///
    /// # Errors
    /// `InvalidOffset` if they do not, `TensorInvalidInfo`, `ValidationOverflow` or `MisalignedSlice` if one has other
    /// bytes than its shape asks for, `JsonError` if a name is given twice or is `__metadata__`.
    pub fn new(
        metadata: Option<HashMap<String, String>>,
        tensors: Vec<(String, TensorInfo)>,
    ) -> Result<Self, SafeTensorError> {
        let mut places = HashMap::with_capacity(tensors.len());
        let mut infos = Vec::with_capacity(tensors.len());
        let mut end = 0;
        for (index, (name, info)) in tensors.into_iter().enumerate() {
            check(&name, &info, end)?;
            end = info.data_offsets.1;
            infos.push(info);
            match places.entry(name) {
                Entry::Vacant(entry) => entry.insert(index),
                Entry::Occupied(entry) => {
                    let name = Escaped(entry.key());
                    return Err(refused(&format!(
                        "the name `{name}` is given to two tensors"
                    )));
                }
            };
        }
        Ok(Metadata {
            metadata,
            tensors: infos,
            places,
        })
    }

    pub(super) fn from_core(header: &Header) -> Metadata {
        let metadata = header.metadata().map(|metadata| {
            let owned = |(key, value): (&str, &str)| (key.to_string(), value.to_string());
            metadata.iter().map(owned).collect()
        });
        let mut tensors = Vec::with_capacity(header.len());
        let mut places = HashMap::with_capacity(header.len());
        for (index, info) in header.tensors().enumerate() {
            places.insert(info.name.to_string(), index);
            tensors.push(TensorInfo::from_core(info));
        }
        Metadata {
            metadata,
            tensors,
            places,
        }
    }

    /// The tensor of this name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).map(|&index| &self.tensors[index])
    }

    /// All tensors by name.
    pub fn tensors(&self) -> HashMap<String, &TensorInfo> {
        let entries = self.places.iter();
        entries
            .map(|(name, &index)| (name.clone(), &self.tensors[index]))
            .collect()
    }

    /// The names of all tensors in the order of their bytes.
    pub fn offset_keys(&self) -> Vec<String> {
        self.names().into_iter().map(String::from).collect()
    }

    /// The number of bytes of all tensors.
    pub fn data_len(&self) -> usize {
        self.tensors.last().map_or(0, |info| info.data_offsets.1)
    }

    /// The free-form entries.
    pub fn metadata(&self) -> &Option<HashMap<String, String>> {
        &self.metadata
    }

    fn names(&self) -> Vec<&str> {
        let mut names = vec![""; self.tensors.len()];
        for (name, &index) in &self.places {
            names[index] = name;
        }
        names
    }
}

fn check(name: &str, info: &TensorInfo, expected_start: usize) -> Result<(), SafeTensorError> {
    let (start, end) = info.data_offsets;
    if start != expected_start || end < start {
        return Err(SafeTensorError::InvalidOffset(name.to_string()));
    }
    if size_bytes(info.dtype, &info.shape)? != end - start {
        return Err(SafeTensorError::TensorInvalidInfo);
    }
    if name == METADATA {
        let message = "no tensor can be named `__metadata__`: the header keeps the metadata there";
        return Err(refused(message));
    }
    Ok(())
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let n_entries = self.tensors.len() + usize::from(self.metadata.is_some());
        let mut map = serializer.serialize_map(Some(n_entries))?;
        if let Some(metadata) = &self.metadata {
            // Sorted, so that equal tables give equal bytes.
            let sorted: BTreeMap<&String, &String> = metadata.iter().collect();
            map.serialize_entry(METADATA, &sorted)?;
        }
        for (name, info) in self.names().into_iter().zip(&self.tensors) {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Table::deserialize(deserializer)?;
        table.into_metadata().map_err(de::Error::custom)
    }
}

/// The fault for which the published crate would refuse a header; `None` where it is one that this crate alone sees.
pub(super) fn published_fault(header: &str) -> Option<SafeTensorError> {
    match serde_json::from_str(header).map(Table::into_metadata) {
        Err(error) => Some(SafeTensorError::InvalidHeaderDeserialization(error)),
        Ok(Ok(_) | Err(SafeTensorError::JsonError(_))) => None,
        Ok(Err(error)) => Some(error),
    }
}

/// A header as serde reads it. Its errors name it as those of the published crate do.
#[derive(Deserialize)]
#[serde(expecting = "struct HashMetadata")]
struct Table {
    #[serde(rename = "__metadata__")]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: Entries,
}

impl Table {
    fn into_metadata(self) -> Result<Metadata, SafeTensorError> {
        let Entries(mut tensors) = self.tensors;
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        Metadata::new(self.metadata, tensors)
    }
}

/// The tensors in the order of the text, those of the same name too, which a map would lose.
struct Entries(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
        let mut tensors = Vec::new();
        while let Some(entry) = map.next_entry()? {
            tensors.push(entry);
        }
        Ok(Entries(tensors))
    }
}
