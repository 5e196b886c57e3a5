//! What lies beside the tensors of a model, and is written along with them: the configuration, and small files that are copied.
//!
//! ```text
//! before the weights: each file complete under a name of its own
//! after them:         each takes its name
//! ```

use std::path::{Path, PathBuf};

use tensorhold_core::{Result, Sink, Source};
use tensorhold_io::{AtomicFile, Durability, Pread, io_error, open_regular};

use crate::checkpoint::Checkpoint;
use crate::quantized::CONFIG;
use crate::read::allocate;

/// Files that programs ask for by these names: those of Transformers, mistral-common, tiktoken and sentence-transformers.
const NAMES: [&str; 27] = [
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "audio_tokenizer_config.json",
    "normalizer.json",
    "emoji.json",
    "entity_vocab.json",
    "target_vocab.json",
    "byte_maps.json",
    "tekken.json",
    "dict.txt",
    "bpe.codes",
    "tokenizer.model",
    "tiktoken.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
];

/// Files of the same kinds by what their names begin and end with.
const PATTERNS: [(&str, &str); 9] = [
    ("tokenizer", ".json"),
    ("tokenizer.model.v", ""),
    ("vocab", ".json"),
    ("vocab", ".txt"),
    ("merges", ".txt"),
    ("chat_template", ".json"),
    ("chat_template", ".jinja"),
    ("", "processor_config.json"),
    ("", ".tiktoken"),
];

/// Where Transformers has further templates.
const TEMPLATES: &str = "additional_chat_templates";

/// The piece in which a file is copied, and compared.
const PIECE_BYTES: u64 = 1 << 20;

/// What becomes of a configuration that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// It stays as it is.
    #[default]
    Kept,
    /// It is replaced.
    Replaced,
}

/// Small files that lie beside a checkpoint, by their paths in its folder, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Companions {
    /// Those that go with the model wherever it is written: of tokenizers and processors, settings of generation, templates of
    /// chats, licences.
    pub copied: Vec<PathBuf>,
    /// Code (`*.py`), which is never copied.
    pub code: Vec<PathBuf>,
}

/// The small files beside a checkpoint.
///
/// # Errors
/// `Io` and `PermissionDenied` if its folder cannot be listed.
pub fn companions(source: &Checkpoint) -> Result<Companions> {
    let mut found = Companions::default();
    let Some(first) = source.files().first() else {
        return Ok(found);
    };
    let folder = folder_of(first.path());
    for (name, is_folder) in list(&folder)? {
        let path = PathBuf::from(&name);
        match companion_in(&name) {
            Some(is_companion) if is_folder => {
                let names = list(&folder.join(&name))?.into_iter();
                let names = names.filter(|(name, is_folder)| !is_folder && is_companion(name));
                found.copied.extend(names.map(|(name, _)| path.join(name)));
            }
            _ if is_folder => {}
            _ if is_companion(&name) => found.copied.push(path),
            _ if name.ends_with(".py") => found.code.push(path),
            _ => {}
        }
    }
    found.copied.sort();
    Ok(found)
}

/// A file in the folder of `target` that would be replaced by another, if what belongs beside `source` were written there: one that
/// differs from the source's, or a configuration that is to be replaced. The first by name.
///
/// # Errors
/// Those of [`companions`], and of reading files.
pub fn existing_beside(
    source: &Checkpoint,
    target: &Path,
    config: Existing,
) -> Result<Option<PathBuf>> {
    let place = Place::of(source, target);
    let Some(Place { from, into }) = place else {
        return Ok(None);
    };
    let config_there = into.join(CONFIG);
    if config == Existing::Replaced && config_there.symlink_metadata().is_ok() {
        return Ok(Some(config_there));
    }
    for name in companions(source)?.copied {
        let there = into.join(&name);
        if there.symlink_metadata().is_ok() && !is_same(&from.join(&name), &there)? {
            return Ok(Some(there));
        }
    }
    Ok(None)
}

/// The files beside the tensors, complete, and not yet in place.
#[derive(Default)]
pub(crate) struct Beside {
    config: Option<(PathBuf, AtomicFile)>,
    copied: Vec<(PathBuf, AtomicFile)>,
}

/// What was put in place.
pub(crate) struct Placed {
    pub config: Option<PathBuf>,
    pub copied: Vec<PathBuf>,
}

impl Beside {
    /// What is to lie beside `target`: a configuration of this text, if there is one, and copies of what lies beside `source`. Nothing
    /// where both lie in one folder. The folder is made where it is not there.
    pub fn prepare(
        source: &Checkpoint,
        target: &Path,
        config: Option<&str>,
        durability: Durability,
    ) -> Result<Beside> {
        let mut beside = Beside::default();
        let Some(Place { from, into }) = Place::of(source, target) else {
            return Ok(beside);
        };
        if let Some(text) = config {
            let path = into.join(CONFIG);
            make_folder_of(&path)?;
            let mut file = AtomicFile::create(&path, Some(text.len() as u64), durability)?;
            file.write(text.as_bytes())?;
            file.prepare()?;
            beside.config = Some((path, file));
        }
        for name in companions(source)?.copied {
            let path = into.join(&name);
            let from = from.join(&name);
            if path.is_file() && is_same(&from, &path)? {
                continue;
            }
            make_folder_of(&path)?;
            let file = copy(&from, &path, durability)?;
            beside.copied.push((path, file));
        }
        Ok(beside)
    }

