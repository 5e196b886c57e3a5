//! `tensorhold repack`.

use std::path::PathBuf;

use clap::Args;
use tensorhold::{Escaped, RepackLayout, RepackOptions, parse_bytes};

use crate::FINE;
use crate::output::{Done, counted, is_there, list, print_note};
use crate::progress::Progress;

/// Writes a quantized checkpoint in the layout of another program, with the same weights bit for bit
///
/// Integers go between GPTQ, AWQ and pack-quantized of compressed-tensors, NVFP4 between modelopt, compressed-tensors and, as a source,
/// ComfyUI. What cannot be repacked without a change of weights is refused before anything is written, and what was written is read again and
/// compared.
#[derive(Args)]
#[command(
    after_help = "Layouts: gptq (version 2), awq (GEMM), pack-quantized, nvfp4-pack-quantized, modelopt-nvfp4\n\n\
    Example:\n  tensorhold repack Llama-3-8B-AWQ/ Llama-3-8B-W4A16/ --to pack-quantized"
)]
pub(crate) struct Repack {
    /// A folder, an `*.safetensors.index.json` or a file
    source: PathBuf,
    /// The folder to write, or `folder/name.safetensors`
    target: PathBuf,
    /// The layout to write
    #[arg(long, value_name = "LAYOUT")]
    to: String,
    /// Take the nearest reciprocal of an NVFP4's second scale, where that changes weights by a last place of F32
    #[arg(long)]
    allow_rounding: bool,
    /// The most bytes of tensors in a shard: 5GB where not said
    #[arg(long, value_parser = parse_bytes)]
    max_shard_size: Option<u64>,
    /// Threads that work, at most 8
    #[arg(long)]
    threads: Option<usize>,
    /// Do not read what was written
    #[arg(long)]
    no_verify: bool,
    /// Replace a checkpoint that is there already
    #[arg(long)]
    force: bool,
}

impl Repack {
    pub(crate) fn run(&self) -> Done {
        let options = RepackOptions {
            max_shard_bytes: self.max_shard_size,
            n_threads: self.threads,
            allow_rounding: self.allow_rounding,
            verify: !self.no_verify,
            ..RepackOptions::new(RepackLayout::named(&self.to)?)
        };
        let target = tensorhold::shard_target(&self.target)?;
        if !self.force
            && let Some(existing) = tensorhold::existing_shards(&target)?
        {
            return Err(is_there(&existing).into());
        }
        let mut progress = Progress::new(0);
        let mut told = 0;
        let done = tensorhold::repack(&self.source, &target, &options, &mut |total, done| {
            progress.of(total);
            progress.add(done - told);
            told = done;
            Ok(())
        })?;
        drop(progress);
        for name in &done.rounded {
            let name = Escaped(name);
            print_note(&format!(
                "{name}: its second scale is rounded to the nearest reciprocal"
            ));
        }
        let what = counted(done.n_weights as u64, "weight");
        let same = if self.no_verify {
            "not compared"
        } else {
            "the same as before"
        };
        print_note(&format!("{what} repacked to {}, {same}", self.to));
        list(&done.paths)?;
        Ok(FINE)
    }
}
