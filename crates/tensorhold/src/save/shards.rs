//! Names of shards, and the commit of a whole set of them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use tensorhold_core::{Error, ErrorKind, Result, ShardIndex, Sink, TensorSpec, shape_size_bytes};
use tensorhold_io::{AtomicFile, Durability};

/// What is in one shard where nothing else is asked for, in bytes, as Transformers has it.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

pub(super) fn total_size(tensors: &[TensorSpec<'_>]) -> Result<u64> {
    tensors.iter().try_fold(0u64, |total, tensor| {
        let size = shape_size_bytes(tensor.dtype, tensor.shape)?;
        total
            .checked_add(size)
            .ok_or_else(|| Error::new(ErrorKind::Overflow, "the tensors take over 2^64 bytes"))
    })
}

/// Ranges of tensors whose bytes stay under the limit; a larger tensor is alone.
pub(super) fn split(
    tensors: &[TensorSpec<'_>],
    max_shard_bytes: u64,
) -> Result<Vec<std::ops::Range<usize>>> {
    let mut shards = Vec::new();
    let (mut start, mut filled) = (0, 0u64);
    for (index, tensor) in tensors.iter().enumerate() {
        let size = shape_size_bytes(tensor.dtype, tensor.shape)
            .map_err(|error| error.with_tensor(tensor.name))?;
        if index > start && filled.saturating_add(size) > max_shard_bytes {
            shards.push(start..index);
            (start, filled) = (index, 0);
        }
        filled = filled.saturating_add(size);
    }
    shards.push(start..tensors.len());
    Ok(shards)
}

/// The names of the files of one sharded save, and the commit of all of them together.
pub(crate) struct ShardNames {
    folder: PathBuf,
    stem: String,
    /// What an earlier save left at these names: its shards, which stay until the new index is in place.
    earlier: BTreeSet<String>,
    /// Set apart from an earlier save's names where they would collide.
    generation: Option<String>,
}

impl ShardNames {
    pub(crate) fn of(target: &Path) -> Result<ShardNames> {
        let target = &shard_target(target)?;
        let name = target.file_name().and_then(OsStr::to_str);
        let Some(stem) = name.and_then(|name| name.strip_suffix(SUFFIX)) else {
            let message = "the name of a sharded save must be UTF-8";
            return Err(
                Error::new(ErrorKind::InvalidArgument, message).with_file(target.to_string_lossy())
            );
        };
        let folder = target.parent().unwrap_or_else(|| Path::new("")).to_owned();
        if folder != Path::new("") {
            std::fs::create_dir_all(&folder)
                .map_err(|error| tensorhold_io::io_error(error, &folder, "create the folder"))?;
        }
        let earlier = earlier_shards(&folder.join(format!("{stem}.safetensors.index.json")), stem);
        let generation = (!earlier.is_empty()).then(|| unused_generation(&earlier));
        Ok(ShardNames {
            folder,
            stem: stem.to_owned(),
            earlier,
            generation,
        })
    }

    /// The path of shard `n`, counted from 0, of `n_shards`.
    pub(crate) fn path(&self, n: usize, n_shards: usize) -> PathBuf {
        self.folder.join(self.name(n, n_shards))
    }

    /// A path beside the shards, for a file whose number is not known yet.
    pub(crate) fn unnumbered(&self) -> PathBuf {
        self.folder.join(format!("{}-shard.safetensors", self.stem))
    }

    fn name(&self, n: usize, n_shards: usize) -> String {
        let ShardNames {
            stem, generation, ..
        } = self;
        match (n_shards, generation) {
            (1, _) => format!("{stem}.safetensors"),
            (_, None) => format!("{stem}-{:05}-of-{n_shards:05}.safetensors", n + 1),
            (_, Some(generation)) => format!(
                "{stem}-{generation}-{:05}-of-{n_shards:05}.safetensors",
                n + 1
            ),
        }
    }

    fn index_path(&self) -> PathBuf {
        self.folder
            .join(format!("{}.safetensors.index.json", self.stem))
    }

    /// Puts all shards in place, then the index, then removes what the index replaced.
    pub(crate) fn commit<'n>(
        &self,
        shards: Vec<AtomicFile>,
        shard_of: impl Iterator<Item = (&'n str, usize)>,
        total_size: u64,
        durability: Durability,
    ) -> Result<Vec<PathBuf>> {
        let n_shards = shards.len();
        let mut written: Vec<PathBuf> = (0..n_shards).map(|n| self.path(n, n_shards)).collect();
        for (n, shard) in shards.into_iter().enumerate() {
            shard.commit_as(self.name(n, n_shards).as_ref())?;
        }
        let single = self.folder.join(format!("{}.safetensors", self.stem));
        if n_shards == 1 {
            remove_if_there(&self.index_path())?;
        } else {
            let names: Vec<String> = (0..n_shards).map(|n| self.name(n, n_shards)).collect();
            let json = ShardIndex::to_json(
                shard_of.map(|(tensor, n)| (tensor, names[n].as_str())),
                total_size,
                &[],
            );
            let mut index =
                AtomicFile::create(&self.index_path(), Some(json.len() as u64), durability)?;
            index.write(json.as_bytes())?;
            index.commit()?;
            remove_if_there(&single)?;
            written.push(self.index_path());
        }
        for name in &self.earlier {
            let path = self.folder.join(name);
            if !written.contains(&path) {
                remove_if_there(&path)?;
            }
        }
        Ok(written)
    }
}

const SUFFIX: &str = ".safetensors";

/// The file that shards at `target` are named after: the target itself, or `model.safetensors` in a folder.
///
/// # Errors
/// `InvalidArgument` for the name of a file that does not end in `.safetensors`.
pub fn shard_target(target: &Path) -> Result<PathBuf> {
    let name = target
        .file_name()
        .map(OsStr::to_string_lossy)
        .unwrap_or_default();
    if name.len() > SUFFIX.len() && name.ends_with(SUFFIX) {
        return Ok(target.to_owned());
    }
    if target.is_dir() || target.extension().is_none() {
        return Ok(target.join(format!("model{SUFFIX}")));
    }
    let message = "the target of a sharded save must be a folder, or be named `*.safetensors`";
    Err(Error::new(ErrorKind::InvalidArgument, message).with_file(target.to_string_lossy()))
}

/// A file that a sharded save to `target` may replace or remove: the one of that name, its index, or a shard named after
/// it, of which there can be some without an index. The first by name, if there is any.
///
/// # Errors
/// Those of [`shard_target`]; `Io` if the folder cannot be listed.
pub fn existing_shards(target: &Path) -> Result<Option<PathBuf>> {
    let target = &shard_target(target)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(SUFFIX).unwrap_or(&name);
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let cannot = |error| tensorhold_io::io_error(error, folder, "list the folder");
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(cannot)?,
    };
    let mut first: Option<OsString> = None;
    for entry in entries {
        let found = entry.map_err(cannot)?.file_name();
        if is_of_save(&found.to_string_lossy(), stem)
            && first.as_ref().is_none_or(|first| found < *first)
        {
            first = Some(found);
        }
    }
    Ok(first.map(|name| target.with_file_name(name)))
}

/// Whether a file of this name can belong to a save of this stem.
fn is_of_save(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| {
        let is_shard = rest.starts_with('-') && rest.contains("-of-") && rest.ends_with(SUFFIX);
        is_shard || rest == SUFFIX || rest == ".safetensors.index.json"
    })
}

/// The shards of an earlier save of the same stem: only names that a sharded save of ours or of Hugging Face gives.
fn earlier_shards(index: &Path, stem: &str) -> BTreeSet<String> {
    let Ok(text) = std::fs::read(index) else {
        return BTreeSet::new();
    };
    let Ok(index) = ShardIndex::parse(&text) else {
        return BTreeSet::new();
    };
    let is_ours = |name: &&String| {
        name.strip_prefix(stem)
            .is_some_and(|rest| rest.starts_with('-') && rest.contains("-of-"))
    };
    index.shards().iter().filter(is_ours).cloned().collect()
}

/// A word that none of the names holds.
fn unused_generation(names: &BTreeSet<String>) -> String {
    (2u32..)
        .map(|n| format!("v{n}"))
        .find(|word| !names.iter().any(|name| name.contains(&format!("-{word}-"))))
        .expect("a set of names cannot hold every number")
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(tensorhold_io::io_error(
            error,
            path,
            "remove the file of an earlier save",
        )),
        _ => Ok(()),
    }
}