    /// Puts all in place.
    pub fn commit(self) -> Result<Placed> {
        let place = |(path, file): (PathBuf, AtomicFile)| file.commit().map(|()| path);
        Ok(Placed {
            copied: self.copied.into_iter().map(place).collect::<Result<_>>()?,
            config: self.config.map(place).transpose()?,
        })
    }
}

/// Two folders.
struct Place {
    from: PathBuf,
    into: PathBuf,
}

impl Place {
    /// Those of `source` and `target`, if they are not one.
    fn of(source: &Checkpoint, target: &Path) -> Option<Place> {
        let from = folder_of(source.files().first()?.path());
        let into = folder_of(target);
        let real = into.canonicalize().ok();
        let is_own = real.is_some() && real == from.canonicalize().ok();
        (!is_own).then_some(Place { from, into })
    }
}

pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    std::fs::create_dir_all(&folder).map_err(|error| io_error(error, &folder, "create the folder"))
}

/// The names in a folder, sorted, each with whether it is a folder; names that are no UTF-8 are of no program.
fn list(folder: &Path) -> Result<Vec<(String, bool)>> {
    let cannot = |error| io_error(error, folder, "list the folder");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if let Some(name) = entry.file_name().to_str() {
            names.push((name.to_owned(), entry.path().is_dir()));
        }
    }
    names.sort();
    Ok(names)
}

/// Which files of a folder of this name are companions, if it is one that programs look into: for templates, and for the settings of
/// sentence-transformers' modules, such as `1_Pooling`.
fn companion_in(folder: &str) -> Option<fn(&str) -> bool> {
    let number = folder.split_once('_').map_or("", |(number, _)| number);
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(|name| name == CONFIG);
    }
    (folder == TEMPLATES).then_some(|name| name.ends_with(".jinja"))
}

fn is_companion(name: &str) -> bool {
    let fits = |(start, end): &(&str, &str)| name.starts_with(start) && name.ends_with(end);
    NAMES.contains(&name) || PATTERNS.iter().any(fits)
}

/// A copy of a file, complete, and not yet in place.
fn copy(from: &Path, into: &Path, durability: Durability) -> Result<AtomicFile> {
    let source = Pread::new(open_regular(from)?)?;
    let mut file = AtomicFile::create(into, Some(source.size_bytes()), durability)?;
    let mut piece = allocate(source.size_bytes().min(PIECE_BYTES))?;
    for (start, length) in pieces(source.size_bytes()) {
        let read = source.read_at(start, &mut piece[..length]);
        read.map_err(|error| error.with_file(from.to_string_lossy()))?;
        file.write(&piece[..length])?;
    }
    file.prepare()?;
    Ok(file)
}

/// Whether two files have the same bytes.
fn is_same(one: &Path, other: &Path) -> Result<bool> {
    let [one, other] = [one, other].map(|path| Pread::new(open_regular(path)?));
    let (one, other) = (one?, other?);
    if one.size_bytes() != other.size_bytes() {
        return Ok(false);
    }
    let room = one.size_bytes().min(PIECE_BYTES);
    let mut found = [allocate(room)?, allocate(room)?];
    for (start, length) in pieces(one.size_bytes()) {
        let [ours, theirs] = &mut found;
        one.read_at(start, &mut ours[..length])?;
        other.read_at(start, &mut theirs[..length])?;
        if ours[..length] != theirs[..length] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where the pieces of so many bytes begin, and how long they are.
fn pieces(size: u64) -> impl Iterator<Item = (u64, usize)> {
    let starts = (0..size.div_ceil(PIECE_BYTES)).map(|piece| piece * PIECE_BYTES);
    starts.map(move |start| {
        let length = (size - start).min(PIECE_BYTES);
        (start, usize::try_from(length).expect("at most a piece"))
    })
}

#[cfg(test)]
mod tests {
    use super::is_companion;

    #[test]
    fn what_models_need_is_told_from_weights_pickles_and_code() {
        for name in [
            "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.model",
            "tokenizer.model.v3",
            "vocab.json",
            "vocab.txt",
            "merges.txt",
            "special_tokens_map.json",
            "generation_config.json",
            "preprocessor_config.json",
            "processor_config.json",
            "video_preprocessor_config.json",
            "chat_template.jinja",
            "chat_template.json",
            "qwen.tiktoken",
            "tekken.json",
            "LICENSE",
        ] {
            assert!(is_companion(name), "{name}");
        }
        for name in [
            "config.json",
            "quantize_config.json",
            "hf_quant_config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "training_args.bin",
            "optimizer.pt",
            "tokenizer.pkl",
            "tokenizer.model.safetensors",
            "vocab.pkl",
            "tokenization_qwen.py",
            "modeling_qwen.py",
            "README.md",
            ".gitattributes",
        ] {
            assert!(!is_companion(name), "{name}");
        }
    }
}
