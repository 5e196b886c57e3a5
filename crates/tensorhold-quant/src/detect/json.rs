//! JSON that came with a checkpoint, of a bounded size.

use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use tensorhold_core::{Dtype, Error, ErrorKind, Result};

/// Longer texts are no configuration: they are refused. One that names each of 100 000 modules takes 10 MB.
pub const MAX_CONFIG_BYTES: usize = 16 << 20;
/// Longer texts in a tensor, or in the metadata of a file for one tensor, describe no tensor.
pub(super) const MAX_BLOB_BYTES: usize = 64 << 10;

/// A value, whose objects keep the order of their keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Flag(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The value that `text` is.
    ///
    /// # Errors
    /// `InvalidConfig` when it is too long, nested more than 128 deep, or no JSON.
    pub fn parse(text: &str, max_bytes: usize) -> Result<Json> {
        if text.len() > max_bytes {
            let message = format!(
                "{} bytes of JSON are over the limit of {max_bytes}",
                text.len()
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        serde_json::from_str(text).map_err(|error| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("this is no JSON: {error}"),
            )
        })
    }

    /// What the object has under `key`, unless that is null; the last, where it stands there several times.
    pub fn get(&self, key: &str) -> Option<&Json> {
        let found = self.object()?.iter().rev().find(|(name, _)| name == key);
        found
            .map(|(_, value)| value)
            .filter(|value| **value != Json::Null)
    }

    pub fn object(&self) -> Option<&[(String, Json)]> {
        match self {
            Json::Object(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn list(&self) -> &[Json] {
        match self {
            Json::List(values) => values,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn flag(&self) -> Option<bool> {
        match self {
            Json::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    pub fn float(&self) -> Option<f64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A whole number that a float holds exactly.
    pub fn integer(&self) -> Option<i64> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let number = self.float()?;
        (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
    }

    pub fn size(&self) -> Option<u64> {
        u64::try_from(self.integer()?).ok()
    }

    /// The sizes in a list of such.
    pub fn sizes(&self) -> Option<Vec<u64>> {
        match self {
            Json::List(values) => values.iter().map(Json::size).collect(),
            _ => None,
        }
    }

    /// A float type of 16 to 64 bits, as `bfloat16` or `torch.bfloat16`.
    pub fn dtype(&self) -> Option<Dtype> {
        float_dtype(self.text()?)
    }
}

/// A float type of 16 or 32 bits, as `bfloat16` or `torch.bfloat16`.
pub(super) fn float_dtype(name: &str) -> Option<Dtype> {
    let name = name.strip_prefix("torch.").unwrap_or(name);
    let dtype = Dtype::from_framework_name(name)?;
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32).then_some(dtype)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_their_order_and_nested_bombs_are_refused() {
        let json =
            Json::parse(r#"{"b": 1, "a": [true, null, "x"], "b": -1}"#, 100).expect("it is JSON");
        assert_eq!(json.get("b").and_then(Json::integer), Some(-1));
        assert_eq!(json.object().map(|entries| &*entries[0].0), Some("b"));
        let bomb = "[".repeat(1_000_000);
        let error = Json::parse(&bomb, 2_000_000).expect_err("it is too deep");
        assert!(error.message().contains("recursion limit"), "{error}");
        let error = Json::parse(&bomb, 100).expect_err("it is too long");
        assert_eq!(
            error.message(),
            "1000000 bytes of JSON are over the limit of 100"
        );
    }
}
