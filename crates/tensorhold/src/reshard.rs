//! One checkpoint in other files: shards out of one, one out of shards.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use tensorhold_core::{Error, ErrorKind, Result, TensorSpec};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::save::{SaveOptions, save_file, save_shards, shard_target};

/// Writes the tensors and metadata of `source` in shards of at most `max_shard_bytes`, beside `target`, as
/// [`save_shards`] does. `progress` is told the bytes that were written. A mapped source is written from its map; of any other, one tensor
/// is in memory at a time.
///
/// # Errors
/// Those of [`save_shards`]; `InvalidArgument` if a file of the source would be overwritten.
pub fn shard(
    source: &Checkpoint,
    target: impl AsRef<Path>,
    max_shard_bytes: u64,
    options: &SaveOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<PathBuf>> {
    let target = &shard_target(target.as_ref())?;
    refuse_own_folder(source, target)?;
    let tensors: Vec<Tensor<'_>> = source.tensors().collect();
    let metadata = metadata_of(source);
    let bytes = |index: usize| bytes_of(&tensors[index], progress);
    save_shards(
        target,
        &specs(&tensors),
        metadata.as_deref(),
        max_shard_bytes,
        options,
        bytes,
    )
}

/// Writes the tensors and metadata of `source` to the one file `target`, as [`save_file`] does.
///
/// # Errors
/// Those of [`save_file`]; `InvalidArgument` if a file of the source would be overwritten.
pub fn merge(
    source: &Checkpoint,
    target: impl AsRef<Path>,
    options: &SaveOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let target = target.as_ref();
    refuse_source(source, target)?;
    let tensors: Vec<Tensor<'_>> = source.tensors().collect();
    let metadata = metadata_of(source);
    let bytes = |index: usize| bytes_of(&tensors[index], progress);
    save_file(
        target,
        &specs(&tensors),
        metadata.as_deref(),
        options,
        bytes,
    )
}

fn specs<'a>(tensors: &[Tensor<'a>]) -> Vec<TensorSpec<'a>> {
    let spec = |tensor: &Tensor<'a>| {
        let info = tensor.info();
        TensorSpec {
            name: info.name,
            dtype: info.dtype,
            shape: info.shape,
        }
    };
    tensors.iter().map(spec).collect()
}

pub(crate) fn metadata_of(source: &Checkpoint) -> Option<Vec<(&str, &str)>> {
    let has_any = source
        .files()
        .iter()
        .any(|file| file.header().metadata().is_some());
    has_any.then(|| source.metadata().into_iter().collect())
}

fn bytes_of<'a>(tensor: &Tensor<'a>, progress: &mut dyn FnMut(u64)) -> Result<Cow<'a, [u8]>> {
    progress(tensor.info().size_bytes());
    match tensor.mapped_bytes() {
        Some(bytes) => Ok(Cow::Borrowed(bytes)),
        None => tensor.read().map(Cow::Owned),
    }
}

/// New shards may have the names of old ones, and replace what the index of the same name lists.
pub(crate) fn refuse_own_folder(source: &Checkpoint, target: &Path) -> Result<()> {
    let folder_of = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.canonicalize().ok(),
        _ => Path::new(".").canonicalize().ok(),
    };
    let folder = folder_of(target);
    match source
        .files()
        .iter()
        .find(|file| folder.is_some() && folder_of(file.path()) == folder)
    {
        Some(_) => {
            let message =
                "the files would lie in the folder of the checkpoint that they are made of";
            Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_file(target.to_string_lossy())
                .with_hint("name another folder"))
        }
        None => Ok(()),
    }
}

pub(crate) fn refuse_source(source: &Checkpoint, target: &Path) -> Result<()> {
    let real = target.canonicalize().ok();
    let is_target = |path: &Path| real.is_some() && path.canonicalize().ok() == real;
    match source.files().iter().any(|file| is_target(file.path())) {
        true => Err(Error::new(
            ErrorKind::InvalidArgument,
            "this is a file of the checkpoint that is read",
        )
        .with_file(target.to_string_lossy())
        .with_hint("name another file")),
        false => Ok(()),
    }
}
