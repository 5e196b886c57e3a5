//! `tensorhold dequantize`.

use std::path::{Path, PathBuf};

use clap::Args;
use tensorhold::{
    DEFAULT_SHARD_BYTES, DequantizeOptions, Dtype, Escaped, ExistingConfig, RewriteOptions,
    dequantize_checkpoint,
};

use crate::FINE;
use crate::convert::parse_dtype;
use crate::output::{Done, counted, print_note};
use crate::quantized::given_config;
use crate::rewrite::{Rewrite, with_progress};

/// Writes a checkpoint with numbers in place of its quantized weights
///
/// Weights have the names that they have without quantization, and the tensors that they are made of are left out. All other tensors
/// are copied. A `config.json` beside the source is written beside the target, without what it says of quantization. Tokenizers, templates
/// of chats and the like are copied, code is not. Some MB are in memory at a time, and nothing is at the target until all is written.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tensorhold dequantize model-fp8 model-bf16\n  \
    tensorhold dequantize model-gptq.safetensors plain/model.safetensors --dtype f16 --verify"
)]
pub(crate) struct Dequantize {
    #[command(flatten)]
    rewrite: Rewrite,
    /// What weights become, F32, bf16, float16 and so on, if not what the checkpoint says
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<Dtype>,
    /// A file that says how weights are quantized, in place of those beside the source
    #[arg(long, value_name = "FILE")]
    quantization_config: Option<PathBuf>,
    /// Read what was written, and compare it with the source
    #[arg(long)]
    verify: bool,
}

impl Dequantize {
    pub(crate) fn run(&self) -> Done {
        let config = given_config(self.quantization_config.as_deref())?;
        let options = self.options();
        let mut opened = self.rewrite.open(options.existing_config)?;
        if let Some(config) = config {
            opened.source = opened.source.with_quantization_config(config);
        }
        let quantization = opened.source.quantization()?;
        if quantization.weights.is_empty() {
            print_note("nothing in this checkpoint is quantized: all tensors are copied");
        }
        let weights = &quantization.weights;
        let written = with_progress(|progress| {
            dequantize_checkpoint(&opened.source, weights, &opened.target, &options, progress)
        })?;
        let n_copied = written.n_tensors - written.n_weights;
        print_note(&format!(
            "{} as numbers, {} copied",
            counted(written.n_weights as u64, "weight"),
            counted(n_copied as u64, "tensor")
        ));
        note_kept_config(&opened.target, &written.paths);
        opened.list(&written.paths, &written.copied)?;
        Ok(FINE)
    }

    fn options(&self) -> DequantizeOptions {
        let rewrite = self.rewrite.options(self.verify.into());
        DequantizeOptions {
            rewrite: RewriteOptions {
                max_shard_bytes: Some(rewrite.max_shard_bytes.unwrap_or(DEFAULT_SHARD_BYTES)),
                ..rewrite
            },
            dtype: self.dtype,
            existing_config: match self.rewrite.force {
                true => ExistingConfig::Replaced,
                false => ExistingConfig::Kept,
            },
        }
    }
}

/// Says that a configuration beside the target is not of this work.
fn note_kept_config(target: &Path, written: &[PathBuf]) {
    let config = target.with_file_name("config.json");
    if config.exists() && !written.contains(&config) {
        let config = config.to_string_lossy();
        print_note(&format!("{} stays as it is", Escaped(&config)));
    }
}
