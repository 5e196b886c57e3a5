//! `tensorhold quantize`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tensorhold::{
    Bytes, Dtype, Escaped, Kept, QuantizeOptions, QuantizeScheme, Quantized, QuantizedTensor,
    parse_bytes,
};

use crate::FINE;
use crate::output::{BOLD, DIM, Done, counted, is_there, list, print_json, stdout};
use crate::progress::Progress;

/// Writes a checkpoint with its weights quantized, rounded to nearest, with the configuration that engines read
///
/// Weights are the F32, BF16 and F16 tensors `*.weight` of two dimensions, but for embeddings, output layers, norms and routers. All else is
/// written as it is, and `config.json` with what the engine needs; tokenizers and the like are not copied. There is no calibration.
#[derive(Args)]
#[command(
    after_help = "Schemes (compressed-tensors): fp8-tensor, fp8-channel, fp8-block, int8-channel, int4, int4-asym, int8, int8-asym, mxfp4,\n  \
    mxfp8, nvfp4; and so int2 to int7. GPTQ version 2: gptq-int4, gptq-int4-asym, gptq-int8, gptq-int8-asym; and so int2 and int3.\n\n\
    Examples:\n  tensorhold quantize Llama-3-8B/ Llama-3-8B-FP8/ --scheme fp8-block --verify\n  \
    tensorhold quantize Llama-3-8B/ Llama-3-8B-W4/ --scheme int4 --group-size 64 --ignore '**.down_proj'"
)]
pub(crate) struct Quantize {
    /// A folder, an `*.safetensors.index.json` or a file
    source: PathBuf,
    /// The folder to write, or `folder/name.safetensors`
    target: PathBuf,
    /// What weights become, such as `fp8-block`
    #[arg(long)]
    scheme: String,
    /// Inputs that share a scale, for integers: 128 where not said, all of them with 0
    #[arg(long)]
    group_size: Option<u64>,
    /// Rows and columns of a block, for `fp8-block`: 128x128 where not said
    #[arg(long, value_parser = parse_block)]
    block: Option<[u64; 2]>,
    /// The type of scales, which all is computed in: f32, bf16 or f16; that of each weight where not said
    #[arg(long, value_parser = crate::convert::parse_dtype)]
    scale_dtype: Option<Dtype>,
    /// Quantize only what is called so: `**.mlp.*_proj`; `*` is one part of a name, `**` any number
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave what is called so as it is
    #[arg(long, value_name = "PATTERN")]
    ignore: Vec<String>,
    /// The most bytes of tensors in a shard: 5GB where not said
    #[arg(long, value_parser = parse_bytes)]
    max_shard_size: Option<u64>,
    /// Threads that compute, at most 8
    #[arg(long)]
    threads: Option<usize>,
    /// Read what was written, and say how far each weight is from the source's
    #[arg(long)]
    verify: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace a checkpoint that is there already
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Quantize {
    pub(crate) fn run(&self) -> Done {
        let options = self.options()?;
        let target = tensorhold::shard_target(&self.target)?;
        if !self.force
            && !self.dry_run
            && let Some(existing) = tensorhold::existing_shards(&target)?
        {
            return Err(is_there(&existing).into());
        }
        let mut progress = Progress::new(0);
        let mut told = 0;
        let done = tensorhold::quantize(&self.source, &target, &options, &mut |total, done| {
            progress.of(total);
            progress.add(done - told);
            told = done;
            Ok(())
        })?;
        drop(progress);
        match self.json {
            true => print_json(&as_json(&done))?,
            false => {
                self.show(&done)?;
                list(&done.paths)?;
            }
        }
        Ok(FINE)
    }

    fn options(&self) -> Done<QuantizeOptions> {
        let scheme = QuantizeScheme::named(&self.scheme, self.group_size, self.block)?;
        Ok(QuantizeOptions {
            scale_dtype: self.scale_dtype,
            include: self.include.clone(),
            ignore: self.ignore.clone(),
            max_shard_bytes: self.max_shard_size,
            n_threads: self.threads,
            verify: self.verify,
            dry_run: self.dry_run,
            ..QuantizeOptions::new(scheme)
        })
    }

    /// A line for each weight, and for all that was left for the same reason.
    fn show(&self, done: &Quantized) -> Done<()> {
        let mut out = stdout();
        let quantized = || done.tensors.iter().filter(|tensor| tensor.kept.is_none());
        let width = quantized().map(|tensor| tensor.name.len()).max();
        for tensor in quantized() {
            writeln!(out, "{}", self.line(tensor, width.unwrap_or(0)))?;
        }
        for (why, count, size) in kept(&done.tensors) {
            let (what, size) = (counted(count, "tensor"), Bytes(size));
            writeln!(
                out,
                "{DIM}{what} as before, {size}: {}{DIM:#}",
                why.reason()
            )?;
        }
        let sum = |size: fn(&QuantizedTensor) -> u64| Bytes(done.tensors.iter().map(size).sum());
        let (before, after) = (
            sum(|tensor| tensor.size_before),
            sum(|tensor| tensor.size_after),
        );
        let what = counted(quantized().count() as u64, "weight");
        let would = if self.dry_run { "would be " } else { "" };
        writeln!(
            out,
            "{BOLD}{what} {would}quantized: {before} -> {after} in all{BOLD:#}"
        )?;
        Ok(out.flush()?)
    }

    /// A weight, with its name so wide.
    fn line(&self, tensor: &QuantizedTensor, width: usize) -> String {
        let name = Escaped(&tensor.name).to_string();
        let sizes = [tensor.size_before, tensor.size_after];
        let [before, after] = sizes.map(|size| Bytes(size).to_string());
        let (dtype, scheme) = (tensor.dtype, &self.scheme);
        let error = tensor.error.map_or_else(String::new, |error| {
            let relative = error.relative * 100.0;
            format!(
                "  off by {:.3e} at most, {relative:.2}% in all",
                error.greatest
            )
        });
        format!("{name:width$}  {dtype} -> {scheme}  {before:>7} -> {after:>7}{error}")
    }
}

/// The reasons for which tensors stay, with their number and bytes.
fn kept(tensors: &[QuantizedTensor]) -> Vec<(Kept, u64, u64)> {
    let mut sums: Vec<(Kept, u64, u64)> = Vec::new();
    for tensor in tensors {
        let Some(why) = tensor.kept else { continue };
        match sums.iter_mut().find(|(other, ..)| *other == why) {
            Some((_, count, size)) => (*count, *size) = (*count + 1, *size + tensor.size_before),
            None => sums.push((why, 1, tensor.size_before)),
        }
    }
    sums
}

fn as_json(done: &Quantized) -> Value {
    let tensor = |tensor: &QuantizedTensor| {
        json!({
            "name": tensor.name,
            "dtype": tensor.dtype.name(),
            "shape": tensor.shape,
            "quantized": tensor.kept.is_none(),
            "kept": tensor.kept.map(Kept::reason),
            "size_before": tensor.size_before,
            "size_after": tensor.size_after,
            "max_error": tensor.error.map(|error| error.greatest),
            "relative_error": tensor.error.map(|error| error.relative),
        })
    };
    json!({
        "paths": done.paths,
        "tensors": done.tensors.iter().map(tensor).collect::<Vec<Value>>(),
    })
}

fn parse_block(text: &str) -> Result<[u64; 2], String> {
    let sizes = text
        .split_once('x')
        .map(|(rows, columns)| [rows.parse(), columns.parse()]);
    match sizes {
        Some([Ok(rows), Ok(columns)]) => Ok([rows, columns]),
        _ => Err(format!("`{text}` is no size of a block, such as 128x128")),
    }
}
