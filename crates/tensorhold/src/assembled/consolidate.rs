//! Whole tensors in files of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tensorhold_core::{Result, TensorSpec};

use super::read::Windows;
use super::{Assembled, words};
use crate::reshard::refuse_own_folder;
use crate::save::{SaveOptions, save_streamed_shards, shard_target};

/// Writes the whole tensors of `source` to `target`, a folder or the name of a file in one, in one file or, if they take over
/// `max_shard_bytes`, in shards with an index, as [`save_shards`](crate::save_shards) does. The metadata is kept but for what it says of
/// chunks. `progress` is told the bytes that were written; some MB are in memory at a time. Gives the paths that were written.
///
/// # Errors
/// Those of [`save_shards`](crate::save_shards) and of [`Assembled::stream`]; `InvalidArgument` if the files would lie in the folder of
/// the source; `HeaderJson` if a file of it has metadata that cannot be joined with that of the others.
pub fn consolidate(
    source: &Assembled,
    target: impl AsRef<Path>,
    max_shard_bytes: Option<u64>,
    options: &SaveOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<PathBuf>> {
    let target = &shard_target(target.as_ref())?;
    refuse_own_folder(source.checkpoint(), target)?;
    let metadata = words::metadata_of(source.checkpoint())?;
    let specs: Vec<TensorSpec<'_>> = source
        .tensors()
        .iter()
        .map(|tensor| TensorSpec {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
        })
        .collect();
    let mut windows = Windows::of(source);
    save_streamed_shards(
        target,
        &specs,
        borrowed(&metadata).as_deref(),
        max_shard_bytes.unwrap_or(u64::MAX),
        options,
        &mut |index, put| {
            let tensor = &source.tensors()[index];
            windows.stream(tensor, &tensor.ranges(), &mut |bytes| {
                progress(bytes.len() as u64);
                put(bytes)
            })
        },
    )
}

/// Metadata as a save takes it, if there is any.
pub(super) fn borrowed(metadata: &BTreeMap<String, String>) -> Option<Vec<(&str, &str)>> {
    let texts = metadata.iter().map(|(key, text)| (&key[..], &text[..]));
    (!metadata.is_empty()).then(|| texts.collect())
}
