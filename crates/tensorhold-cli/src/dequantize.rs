//! `tensorhold dequantize`.

use std::path::PathBuf;

use clap::Args;
use tensorhold::{
    Checkpoint, DEFAULT_SHARD_BYTES, DequantizeOptions, Dtype, ExistingConfig, OpenOptions,
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
    after_help = "Examples:\n  tensorhold dequantize model-fp8 model-bf16\n  \
    tensorhold dequantize model-gptq.safetensors plain/model.safetensors --dtype f16 --verify"
)]
pub(crate) struct Dequantize {
    /// A file, a folder or an `*.safetensors.index.json`
    source: PathBuf,
    /// The folder to write, or `folder/name.safetensors`
    target: PathBuf,
    /// What weights become, F32, bf16, float16 and so on, if not what the checkpoint says
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<Dtype>,
    /// The most bytes of tensors in a shard, 500MB, 4GiB or a number: 5GB where not said
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

    /// What shards are named after; an error if there is something that nobody said to replace.
    fn target(&self) -> Done<PathBuf> {
        let target = shard_target(&self.target)?;
        match existing_shards(&target)?.filter(|_| !self.force) {
            Some(existing) => Err(is_there(&existing).into()),
            None => Ok(target),
        }
    }

    fn options(&self) -> DequantizeOptions {
        DequantizeOptions {
            dtype: self.dtype,
            max_shard_bytes: Some(self.max_shard_size.unwrap_or(DEFAULT_SHARD_BYTES)),
            verify: self.verify,
            existing_config: match self.force {
                true => ExistingConfig::Replaced,
                false => ExistingConfig::Kept,
            },
            ..DequantizeOptions::default()
        }
    }
}
