//! What the commands have in common that write a checkpoint anew.

use std::path::PathBuf;

use clap::Args;
use tensorhold::{
    Checkpoint, Escaped, ExistingConfig, OpenOptions, Result, RewriteOptions, RewriteProgress,
    companions, existing_beside, existing_shards, parse_bytes, shard_target,
};

use crate::output::{Done, is_there, list, note_ambiguous_metadata, print_note};
use crate::progress::Progress;

/// From where, to where, and how.
#[derive(Args)]
pub(crate) struct Rewrite {
    /// A folder, an `*.safetensors.index.json` or a file
    pub(crate) source: PathBuf,
    /// The folder to write, or `folder/name.safetensors`
    target: PathBuf,
    /// The most bytes of tensors in a shard, 500MB, 4GiB or a number: 5GB where not said
    #[arg(long, value_parser = parse_bytes)]
    pub(crate) max_shard_size: Option<u64>,
    /// Threads that work, at most 8
    #[arg(long)]
    threads: Option<usize>,
    /// Replace what is there already
    #[arg(long)]
    pub(crate) force: bool,
}

/// A checkpoint, where it is to be written, and what lies beside it that is not.
pub(crate) struct Opened {
    pub(crate) source: Checkpoint,
    pub(crate) target: PathBuf,
    code: Vec<PathBuf>,
}

impl Rewrite {
    /// Opens the source; an error if there is something at the target that nobody said to replace.
    pub(crate) fn open(&self, config: ExistingConfig) -> Done<Opened> {
        let opened = self.open_only()?;
        let Opened { source, target, .. } = &opened;
        if self.force {
            return Ok(opened);
        }
        let existing = match existing_shards(target)? {
            Some(existing) => Some(existing),
            None => existing_beside(source, target, config)?,
        };
        match existing {
            Some(existing) => Err(is_there(&existing).into()),
            None => Ok(opened),
        }
    }

    /// Opens the source, whatever there is at the target.
    pub(crate) fn open_only(&self) -> Done<Opened> {
        let source = Checkpoint::open(&self.source, &OpenOptions::default())?;
        note_ambiguous_metadata(&self.source, &source);
        Ok(Opened {
            target: shard_target(&self.target)?,
            code: companions(&source)?.code,
            source,
        })
    }

    pub(crate) fn options(&self, verify: Verify) -> RewriteOptions {
        RewriteOptions {
            max_shard_bytes: self.max_shard_size,
            n_threads: self.threads,
            verify: verify == Verify::Yes,
            ..RewriteOptions::default()
        }
    }
}

/// Whether what was written is read again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    Yes,
    No,
}

impl From<bool> for Verify {
    fn from(asked: bool) -> Verify {
        if asked { Verify::Yes } else { Verify::No }
    }
}

/// Does `work`, and shows how far it is.
pub(crate) fn with_progress<T>(
    work: impl FnOnce(&mut RewriteProgress<'_>) -> Result<T>,
) -> Result<T> {
    let mut progress = Progress::new(0);
    let mut told = 0;
    work(&mut |total, done| {
        progress.of(total);
        progress.add(done - told);
        told = done;
        Ok(())
    })
}

impl Opened {
    /// Says what was copied beside the tensors and what was not, and lists all that was written.
    pub(crate) fn list(&self, paths: &[PathBuf], copied: &[PathBuf]) -> Done<()> {
        if let Some(names) = names(copied) {
            print_note(&format!("copied beside the tensors: {names}"));
        }
        self.note_code();
        list(paths)?;
        list(copied)
    }

    /// Says what is left out.
    pub(crate) fn note_code(&self) {
        if let Some(names) = names(&self.code) {
            print_note(&format!("code is not copied: {names}"));
        }
    }
}

/// The names of files, if there are any.
fn names(paths: &[PathBuf]) -> Option<String> {
    let names = paths.iter().filter_map(|path| path.file_name());
    let names = names.map(|name| Escaped(&name.to_string_lossy()).to_string());
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then(|| names.join(", "))
}
