//! The tensors of a checkpoint by module, as schemes are recognised by them.

use std::cell::OnceCell;
use std::collections::HashMap;

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, TensorInfo};

use super::config::Config;
use super::evidence::Evidence;
use super::json::{Json, MAX_BLOB_BYTES, MAX_CONFIG_BYTES};
use super::readers::fp8;
use super::settings::Settings;
use crate::scheme::{Parts, Recipe, Scheme};

/// A checkpoint, its tensors by name.
pub(super) struct Scene<'a> {
    pub evidence: &'a Evidence<'a>,
    pub config: &'a Config,
    by_name: HashMap<&'a str, TensorInfo<'a>>,
    metadata: HashMap<&'a str, &'a str>,
    has_scaled_floats: OnceCell<bool>,
    comfy_layers: OnceCell<core::result::Result<HashMap<String, Json>, String>>,
}

impl<'a> Scene<'a> {
    pub fn new(evidence: &'a Evidence<'a>, config: &'a Config) -> Scene<'a> {
        let by_name = evidence.tensors.iter().map(|info| (info.name, *info));
        Scene {
            evidence,
            config,
            by_name: by_name.collect(),
            metadata: evidence.metadata.iter().rev().copied().collect(),
            has_scaled_floats: OnceCell::new(),
            comfy_layers: OnceCell::new(),
        }
    }

    pub fn find(&self, name: &str) -> Option<&TensorInfo<'a>> {
        self.by_name.get(name)
    }

    /// What the metadata of ComfyUI says of a layer.
    ///
    /// # Errors
    /// `InvalidConfig` where it cannot be read.
    pub fn comfy_layer(&self, name: &str) -> Result<Option<&Json>> {
        const KEY: &str = "_quantization_metadata";
        let parse = || {
            let Some(text) = self.metadata(KEY) else {
                return Ok(HashMap::new());
            };
            let json = Json::parse(text, MAX_CONFIG_BYTES).map_err(|error| error.to_string())?;
            let layers = json.get("layers").and_then(Json::object);
            Ok(layers.unwrap_or_default().iter().cloned().collect())
        };
        match self.comfy_layers.get_or_init(parse) {
            Ok(layers) => Ok(layers.get(name)),
            Err(message) => {
                let message = format!("the metadata `{KEY}` cannot be read: {message}");
                Err(Error::new(ErrorKind::InvalidConfig, message))
            }
        }
    }

    /// Whether some float of 8 bits has a scale beside it.
    pub fn has_scaled_floats(&self) -> bool {
        let is_scaled = |info: &TensorInfo<'_>| {
            let module = info
                .name
                .strip_suffix(".weight")
                .filter(|_| fp8::is_float(info.dtype));
            module.is_some_and(|module| {
                let mut scales = fp8::SCALES.iter();
                scales.any(|scale| self.find(&format!("{module}.{scale}")).is_some())
            })
        };
        *self
            .has_scaled_floats
            .get_or_init(|| self.evidence.tensors.iter().any(is_scaled))
    }

    /// The text under `key` in the metadata of the first file that has it.
    pub fn metadata(&self, key: &str) -> Option<&'a str> {
        self.metadata.get(key).copied()
    }

    /// The bytes of a tensor that describes others, which must be small.
    pub fn blob(&self, info: &TensorInfo<'_>) -> Result<Vec<u8>> {
        let size_bytes = info.size_bytes();
        if size_bytes > MAX_BLOB_BYTES as u64 {
            let message = format!(
                "{size_bytes} bytes are over the limit of {MAX_BLOB_BYTES} for a tensor that describes another"
            );
            return Err(Error::new(ErrorKind::InvalidTensor, message).with_tensor(info.name));
        }
        self.start_of(info, size_bytes)
    }

    /// The first bytes of a tensor, at most so many.
    pub fn start_of(&self, info: &TensorInfo<'_>, max_bytes: u64) -> Result<Vec<u8>> {
        let end = info.size_bytes().min(max_bytes);
        let bytes = (self.evidence.read)(info.name, ByteRange::new(0, end))?;
        match bytes.len() as u64 == end {
            true => Ok(bytes),
            false => {
                let message = format!("{} bytes were read in place of {end}", bytes.len());
                Err(Error::new(ErrorKind::Truncated, message).with_tensor(info.name))
            }
        }
    }

    /// The JSON in a tensor of bytes.
    pub fn json_blob(&self, info: &TensorInfo<'_>) -> Result<Json> {
        let wrong =
            |message: String| Error::new(ErrorKind::InvalidTensor, message).with_tensor(info.name);
        let bytes = self.blob(info)?;
        let text = core::str::from_utf8(&bytes);
        let text = text.map_err(|error| wrong(format!("its bytes are no text: {error}")))?;
        Json::parse(text, MAX_BLOB_BYTES).map_err(|error| wrong(error.message().to_owned()))
    }
}

