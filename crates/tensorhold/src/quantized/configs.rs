//! The configurations that lie beside the files of a checkpoint.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tensorhold_core::{Error, ErrorKind, Result, Source};
use tensorhold_io::{Pread, open_regular};
use tensorhold_quant::detect::MAX_CONFIG_BYTES;

use crate::file::File;
use crate::read;

/// What Transformers reads.
pub(crate) const CONFIG: &str = "config.json";

/// Those of which the first that says something counts.
const NAMES: [&str; 4] = [
    CONFIG,
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
];

/// What quanto calls its files, after a name of the user's.
const QUANTO_SUFFIX: &str = "_qmap.json";

/// A configuration by the name of its file, or why it cannot be read.
pub(super) type Found = (String, std::result::Result<String, String>);

/// What lies in the folder of `files`, if they have one in common.
pub(super) fn read(files: &[File]) -> Vec<Found> {
    let mut folders = files.iter().map(|file| file.path().parent());
    let Some(Some(folder)) = folders.next() else {
        return Vec::new();
    };
    if folders.any(|other| other != Some(folder)) {
        return Vec::new();
    }
    let of_quanto = list(folder);
    let names = NAMES.iter().map(|name| (*name).to_owned()).chain(of_quanto);
    names
        .filter_map(|name| {
            let text = read_text(&folder.join(&name));
            match text {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                text => Some((name, text.map_err(|error| error.message().to_owned()))),
            }
        })
        .collect()
}

/// The names of quanto's files in a folder.
fn list(folder: &Path) -> Vec<String> {
    let folder = match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_owned(),
    };
    // A folder that cannot be listed can have files that are opened by their names.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(QUANTO_SUFFIX)).collect();
    names.sort();
    names
}

/// The text of a configuration.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let source = Pread::new(open_regular(path)?)?;
    let size = source.size_bytes();
    if size > MAX_CONFIG_BYTES as u64 {
        let message =
            format!("a configuration of {size} bytes is over the limit of {MAX_CONFIG_BYTES}");
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    let mut text = read::allocate(size)?;
    source.read_at(0, &mut text)?;
    let wrong = |error| {
        Error::new(
            ErrorKind::InvalidConfig,
            format!("this is no text: {error}"),
        )
    };
    String::from_utf8(text).map_err(wrong)
}

/// What a file says of quantization, for [`Checkpoint::with_quantization_config`](crate::Checkpoint::with_quantization_config): a
/// `config.json` that says something of it, its `quantization_config` alone, or a `hf_quant_config.json`, `quantize_config.json` or
/// `quant_config.json`, whatever its name.
///
/// # Errors
/// `InvalidConfig` for a file over 16 MiB, one that is no object of JSON, and the configuration of a model that says nothing of quantization;
/// those of opening a file.
pub fn read_quantization_config(path: &Path) -> Result<String> {
    let text = read_text(path).and_then(|text| said_in(&text));
    text.map_err(|error| error.with_file(path.to_string_lossy()))
}

fn said_in(text: &str) -> Result<String> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidConfig, why);
    let parsed: Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("this is no JSON: {error}")))?;
    let Value::Object(object) = parsed else {
        let message = "a configuration of quantization is an object of JSON";
        return Err(wrong(message.to_owned()));
    };
    let Some((said, implied)) = section(&object) else {
        let message = "this configuration of a model says nothing of quantization";
        let hint = "give the file that has the `quantization_config`, or that object alone";
        return Err(wrong(message.to_owned()).with_hint(hint));
    };
    let mut said = said.clone();
    if let Some(implied) = implied {
        said.entry("quant_method").or_insert(implied.into());
    }
    // The rest tells the type of the weights.
    let mut whole = object;
    whole.insert("quantization_config".to_owned(), Value::Object(said));
    Ok(Value::Object(whole).to_string())
}

/// The part of a file that is of quantization, and the method that it is of where it does not say that itself.
fn section(file: &Map<String, Value>) -> Option<(&Map<String, Value>, Option<&'static str>)> {
    let own = |key: &str| file.get(key)?.as_object();
    let is_mlx = |said: &Map<String, Value>| own("quantization") == Some(said);
    if let Some(said) = own("quantization_config") {
        return Some((said, is_mlx(said).then_some("mlx")));
    }
    if let Some(said) = own("text_config").and_then(|text| text.get("quantization_config")) {
        return Some((said.as_object()?, None));
    }
    if let Some(said) = own("compression_config") {
        return Some((said, Some("compressed-tensors")));
    }
    if let Some(said) = own("quantization") {
        let is_modelopt = file.contains_key("producer");
        return Some((said, Some(if is_modelopt { "modelopt" } else { "mlx" })));
    }
    let has = |key: &&str| file.contains_key(*key);
    if ["model_type", "architectures"].iter().any(has) {
        return None;
    }
    let implied = match ["w_bit", "desc_act"].iter().find(|key| has(key)) {
        Some(&"w_bit") => Some("awq"),
        Some(_) => Some("gptq"),
        None => None,
    };
    Some((file, implied))
}

#[cfg(test)]
mod tests {
    use super::{Value, said_in};

    fn said(text: &str) -> String {
        match said_in(text) {
            Ok(said) => {
                let said: Value = serde_json::from_str(&said).expect("it is JSON");
                said["quantization_config"].to_string()
            }
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn what_a_file_says_is_found_wherever_programs_write_it() {
        let fp8 = r#"{"quant_method":"fp8"}"#;
        assert_eq!(said(fp8), fp8);
        assert_eq!(said(&format!(r#"{{"quantization_config": {fp8}}}"#)), fp8);
        let nested =
            format!(r#"{{"model_type": "a", "text_config": {{"quantization_config": {fp8}}}}}"#);
        assert_eq!(said(&nested), fp8);
        let modelopt =
            r#"{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}"#;
        assert_eq!(
            said(modelopt),
            r#"{"quant_algo":"FP8","quant_method":"modelopt"}"#
        );
        let mlx = r#"{"model_type": "a", "quantization": {"bits": 4}}"#;
        assert_eq!(said(mlx), r#"{"bits":4,"quant_method":"mlx"}"#);
        assert_eq!(
            said(r#"{"bits": 4, "desc_act": false}"#),
            r#"{"bits":4,"desc_act":false,"quant_method":"gptq"}"#
        );
    }

    #[test]
    fn a_file_that_says_nothing_of_it_is_refused() {
        assert_eq!(
            said(r#"{"model_type": "llama"}"#),
            "this configuration of a model says nothing of quantization"
        );
        assert_eq!(
            said("[]"),
            "a configuration of quantization is an object of JSON"
        );
        assert!(said("{").starts_with("this is no JSON"));
    }
}
