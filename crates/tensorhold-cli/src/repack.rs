//! `tensorhold repack`.

use std::path::PathBuf;

use clap::Args;
use tensorhold::{Escaped, ExistingConfig, RepackLayout, RepackOptions};

use crate::FINE;
use crate::output::{Done, counted, print_note};
use crate::quantized::given_config;
use crate::rewrite::{Rewrite, Verify, with_progress};

/// Writes a quantized checkpoint in the layout of another program, with the same weights bit for bit
///
/// Integers go between GPTQ, AWQ and pack-quantized of compressed-tensors, NVFP4 between modelopt, compressed-tensors and, as a source,
/// ComfyUI. What cannot be repacked without a change of weights is refused before anything is written, and what was written is read again and
/// compared. Tokenizers, templates of chats and the like are copied, code is not.
#[derive(Args)]
#[command(
    after_help = "Layouts: gptq (version 2), awq (GEMM), pack-quantized, nvfp4-pack-quantized, modelopt-nvfp4\n\n\
    Example:\n  tensorhold repack Llama-3-8B-AWQ/ Llama-3-8B-W4A16/ --to pack-quantized"
)]
pub(crate) struct Repack {
    #[command(flatten)]
    rewrite: Rewrite,
    /// The layout to write
    #[arg(long, value_name = "LAYOUT")]
    to: String,
    /// Take the nearest reciprocal of an NVFP4's second scale, where that changes weights by a last place of F32
    #[arg(long)]
    allow_rounding: bool,
    /// A file that says how weights are quantized, in place of those beside the source
    #[arg(long, value_name = "FILE")]
    quantization_config: Option<PathBuf>,
    /// Do not read what was written
    #[arg(long)]
    no_verify: bool,
}

impl Repack {
    pub(crate) fn run(&self) -> Done {
        let verify = match self.no_verify {
            true => Verify::No,
            false => Verify::Yes,
        };
        let options = RepackOptions {
            rewrite: self.rewrite.options(verify),
            allow_rounding: self.allow_rounding,
            quantization_config: given_config(self.quantization_config.as_deref())?,
            ..RepackOptions::new(RepackLayout::named(&self.to)?)
        };
        let opened = self.rewrite.open(ExistingConfig::Replaced)?;
        let done = with_progress(|progress| {
            tensorhold::repack(&self.rewrite.source, &opened.target, &options, progress)
        })?;
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
        opened.list(&done.paths, &done.copied)?;
        Ok(FINE)
    }
}
