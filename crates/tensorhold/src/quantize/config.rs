//! What engines read beside the tensors: `config.json` with what its weights are.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tensorhold_core::{Dtype, Error, ErrorKind, Result, Sink};
use tensorhold_io::{AtomicFile, Durability, io_error, open_regular};

use super::scheme::{IntLayout, QuantizeScheme};

/// A configuration is a few KB.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// The version of compressed-tensors whose names and values are written.
const VERSION: &str = "0.20.0";

/// The `config.json` beside the tensors of `source`.
pub(crate) fn config_of(source: &Path) -> Result<Option<String>> {
    let folder = match source.is_dir() {
        true => source,
        false => source.parent().unwrap_or(Path::new("")),
    };
    let path = folder.join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = String::from_utf8(read(&path)?).map_err(|_| {
        invalid("a configuration must be UTF-8".to_owned()).with_file(path.to_string_lossy())
    })?;
    Ok(Some(text))
}

/// A configuration without what is said of quantization.
pub(crate) struct Plain {
    /// All but the brace at its end.
    text: String,
    is_empty: bool,
}

/// What configurations say of quantization under.
const KEYS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

impl Plain {
    /// Refuses a configuration that is no object, or one of quantized weights.
    pub(crate) fn of(text: Option<&str>) -> Result<Plain> {
        let text = text.unwrap_or("{}");
        let object = parse(text)?;
        if let Some(key) = KEYS.iter().find(|key| object.contains_key(**key)) {
            let message =
                format!("the configuration has `{key}`: the weights are quantized already");
            return Err(
                invalid(message).with_hint("make floats of them first: `tensorhold dequantize`")
            );
        }
        let inner = text.trim_end().strip_suffix('}').unwrap_or("{");
        Ok(Plain {
            text: inner.trim_end().to_owned(),
            is_empty: object.is_empty(),
        })
    }

    /// A configuration of quantized weights, without what it says of them.
    ///
    /// Refuses one that says it inside of another part, which would have to stay.
    pub(crate) fn without(text: Option<&str>) -> Result<Plain> {
        let mut object = parse(text.unwrap_or("{}"))?;
        object.retain(|key, _| !KEYS.contains(&&**key));
        let has_own = |value: &Value| KEYS.iter().any(|key| value.get(key).is_some());
        if let Some((key, _)) = object.iter().find(|(_, value)| has_own(value)) {
            let message = format!(
                "the configuration speaks of quantization in `{key}`, which is not changed"
            );
            return Err(invalid(message));
        }
        Plain::of(Some(&format!("{:#}", Value::Object(object))))
    }

    /// The configuration with a further key at its end, all else as it was.
    pub(crate) fn with(&self, value: &Value) -> String {
        let comma = if self.is_empty { "" } else { "," };
        let value = format!("{value:#}").replace('\n', "\n  ");
        format!("{}{comma}\n  \"{}\": {value}\n}}\n", self.text, KEYS[0])
    }
}

