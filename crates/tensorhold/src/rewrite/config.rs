//! The configuration beside a checkpoint, without what it says of quantization.

use std::path::PathBuf;

use serde_json::{Map, Value};
use tensorhold_core::{Error, ErrorKind, Result};

use super::beside::folder_of;
use crate::checkpoint::Checkpoint;
use crate::quantized::{CONFIG, read_text};

/// The keys under which configurations say it: those of Transformers, of MLX, and of compressed-tensors before it.
const KEYS: [&str; 3] = ["quantization_config", "quantization", "compression_config"];

/// The objects in which they stand, besides the outermost.
const OBJECTS: [&str; 2] = ["text_config", "llm_config"];

/// The `config.json` beside a checkpoint.
pub(crate) struct Config {
    path: PathBuf,
    text: String,
}

/// A configuration that says nothing of quantization.
pub(crate) struct Plain(String);

impl Config {
    /// The one in the folder of the files, if there is one.
    ///
    /// # Errors
    /// `InvalidConfig` where it is over 16 MiB or no text; those of reading a file.
    pub fn of(source: &Checkpoint) -> Result<Option<Config>> {
        let Some(first) = source.files().first() else {
            return Ok(None);
        };
        let path = folder_of(first.path()).join(CONFIG);
        match read_text(&path) {
            Ok(text) => Ok(Some(Config { path, text })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.with_file(path.to_string_lossy())),
        }
    }

    /// As it is.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no object of JSON; `InvalidArgument` where it says something of quantization.
    pub fn plain(&self) -> Result<Plain> {
        let object = self.parse()?;
        match KEYS.iter().find(|key| object.contains_key(**key)) {
            None => Ok(Plain(self.text.clone())),
            Some(key) => {
                let message =
                    format!("the configuration has `{key}`: the weights are quantized already");
                Err(self
                    .wrong(ErrorKind::InvalidArgument, message)
                    .with_hint("make floats of them first: `tensorhold dequantize`"))
            }
        }
    }

    /// With its keys sorted, without what it says of quantization.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no object of JSON.
    pub fn without_quantization(&self) -> Result<Plain> {
        let mut config = self.parse()?;
        config.retain(|key, _| !KEYS.contains(&&**key));
        for object in OBJECTS {
            if let Some(Value::Object(config)) = config.get_mut(object) {
                config.retain(|key, _| !KEYS.contains(&&**key));
            }
        }
        Ok(Plain(format!("{:#}\n", Value::Object(config))))
    }

    /// The same, where it says it nowhere else.
    ///
    /// # Errors
    /// Also `InvalidArgument` where it says it inside of a part that is not known.
    pub fn without_any_quantization(&self) -> Result<Plain> {
        let plain = self.without_quantization()?;
        let config = self.parse()?;
        let has_own = |value: &Value| KEYS.iter().any(|key| value.get(key).is_some());
        let mut others = config
            .iter()
            .filter(|(key, _)| !KEYS.contains(&&***key) && !OBJECTS.contains(&&***key));
        match others.find(|(_, value)| has_own(value)) {
            None => Ok(plain),
            Some((key, _)) => {
                let message = format!(
                    "the configuration speaks of quantization in `{key}`, which is not changed"
                );
                Err(self.wrong(ErrorKind::InvalidArgument, message))
            }
        }
    }

    fn parse(&self) -> Result<Map<String, Value>> {
        let parsed = serde_json::from_str(&self.text).map_err(|error| {
            let message = format!("the configuration is no JSON: {error}");
            self.wrong(ErrorKind::InvalidConfig, message)
        })?;
        match parsed {
            Value::Object(object) => Ok(object),
            _ => {
                let message = "the configuration is no JSON object".to_owned();
                Err(self.wrong(ErrorKind::InvalidConfig, message))
            }
        }
    }

    fn wrong(&self, kind: ErrorKind, message: String) -> Error {
        Error::new(kind, message).with_file(self.path.to_string_lossy())
    }
}

impl Plain {
    /// That of a checkpoint without one.
    pub fn empty() -> Plain {
        Plain("{}".to_owned())
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// With a `quantization_config` at its end, all else as it was.
    pub fn with(&self, value: &Value) -> String {
        let all = self.0.trim_end();
        let inner = all.strip_suffix('}').unwrap_or("{").trim_end();
        let comma = if inner.ends_with('{') { "" } else { "," };
        let value = format!("{value:#}").replace('\n', "\n  ");
        format!("{inner}{comma}\n  \"{}\": {value}\n}}\n", KEYS[0])
    }
}
