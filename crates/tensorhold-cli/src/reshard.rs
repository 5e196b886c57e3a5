//! `tensorhold shard` and `tensorhold merge`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tensorhold::{Checkpoint, Escaped, OpenOptions, SaveOptions, parse_bytes};

use crate::FINE;
use crate::output::{Done, is_there, list, note_ambiguous_metadata, stdout};
use crate::progress::Progress;

/// Writes a checkpoint in shards, with the index that names them
///
/// The checkpoint is complete, or what was there before is: the index comes into place last.
#[derive(Args)]
#[command(after_help = "Example:\n  tensorhold shard model.safetensors shards/ --max-size 5GB")]
pub(crate) struct Shard {
    /// A file, a folder or an `*.safetensors.index.json`
    source: PathBuf,
    /// The folder of the shards, or `folder/name.safetensors` to name them `name-00001-of-…`
    target: PathBuf,
    /// The most bytes of tensors in a shard: 5GB, 500MB, 4GiB or a number
    #[arg(long, value_parser = parse_bytes)]
    max_size: u64,
    /// Replace a checkpoint that is there already
    #[arg(long)]
    force: bool,
}

/// Joins the shards of a checkpoint into one file
#[derive(Args)]
#[command(after_help = "Example:\n  tensorhold merge shards/ model.safetensors")]
pub(crate) struct Merge {
    /// A folder, an `*.safetensors.index.json` or a file
    source: PathBuf,
    /// The file to write
    target: PathBuf,
    /// Replace a file that is there already
    #[arg(long)]
    force: bool,
}

impl Shard {
    pub(crate) fn run(&self) -> Done {
        let source = Checkpoint::open(&self.source, &OpenOptions::default())?;
        let target = tensorhold::shard_target(&self.target)?;
        if !self.force
            && let Some(existing) = tensorhold::existing_shards(&target)?
        {
            return Err(is_there(&existing).into());
        }
        note_ambiguous_metadata(&self.source, &source);
        let mut progress = Progress::new(source.size_bytes());
        let options = SaveOptions::default();
        let written = tensorhold::shard(&source, &target, self.max_size, &options, &mut |bytes| {
            progress.add(bytes)
        })?;
        drop(progress);
        list(&written)?;
        Ok(FINE)
    }
}

impl Merge {
    pub(crate) fn run(&self) -> Done {
        let source = Checkpoint::open(&self.source, &OpenOptions::default())?;
        if !self.force && self.target.symlink_metadata().is_ok() {
            return Err(is_there(&self.target).into());
        }
        note_ambiguous_metadata(&self.source, &source);
        let mut progress = Progress::new(source.size_bytes());
        let options = SaveOptions::default();
        tensorhold::merge(&source, &self.target, &options, &mut |bytes| {
            progress.add(bytes)
        })?;
        drop(progress);
        let mut out = stdout();
        writeln!(out, "{}", Escaped(&self.target.to_string_lossy()))?;
        out.flush()?;
        Ok(FINE)
    }
}