fn parse(text: &str) -> Result<serde_json::Map<String, Value>> {
    let parsed: Value = serde_json::from_str(text)
        .map_err(|error| invalid(format!("the configuration is no JSON: {error}")))?;
    match parsed {
        Value::Object(object) => Ok(object),
        _ => Err(invalid("the configuration is no JSON object".to_owned())),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// What engines read under `quantization_config`.
pub(crate) fn quantization_config(scheme: QuantizeScheme, ignored: &[String]) -> Value {
    if let QuantizeScheme::Int {
        bits,
        symmetric,
        group_size,
        layout: IntLayout::Gptq,
    } = scheme
    {
        return gptq(bits, symmetric, group_size, ignored);
    }
    let mut group = json!({
        "targets": ["Linear"],
        "weights": weights(scheme),
        "input_activations": inputs(scheme),
        "output_activations": null,
    });
    group["format"] = scheme.format().into();
    json!({
        "config_groups": { "group_0": group },
        "format": scheme.format(),
        "global_compression_ratio": null,
        "ignore": ignored,
        "kv_cache_scheme": null,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "version": VERSION,
    })
}

fn gptq(bits: u32, symmetric: bool, group_size: Option<u64>, ignored: &[String]) -> Value {
    let escaped = ignored
        .iter()
        .map(|name| (format!("-:^{}$", name.replace('.', "\\.")), json!({})));
    let mut config = json!({
        "bits": bits,
        "checkpoint_format": "gptq_v2",
        "desc_act": false,
        "format": "gptq_v2",
        "group_size": group_size.map_or(json!(-1), |size| json!(size)),
        "lm_head": false,
        "pack_dtype": "int32",
        "quant_method": "gptq",
        "sym": symmetric,
    });
    let dynamic: serde_json::Map<String, Value> = escaped.collect();
    if !dynamic.is_empty() {
        config["dynamic"] = dynamic.into();
    }
    config
}

fn weights(scheme: QuantizeScheme) -> Value {
    use QuantizeScheme::*;
    let args = |bits: u32, kind: &str, strategy: &str| {
        json!({
            "num_bits": bits, "type": kind, "symmetric": true, "strategy": strategy, "group_size": null,
            "block_structure": null, "dynamic": false, "actorder": null, "observer": "memoryless_minmax", "observer_kwargs": {},
        })
    };
    match scheme {
        Fp8Tensor => args(8, "float", "tensor"),
        Fp8Channel => args(8, "float", "channel"),
        Fp8Block { rows, columns } => {
            let mut block = args(8, "float", "block");
            block["block_structure"] = json!([rows, columns]);
            block
        }
        Int {
            bits,
            symmetric,
            group_size,
            ..
        } => {
            let strategy = if group_size.is_some() {
                "group"
            } else {
                "channel"
            };
            let mut int = args(bits, "int", strategy);
            int["symmetric"] = symmetric.into();
            int["group_size"] = json!(group_size);
            int
        }
        Mxfp4 | Mxfp8 | Nvfp4 => {
            let (bits, strategy, size, scales) = match scheme {
                Mxfp4 => (4, "group", 32, "torch.uint8"),
                Mxfp8 => (8, "group", 32, "torch.uint8"),
                _ => (4, "tensor_group", 16, "torch.float8_e4m3fn"),
            };
            let mut float = args(bits, "float", strategy);
            float["group_size"] = size.into();
            float["scale_dtype"] = scales.into();
            float["zp_dtype"] = scales.into();
            float
        }
    }
}

/// How an engine is to quantize inputs, while it runs: as the presets of compressed-tensors have it that need no calibration.
fn inputs(scheme: QuantizeScheme) -> Value {
    use QuantizeScheme::*;
    let args = |kind: &str, strategy: &str, group_size: Value| {
        json!({
            "num_bits": 8, "type": kind, "symmetric": true, "strategy": strategy, "group_size": group_size,
            "block_structure": null, "dynamic": true, "actorder": null, "observer": null, "observer_kwargs": {},
        })
    };
    match scheme {
        Fp8Tensor | Fp8Channel => args("float", "token", Value::Null),
        Fp8Block { columns, .. } => args("float", "group", columns.into()),
        Int {
            layout: IntLayout::Bytes,
            ..
        } => args("int", "token", Value::Null),
        _ => Value::Null,
    }
}

/// The type that scales are stored in, unless another is asked for.
pub(super) fn scale_dtype(scheme: QuantizeScheme, weight: Dtype) -> Dtype {
    match (scheme.is_gptq(), weight) {
        // Kernels of GPTQ have scales of 16 bits.
        (true, Dtype::F32) => Dtype::F16,
        _ => weight,
    }
}

/// A configuration made ready beside `target`, so that what can fail has not to wait for the weights.
pub(crate) fn prepare(
    target: &Path,
    text: &str,
    durability: Durability,
) -> Result<(PathBuf, AtomicFile)> {
    let folder = target.parent().unwrap_or(Path::new(""));
    if folder != Path::new("") {
        std::fs::create_dir_all(folder)
            .map_err(|error| io_error(error, folder, "create the folder"))?;
    }
    let path = folder.join("config.json");
    let mut file = AtomicFile::create(&path, Some(text.len() as u64), durability)?;
    file.write(text.as_bytes())?;
    file.prepare()?;
    Ok((path, file))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file: File = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| io_error(error, path, "read the file"))?;
    match bytes.len() as u64 <= MAX_CONFIG_BYTES {
        true => Ok(bytes),
        false => Err(invalid(format!(
            "a file over {MAX_CONFIG_BYTES} bytes is no configuration"
        ))
        .with_file(path.to_string_lossy())),
    }
}
