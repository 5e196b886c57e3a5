//! The configurations that lie beside the files of a checkpoint.

use std::path::{Path, PathBuf};

use tensorhold_core::{Error, ErrorKind, Result, Source};
use tensorhold_io::{Pread, open_regular};
use tensorhold_quant::detect::MAX_CONFIG_BYTES;

use crate::file::File;
use crate::read;

/// What Transformers reads.
pub(super) const CONFIG: &str = "config.json";

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

pub(super) fn read_text(path: &Path) -> Result<String> {
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
