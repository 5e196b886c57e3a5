//! `tensorhold consolidate` and `tensorhold reshard`.

use std::path::PathBuf;

use clap::Args;
use tensorhold::{Assembled, OpenOptions, SaveOptions, parse_bytes};

use crate::FINE;
use crate::division::Division;
use crate::output::{Done, is_there, list};
use crate::progress::Progress;

/// Puts together what ranks have saved: whole tensors, in one file or in shards
///
/// Reads the files of PyTorch's distributed checkpoints in safetensors files. A checkpoint in which elements are missing, or are there
/// twice, is refused.
#[derive(Args)]
#[command(after_help = "Example:\n  tensorhold consolidate step-1000/ model/ --max-shard-size 5GB")]
pub(crate) struct Consolidate {
    /// The folder of the files, or any checkpoint
    source: PathBuf,
    /// The folder of the result, or `folder/name.safetensors`
    target: PathBuf,
    /// The most bytes of tensors in a file: 5GB, 500MB, 4GiB or a number; one file if it is left out
    #[arg(long, value_parser = parse_bytes)]
    max_shard_size: Option<u64>,
    /// Replace a checkpoint that is there already
    #[arg(long)]
    force: bool,
}

/// Writes a checkpoint as the ranks of a mesh hold it: a file for each, as PyTorch's distributed checkpoints
///
/// The source is what ranks of any other mesh have saved, or any checkpoint. Rules are those of `tensorhold plan`. What several ranks
/// hold is written once.
#[derive(Args)]
#[command(
    after_help = "Example:\n  tensorhold reshard step-1000/ tp4/ --mesh tp=4 --rule '**.q_proj=colwise' --rule '**.o_proj=rowwise'"
)]
pub(crate) struct Reshard {
    /// The folder of the files, or any checkpoint
    source: PathBuf,
    /// The folder of the result
    target: PathBuf,
    #[command(flatten)]
    division: Division,
    /// Replace a checkpoint of ranks that is there already
    #[arg(long)]
    force: bool,
}

impl Consolidate {
    pub(crate) fn run(&self) -> Done {
        let source = Assembled::open(&self.source, &OpenOptions::default())?;
        let target = tensorhold::shard_target(&self.target)?;
        if !self.force
            && let Some(existing) = tensorhold::existing_shards(&target)?
        {
            return Err(is_there(&existing).into());
        }
        let mut progress = Progress::new(source.size_bytes());
        let options = SaveOptions::default();
        let max = self.max_shard_size;
        let written = tensorhold::consolidate(&source, &target, max, &options, &mut |bytes| {
            progress.add(bytes)
        })?;
        drop(progress);
        list(&written)?;
        Ok(FINE)
    }
}

impl Reshard {
    pub(crate) fn run(&self) -> Done {
        let rules = self.division.rules()?;
        let source = Assembled::open(&self.source, &OpenOptions::default())?;
        if !self.force
            && let Some(existing) = tensorhold::existing_chunks(&self.target)?
        {
            return Err(is_there(&existing).into());
        }
        let mut progress = Progress::new(source.size_bytes());
        let options = SaveOptions::default();
        let written = tensorhold::reshard(&source, &rules, &self.target, &options, &mut |bytes| {
            progress.add(bytes)
        })?;
        drop(progress);
        list(&written)?;
        Ok(FINE)
    }
}
