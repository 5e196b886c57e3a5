//! Says of each file whether it is what it must be.
//!
//! Beyond what opening a file checks, the strict rules look into the data: every BOOL is 0 or 1, the file cannot be
//! taken for a zip archive or for a pickle that runs something, and integers narrower than a byte fit what the metadata says of
//! them, with zeros behind each line. Of an index, the shards, the tensors in them and the total size are checked.

mod values;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tensorhold_convert::container::find_zip_end;
use tensorhold_convert::first_import;
use tensorhold_core::{Error, ErrorKind, Result, Rules, ShardIndex, Source};

use crate::checkpoint::{Checkpoint, read_index};
use crate::file::{Backend, OpenOptions};
use crate::quantized::{Proof, prove};
use crate::subbyte;

/// What is told while files are verified.
#[derive(Debug)]
pub enum VerifyEvent {
    /// A file or an index was verified.
    Done(Verdict),
    /// The quantized weights of all files together were looked at.
    Proven(Proof),
    /// So many more bytes of tensors were read.
    Read(u64),
}

/// What was found out about a file or an index.
#[derive(Debug)]
pub struct Verdict {
    /// The file.
    pub path: PathBuf,
    /// What it holds, or what is wrong with it.
    pub found: Result<Holding>,
}

/// What a good file holds, or an index in all its shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// The number of tensors.
    pub n_tensors: u64,
    /// The bytes that they take.
    pub size_bytes: u64,
}

/// How a verification ended, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Outcome {
    /// All is as it must be.
    #[default]
    Fine,
    /// Something is wrong with a file.
    Wrong,
    /// Something could not be read, so that nothing can be said of it.
    Unreadable,
}

impl Verdict {
    /// Which end the verification comes to by this file.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.found.as_ref().map_err(Error::kind) {
            Ok(_) => Outcome::Fine,
            Err(
                ErrorKind::NotFound
                | ErrorKind::PermissionDenied
                | ErrorKind::NotRegularFile
                | ErrorKind::Io,
            ) => Outcome::Unreadable,
            Err(_) => Outcome::Wrong,
        }
    }
}

/// Verifies what lies at `path`: a file, an `*.safetensors.index.json` with its shards, or all files and indexes
/// of a folder. Each verdict is told as soon as it stands; the worst outcome is returned.
///
/// Of quantized weights, the parts are held to each other: they must be there and of shapes that fit, scales must be finite, and groups
/// must exist. A file that is named as a shard of several is not held to that by itself.
pub fn verify(path: impl AsRef<Path>, rules: Rules, tell: &mut dyn FnMut(VerifyEvent)) -> Outcome {
    verify_as(path, rules, None, tell)
}

