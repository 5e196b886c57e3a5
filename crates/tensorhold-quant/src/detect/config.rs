//! The configuration of a checkpoint, and what of it goes for which module.

mod overrides;
mod stored;

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use super::evidence::{ConfigText, Evidence};
use super::json::{Json, MAX_CONFIG_BYTES};
use super::settings::{Listed, Settings};
use super::weight::{QuantFinding, QuantFindingKind};
use overrides::Overrides;

/// Methods that are read, or at least known.
const METHODS: &[&str] = &[
    "gptq",
    "awq",
    "auto-round",
    "auto_round",
    "intel/auto-round",
    "fp8",
    "fbgemm_fp8",
    "compressed-tensors",
    "modelopt",
    "modelopt_fp4",
    "mxfp4",
    "nvfp4",
    "bitsandbytes",
    "torchao",
    "quanto",
    "hqq",
    "mlx",
    "bitnet",
    "quark",
    "exl3",
    "marlin",
    "gptq_marlin",
    "awq_marlin",
    "deepseek_v4_fp8",
];

/// Formats of compressed-tensors.
const FORMATS: &[&str] = &[
    "dense",
    "float-quantized",
    "int-quantized",
    "marlin-24",
    "mixed-precision",
    "mxfp4-pack-quantized",
    "mxfp6-pack-quantized",
    "mxfp8-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "pack-quantized",
    "sparse-24-bitmask",
    "sparse-bitmask",
];

/// Keys whose values two configurations should have in common.
const COMPARED: [&str; 5] = [
    "bits",
    "group_size",
    "quant_algo",
    "checkpoint_format",
    "sym",
];

/// What a checkpoint says of its quantization beside the tensors.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// Where it stands.
    pub origin: Option<String>,
    /// The method in small letters, as Transformers names them.
    pub method: Option<String>,
    /// The type of the model's weights where they are not quantized.
    pub dtype: Option<Dtype>,
    pub findings: Vec<QuantFinding>,
    base: Option<Json>,
    overrides: Overrides,
}

/// One of the places where a configuration of quantization is found.
struct Section {
    origin: String,
    /// What the place says of the method where the section itself does not.
    implied: Option<&'static str>,
    json: Json,
}

impl Config {
    /// What a checkpoint says; the first text that says something of quantization counts.
    ///
    /// # Errors
    /// `InvalidConfig` for one that is too long or no JSON, with its file, and for patterns that cannot be read.
    pub fn load(evidence: &Evidence<'_>) -> Result<Config> {
        let texts = &evidence.configs;
        let is_given = texts.iter().any(|text| text.file.is_none());
        let (mut config, mut sections) = (Config::default(), Vec::new());
        for text in texts {
            let json = match parse(text) {
                Ok(json) => json,
                // It would not count.
                Err(_) if is_given && text.file.is_some() => continue,
                Err(error) => return Err(error),
            };
            config.dtype = config.dtype.or_else(|| model_dtype(&json));
            if !is_given || text.file.is_none() {
                sections.extend(section(text.file, json));
            }
        }
        let stored = stored::settings(evidence)?;
        sections.extend(stored.filter(|_| !is_given).map(|json| Section {
            origin: "the tensors `gptq_bits` and `gptq_groupsize`".to_owned(),
            implied: Some("gptq"),
            json,
        }));
        let mut sections = sections.into_iter();
        if let Some(first) = sections.next() {
            for other in sections {
                config.compare(&first, &other);
            }
            let origin = first.origin.clone();
            config
                .take(first)
                .map_err(|error| error.with_file(origin))?;
        }
        Ok(config)
    }