/// What has the parts of one weight.
pub(super) struct Module<'a> {
    pub scene: &'a Scene<'a>,
    /// What the names of all parts begin with: that of a module, or of a tensor.
    pub prefix: &'a str,
    /// What stands between that and the names of the parts.
    pub joint: &'static str,
    /// The tensor by which it was found.
    pub anchor: TensorInfo<'a>,
    pub settings: OnceCell<Settings<'a>>,
}

impl<'a> Module<'a> {
    /// What the configuration says of it.
    pub fn settings(&self) -> &Settings<'a> {
        self.settings
            .get_or_init(|| self.scene.config.settings(self.prefix))
    }

    /// The part that is called `part`, if there is one.
    pub fn find(&self, part: &str) -> Option<&'a TensorInfo<'a>> {
        let name = format!("{}{}{part}", self.prefix, self.joint);
        self.scene.find(&name)
    }

    pub fn has(&self, part: &str) -> bool {
        self.find(part).is_some()
    }

    pub fn dtype_of(&self, part: &str) -> Option<Dtype> {
        self.find(part).map(|info| info.dtype)
    }

    pub fn shape_of(&self, part: &str) -> Option<&'a [u64]> {
        self.find(part).map(|info| info.shape)
    }

    /// Those of these parts that there are.
    pub fn parts(&self, names: &[&'static str]) -> Parts<'a> {
        let found = names
            .iter()
            .filter_map(|name| Some((*name, self.find(name)?)));
        found
            .map(|(name, info)| (name, info.dtype, info.shape))
            .collect()
    }

    pub fn recipe<S: Scheme>(&self, scheme: &S) -> Result<Recipe> {
        scheme.recipe(&self.parts(S::PARTS))
    }

    /// The sizes in a small part, I64 or I32.
    pub fn integers(&self, part: &'static str) -> Result<Vec<u64>> {
        let missing = || {
            Error::new(
                ErrorKind::TensorNotFound,
                format!("part `{part}` is missing"),
            )
        };
        let info = self.find(part).ok_or_else(missing)?;
        let numbers = self.numbers(info)?.into_iter().flatten();
        let sizes: core::result::Result<Vec<u64>, _> = numbers.map(u64::try_from).collect();
        let sizes = sizes.ok().filter(|sizes| !sizes.is_empty());
        sizes.ok_or_else(|| wrong(part, info, "it must be sizes"))
    }

    /// The only whole number in a part, if there is such a part.
    pub fn integer(&self, part: &'static str) -> Result<Option<i64>> {
        let Some(info) = self.find(part) else {
            return Ok(None);
        };
        match self.numbers(info)?.as_deref() {
            Some([number]) => Ok(Some(*number)),
            _ => Err(wrong(part, info, "it must be one whole number")),
        }
    }

    /// The text in a part of bytes, if there is such a part.
    pub fn text(&self, part: &'static str) -> Result<Option<String>> {
        let Some(info) = self.find(part) else {
            return Ok(None);
        };
        let text = match info.dtype {
            Dtype::U8 => String::from_utf8(self.scene.blob(info)?).ok(),
            _ => None,
        };
        text.map(Some)
            .ok_or_else(|| wrong(part, info, "it must be text in bytes"))
    }

    /// The whole numbers in a small tensor; none where its type is another one.
    fn numbers(&self, info: &TensorInfo<'_>) -> Result<Option<Vec<i64>>> {
        let bytes = self.scene.blob(info)?;
        Ok(match info.dtype {
            Dtype::I64 => {
                let numbers = bytes.as_chunks().0.iter();
                Some(numbers.map(|bytes| i64::from_le_bytes(*bytes)).collect())
            }
            Dtype::I32 => {
                let numbers = bytes.as_chunks().0.iter();
                Some(
                    numbers
                        .map(|bytes| i32::from_le_bytes(*bytes).into())
                        .collect(),
                )
            }
            Dtype::U8 | Dtype::BOOL => Some(bytes.iter().map(|byte| i64::from(*byte)).collect()),
            _ => None,
        })
    }
}

fn wrong(part: &str, info: &TensorInfo<'_>, must: &str) -> Error {
    let (dtype, shape) = (info.dtype, info.shape);
    Error::new(
        ErrorKind::InvalidTensor,
        format!("part `{part}` is {dtype} {shape:?}: {must}"),
    )
}