/// Verifies as [`verify`] does, with what is said of quantization in place of what the files beside the tensors say, as by
/// [`Checkpoint::with_quantization_config`].
pub fn verify_as(
    path: impl AsRef<Path>,
    rules: Rules,
    quantization_config: Option<&str>,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Outcome {
    let path = path.as_ref();
    let mut outcome = Outcome::Fine;
    let mut done = |path: PathBuf, found: Result<Holding>, tell: &mut dyn FnMut(VerifyEvent)| {
        let found = found.map_err(|error| error.with_file(path.to_string_lossy()));
        let verdict = Verdict { path, found };
        outcome = outcome.max(verdict.outcome());
        tell(VerifyEvent::Done(verdict));
    };
    match Targets::at(path) {
        Err(error) => done(path.to_owned(), Err(error), tell),
        Ok(targets) => {
            for file in targets.files {
                let found = verify_file(&file, rules, tell);
                done(file, found, tell);
            }
            for index in targets.indexes {
                let found = verify_index(&index, rules);
                done(index, found, tell);
            }
        }
    }
    outcome.max(verify_quantized(path, rules, quantization_config, tell))
}

/// Proves the layout of quantized weights, whose parts may lie in several files.
fn verify_quantized(
    path: &Path,
    rules: Rules,
    config: Option<&str>,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Outcome {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_shard = path.is_file() && name.contains("-of-") && name.ends_with(".safetensors");
    // What cannot be opened was told of already.
    let Some(mut checkpoint) = Checkpoint::open(path, &options(rules))
        .ok()
        .filter(|_| !is_shard)
    else {
        return Outcome::Fine;
    };
    if let Some(config) = config {
        checkpoint = checkpoint.with_quantization_config(config.to_owned());
    }
    let Some(proof) = prove(path, &checkpoint, tell) else {
        return Outcome::Fine;
    };
    let is_fine = proof.wrong.is_empty();
    tell(VerifyEvent::Proven(proof));
    if is_fine {
        Outcome::Fine
    } else {
        Outcome::Wrong
    }
}

/// What is to be verified; each file once, although an index names it too.
#[derive(Default)]
struct Targets {
    files: BTreeSet<PathBuf>,
    indexes: BTreeSet<PathBuf>,
}

impl Targets {
    fn at(path: &Path) -> Result<Targets> {
        let mut targets = Targets::default();
        if path.is_dir() {
            targets.add_folder(path)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            targets.indexes.insert(path.to_owned());
        } else {
            targets.files.insert(path.to_owned());
        }
        for index in &targets.indexes {
            // What is wrong with an index is said when its turn comes.
            if let Ok(parsed) = read_index(index).and_then(|text| ShardIndex::parse(&text)) {
                let shards = parsed
                    .shards()
                    .iter()
                    .map(|shard| index.with_file_name(shard));
                targets.files.extend(shards.filter(|shard| shard.exists()));
            }
        }
        Ok(targets)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let cannot = |error| tensorhold_io::io_error(error, folder, "list the folder");
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path.to_string_lossy();
            if name.ends_with(".safetensors.index.json") {
                self.indexes.insert(path);
            } else if name.ends_with(".safetensors") {
                self.files.insert(path);
            }
        }
        if self.files.is_empty() && self.indexes.is_empty() {
            let message =
                "no `*.safetensors` file and no `*.safetensors.index.json` is in this folder";
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        Ok(())
    }
}

fn options(rules: Rules) -> OpenOptions {
    // A file that shrinks while it is verified is to be an error, not a signal.
    OpenOptions {
        rules,
        backend: Backend::Pread,
    }
}

pub(crate) fn verify_file(
    path: &Path,
    rules: Rules,
    tell: &mut dyn FnMut(VerifyEvent),
) -> Result<Holding> {
    let checkpoint = Checkpoint::open_files(&[path], &options(rules))?;
    if rules == Rules::Strict {
        for file in checkpoint.files() {
            refuse_zip(file.source())?;
            refuse_pickle(file.source())?;
            subbyte::check(file.header())?;
        }
        values::check_bools(&checkpoint, tell)?;
        values::check_padding(&checkpoint, tell)?;
    }
    Ok(Holding::of(&checkpoint))
}

fn verify_index(path: &Path, rules: Rules) -> Result<Holding> {
    let index = ShardIndex::parse(&read_index(path)?)?;
    let checkpoint = Checkpoint::open(path, &options(rules))?;
    let size_bytes = checkpoint.size_bytes();
    match index.total_size() {
        Some(stated) if stated != size_bytes => {
            let message = format!(
                "the index states a total size of {stated} bytes, but its tensors take {size_bytes}"
            );
            Err(Error::new(ErrorKind::InvalidIndex, message))
        }
        _ => Ok(Holding::of(&checkpoint)),
    }
}

impl Holding {
    fn of(checkpoint: &Checkpoint) -> Holding {
        Holding {
            n_tensors: checkpoint.n_tensors() as u64,
            size_bytes: checkpoint.size_bytes(),
        }
    }
}

pub(crate) const TWO_THINGS: &str = "somebody made this file to be taken for two things; do not give it to programs that open the other";

fn refuse_zip(source: &dyn Source) -> Result<()> {
    let Some(range) = find_zip_end(source)? else {
        return Ok(());
    };
    let message = "the file ends as a zip archive does, so it can pass for both";
    Err(Error::new(ErrorKind::Forbidden, message)
        .with_bytes(range)
        .with_hint(TWO_THINGS))
}

fn refuse_pickle(source: &dyn Source) -> Result<()> {
    let Some(range) = first_import(source)? else {
        return Ok(());
    };
    let message = "the file is also a pickle, which imports something when it is loaded";
    Err(Error::new(ErrorKind::Forbidden, message)
        .with_bytes(range)
        .with_hint(TWO_THINGS))
}
