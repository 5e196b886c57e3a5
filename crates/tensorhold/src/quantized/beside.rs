//! The configuration beside a checkpoint, without what it says of quantization.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tensorhold_core::{Error, ErrorKind, Result, Sink};
use tensorhold_io::AtomicFile;

use super::configs::{CONFIG, read_text};
use crate::checkpoint::Checkpoint;
use crate::save::SaveOptions;

/// The keys under which configurations say it: those of Transformers, of MLX, and of compressed-tensors before it.
const KEYS: [&str; 3] = ["quantization_config", "quantization", "compression_config"];

/// The objects in which they stand, besides the outermost.
const OBJECTS: [&str; 2] = ["text_config", "llm_config"];

/// What becomes of a configuration that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// It stays as it is.
    #[default]
    Kept,
    /// It is replaced.
    Replaced,
}

/// Writes the `config.json` that lies beside `source` beside `target`, keys sorted, without what it says of quantization; gives its path.
/// Nothing is written where there is none, where one is there that is to be kept, and in the folder of the source.
pub(super) fn write_config(
    source: &Checkpoint,
    target: &Path,
    existing: Existing,
    options: &SaveOptions,
) -> Result<Option<PathBuf>> {
    let Some(from) = config_of(source) else {
        return Ok(None);
    };
    let into = folder_of(target).join(CONFIG);
    let is_own = into.canonicalize().ok() == from.canonicalize().ok();
    if is_own || (existing == Existing::Kept && into.symlink_metadata().is_ok()) {
        return Ok(None);
    }
    let text = without_quantization(&read_text(&from)?)
        .map_err(|error| error.with_file(from.to_string_lossy()))?;
    let mut file = AtomicFile::create(&into, Some(text.len() as u64), options.durability)?;
    file.write(text.as_bytes())?;
    file.commit()?;
    Ok(Some(into))
}

/// The `config.json` in the folder of the files, if there is one.
fn config_of(source: &Checkpoint) -> Option<PathBuf> {
    let first = source.files().first()?;
    let path = folder_of(first.path()).join(CONFIG);
    path.is_file().then_some(path)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn without_quantization(text: &str) -> Result<String> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidConfig, why);
    let mut config: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| wrong(format!("this is no JSON: {error}")))?;
    for key in KEYS {
        config.remove(key);
    }
    for object in OBJECTS {
        if let Some(Value::Object(config)) = config.get_mut(object) {
            KEYS.iter().for_each(|key| drop(config.remove(*key)));
        }
    }
    let mut text = serde_json::to_string_pretty(&config)
        .map_err(|error| wrong(format!("it cannot be written: {error}")))?;
    text.push('\n');
    Ok(text)
}
