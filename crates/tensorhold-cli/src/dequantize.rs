//! `tensorhold dequantize`.

use std::path::PathBuf;

use clap::Args;
use tensorhold::{
    Checkpoint, DequantizeOptions, Dtype, Error, ErrorKind, ExistingConfig, OpenOptions,
    dequantize_checkpoint, existing_shards, parse_bytes, shard_target,
};

use crate::FINE;
use crate::convert::parse_dtype;
use crate::output::{Done, counted, is_there, list, note_ambiguous_metadata, print_note};
use crate::progress::Progress;

/// Writes a checkpoint with numbers in place of its quantized weights
///
/// Weights have the names that they have without quantization, and the tensors that they are made of are left out. All other tensors
/// are copied. A `config.json` beside the source is written beside the target, without what it says of quantization; tokenizers and
/// whatever else lies there is not copied. Some MB are in memory at a time, and nothing is at the target until all is written.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tensorhold dequantize model-fp8/ model-bf16/ --max-shard-size 5GB\n  \
    tensorhold dequantize model-gptq.safetensors model.safetensors --dtype f16 --verify"
)]
pub(crate) struct Dequantize {
    /// A file, a folder or an `*.safetensors.index.json`
    source: PathBuf,
    /// The file to write; a folder where it is there or shards are asked for
    target: PathBuf,
    /// What weights become, F32, bf16, float16 and so on, if not what the checkpoint says
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<Dtype>,
    /// Write shards of at most so many bytes of tensors: 5GB, 500MB, 4GiB or a number
    #[arg(long, value_parser = parse_bytes)]
    max_shard_size: Option<u64>,
    /// Read what was written, and compare it with the source
    #[arg(long)]
    verify: bool,
    /// Replace files that are there already
    #[arg(long)]
    force: bool,
}

impl Dequantize {
    pub(crate) fn run(&self) -> Done {
        let source = Checkpoint::open(&self.source, &OpenOptions::default())?;
        let target = self.target()?;
        note_ambiguous_metadata(&self.source, &source);
        let quantization = source.quantization()?;
        if quantization.weights.is_empty() {
            print_note("nothing in this checkpoint is quantized: all tensors are copied");
        }
        let mut progress = Progress::new(0);
        let mut told = 0;
        let mut tell = |total, done| {
            progress.of(total);
            progress.add(done - told);
            told = done;
            Ok(())
        };
        let weights = &quantization.weights;
        let written = dequantize_checkpoint(&source, weights, &target, &self.options(), &mut tell)?;
        drop(progress);
        let n_copied = written.n_tensors - written.n_weights;
        print_note(&format!(
            "{} as numbers, {} copied",
            counted(written.n_weights as u64, "weight"),
            counted(n_copied as u64, "tensor")
        ));
        list(&written.paths)?;
        Ok(FINE)
    }

    /// The file to write, or what shards are named after; an error if there is something that nobody said to replace.
    fn target(&self) -> Done<PathBuf> {
        let is_folder = self.target.is_dir() || self.target.to_string_lossy().ends_with('/');
        let target = match is_folder || self.max_shard_size.is_some() {
            true => shard_target(&self.target)?,
            false => self.target.clone(),
        };
        let existing = match self.max_shard_size {
            Some(_) => existing_shards(&target)?,
            None => target.symlink_metadata().is_ok().then(|| target.clone()),
        };
        if let Some(existing) = existing.filter(|_| !self.force) {
            return Err(is_there(&existing).into());
        }
        if is_folder && !self.target.is_dir() {
            let made = std::fs::create_dir_all(&self.target);
            made.map_err(|error| {
                Error::new(ErrorKind::Io, format!("cannot make the folder: {error}"))
                    .with_file(self.target.to_string_lossy())
            })?;
        }
        Ok(target)
    }

    fn options(&self) -> DequantizeOptions {
        DequantizeOptions {
            dtype: self.dtype,
            max_shard_bytes: self.max_shard_size,
            verify: self.verify,
            existing_config: match self.force {
                true => ExistingConfig::Replaced,
                false => ExistingConfig::Kept,
            },
            ..DequantizeOptions::default()
        }
    }
}