    /// What the configuration says of `module`, a name without a suffix such as `.weight`.
    pub fn settings(&self, module: &str) -> Settings<'_> {
        let found = self.overrides.find(module);
        let (own, is_ignored) = match found {
            Some(found) => (&found.layers[..], !found.is_quantized),
            None => (&[][..], self.overrides.is_ignored(module)),
        };
        let listed = match (is_ignored, own.is_empty()) {
            (true, _) => Listed::Ignored,
            (false, false) => Listed::Quantized,
            (false, true) => Listed::Unsaid,
        };
        Settings {
            layers: own.iter().chain(&self.base).collect(),
            method: self.method.as_deref(),
            listed,
        }
    }

    fn take(&mut self, section: Section) -> Result<()> {
        let Section {
            origin,
            implied,
            json,
        } = section;
        let stated = json.get("quant_method").and_then(Json::text);
        self.method = stated.or(implied).map(str::to_ascii_lowercase);
        if let Some(method) = self
            .method
            .as_deref()
            .filter(|method| !METHODS.contains(method))
        {
            let message = format!("{origin} names the method `{method}`, which is not known");
            self.findings
                .push(QuantFinding::new(QuantFindingKind::UnknownConfig, message));
        }
        self.look_for_formats(&origin, &json);
        self.origin = Some(origin);
        self.overrides = Overrides::of(self.method.as_deref(), &json)?;
        self.base = Some(json);
        Ok(())
    }

    /// Says which formats are not known, and what is done to weights beside quantization.
    fn look_for_formats(&mut self, origin: &str, json: &Json) {
        let format = json.get("format").and_then(Json::text);
        let is_unknown = |format: &&str| {
            self.method.as_deref() == Some("compressed-tensors") && !FORMATS.contains(format)
        };
        if let Some(format) = format.filter(is_unknown) {
            let message = format!("{origin} names the format `{format}`, which is not known");
            let finding = QuantFinding::new(QuantFindingKind::UnknownConfig, message);
            self.findings.push(finding);
        }
        let transforms = json
            .get("transform_config")
            .and_then(|all| all.get("config_groups"));
        if transforms
            .and_then(Json::object)
            .is_some_and(|groups| !groups.is_empty())
        {
            let message = format!(
                "{origin} has transforms: weights are those of the transformed model, whose inputs and outputs are transformed, too"
            );
            self.findings
                .push(QuantFinding::new(QuantFindingKind::Note, message));
        }
    }

    /// Says where a configuration that does not count differs from the one that does.
    fn compare(&mut self, first: &Section, other: &Section) {
        for key in COMPARED {
            if let (Some(left), Some(right)) = (first.json.get(key), other.json.get(key))
                && left != right
            {
                let message = format!(
                    "`{key}` differs between {} and {}; the first counts",
                    first.origin, other.origin
                );
                self.findings
                    .push(QuantFinding::new(QuantFindingKind::Conflict, message));
            }
        }
    }
}

fn parse(text: &ConfigText<'_>) -> Result<Json> {
    let unread = |why: &str| Error::new(ErrorKind::InvalidConfig, why.to_owned());
    let parsed = text.text.map_err(unread);
    let parsed = parsed.and_then(|said| Json::parse(said, MAX_CONFIG_BYTES));
    parsed.map_err(|error| error.with_file(text.file.unwrap_or("`quantization_config`")))
}

/// The type of a model's weights as its configuration has it.
fn model_dtype(json: &Json) -> Option<Dtype> {
    let of = |json: &Json| {
        ["dtype", "torch_dtype"]
            .iter()
            .find_map(|key| json.get(key)?.dtype())
    };
    of(json).or_else(|| of(json.get("text_config")?))
}

/// What a configuration says of quantization.
fn section(file: Option<&str>, json: Json) -> Option<Section> {
    let made = |origin: String, implied, json: &Json| Section {
        origin,
        implied,
        json: json.clone(),
    };
    let Some(file) = file else {
        let inner = json.get("quantization_config").unwrap_or(&json);
        return Some(made(
            "the `quantization_config` that was given".to_owned(),
            None,
            inner,
        ));
    };
    match file {
        "hf_quant_config.json" => {
            let inner = json.get("quantization")?;
            Some(made(
                format!("{file}, `quantization`"),
                Some("modelopt"),
                inner,
            ))
        }
        "quantize_config.json" | "quant_config.json" => {
            json.object()?;
            let is_awq = json.get("w_bit").or_else(|| json.get("version")).is_some();
            Some(made(
                file.to_owned(),
                Some(if is_awq { "awq" } else { "gptq" }),
                &json,
            ))
        }
        _ if file.ends_with("_qmap.json") => Some(made(file.to_owned(), Some("quanto"), &json)),
        _ => of_model(file, &json),
    }
}

/// What the configuration of a model says of quantization.
fn of_model(file: &str, json: &Json) -> Option<Section> {
    const PLACES: [(&str, &str, Option<&str>); 4] = [
        ("", "quantization_config", None),
        ("text_config", "quantization_config", None),
        ("", "compression_config", Some("compressed-tensors")),
        ("", "quantization", Some("mlx")),
    ];
    PLACES.into_iter().find_map(|(outer, key, implied)| {
        let parent = if outer.is_empty() {
            json
        } else {
            json.get(outer)?
        };
        let inner = parent.get(key).filter(|inner| inner.object().is_some())?;
        let path = if outer.is_empty() {
            key.to_owned()
        } else {
            format!("{outer}.{key}")
        };
        // MLX copies its section under the other name, without a method.
        let is_copy = json.get("quantization") == Some(inner);
        Some(Section {
            origin: format!("{file}, `{path}`"),
            implied: if is_copy { Some("mlx") } else { implied },
            json: inner.clone(),
        })
    })
}

/// Refuses what is no object where one must be.
pub(super) fn entries<'a>(json: &'a Json, what: &str) -> Result<&'a [(String, Json)]> {
    json.object().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("`{what}` must be an object of names"),
        )
    })
}
