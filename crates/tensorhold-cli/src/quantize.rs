//! `tensorhold quantize`.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};
use tensorhold::{
    Bytes, Count, Dtype, Escaped, ExistingConfig, Kept, QuantizeOptions, QuantizeScheme, Quantized,
    QuantizedTensor, n_elements,
};

use crate::FINE;
use crate::output::{BOLD, DIM, Done, counted, print_json, print_note, stdout};
use crate::rewrite::{Rewrite, with_progress};

/// Writes a checkpoint with its weights quantized, rounded to nearest, with the configuration that engines read
///
/// Weights are the F32, BF16 and F16 tensors `*.weight` of two dimensions, but for embeddings, output layers, norms and routers. All else is
/// written as it is, and `config.json` with what the engine needs. Tokenizers, templates of chats and the like are copied, code is not. There
/// is no calibration.
#[derive(Args)]
#[command(
    after_help = "Schemes (compressed-tensors): fp8-tensor, fp8-channel, fp8-block, int8-channel, int4, int4-asym, int8, int8-asym, mxfp4,\n  \
    mxfp8, nvfp4; and so int2 to int7. DeepSeek's, for experts in one tensor, too: fp8-finegrained. GPTQ version 2:\n  \
    gptq-int4, gptq-int4-asym, gptq-int8, gptq-int8-asym; and so int2 and int3.\n\n\
    Examples:\n  tensorhold quantize Llama-3-8B/ Llama-3-8B-FP8/ --scheme fp8-block --verify\n  \
    tensorhold quantize Llama-3-8B/ Llama-3-8B-W4/ --scheme int4 --group-size 64 --ignore '**.down_proj'"
)]
pub(crate) struct Quantize {
    #[command(flatten)]
    rewrite: Rewrite,
    /// What weights become, such as `fp8-block`
    #[arg(long)]
    scheme: String,
    /// Inputs that share a scale, for integers: 128 where not said, all of them with 0
    #[arg(long)]
    group_size: Option<u64>,
    /// Rows and columns of a block, for `fp8-block` and `fp8-finegrained`: 128x128 where not said
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
    /// Read what was written, and say how far each weight is from the source's
    #[arg(long)]
    verify: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Quantize {
    pub(crate) fn run(&self) -> Done {
        let options = self.options()?;
        let opened = match self.dry_run {
            true => self.rewrite.open_only()?,
            false => self.rewrite.open(ExistingConfig::Replaced)?,
        };
        let done = with_progress(|progress| {
            tensorhold::quantize(&self.rewrite.source, &opened.target, &options, progress)
        })?;
        if self.json {
            opened.note_code();
            print_json(&as_json(&done))?;
            return Ok(FINE);
        }
        self.show(&done)?;
        opened.list(&done.paths, &done.copied)?;
        Ok(FINE)
    }

    fn options(&self) -> Done<QuantizeOptions> {
        let scheme = QuantizeScheme::named(&self.scheme, self.group_size, self.block)?;
        Ok(QuantizeOptions {
            scale_dtype: self.scale_dtype,
            include: self.include.clone(),
            ignore: self.ignore.clone(),
            rewrite: self.rewrite.options(self.verify.into()),
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
        writeln!(out, "{BOLD}{}{BOLD:#}", self.sums(&done.tensors))?;
        out.flush()?;
        note_experts(&self.scheme, &done.tensors);
        Ok(())
    }

    /// How much is quantized, and what becomes of the bytes.
    fn sums(&self, tensors: &[QuantizedTensor]) -> String {
        let quantized = || tensors.iter().filter(|tensor| tensor.kept.is_none());
        let sum = |size: fn(&QuantizedTensor) -> u64| Bytes(tensors.iter().map(size).sum());
        let (before, after) = (
            sum(|tensor| tensor.size_before),
            sum(|tensor| tensor.size_after),
        );
        let all = n_parameters(tensors.iter());
        let share = 100.0 * n_parameters(quantized()) as f64 / all.max(1) as f64;
        let what = counted(quantized().count() as u64, "weight");
        let would = if self.dry_run { "would be " } else { "" };
        let (all, kept) = (Count(all), Count(all - n_parameters(quantized())));
        format!(
            "{what} {would}quantized, {share:.1} % of {all} parameters, {kept} as before: {before} -> {after} in all"
        )
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

fn n_parameters<'t>(tensors: impl Iterator<Item = &'t QuantizedTensor>) -> u64 {
    let sizes = tensors.map(|tensor| n_elements(&tensor.shape).unwrap_or(0));
    sizes.fold(0, u64::saturating_add)
}

/// So many tensors are named.
const N_NAMED: usize = 4;

/// Says by name that most of a model may be as it was.
fn note_experts(scheme: &str, tensors: &[QuantizedTensor]) {
    let experts: Vec<&QuantizedTensor> = tensors
        .iter()
        .filter(|tensor| tensor.kept == Some(Kept::Experts))
        .collect();
    if experts.is_empty() {
        return;
    }
    let names = experts.iter().take(N_NAMED);
    let names: Vec<String> = names
        .map(|tensor| format!("`{}`", Escaped(&tensor.name)))
        .collect();
    let more = match experts.len() - names.len() {
        0 => String::new(),
        n_more => format!(" and {n_more} more"),
    };
    let parameters = n_parameters(experts.iter().copied());
    let share = 100.0 * parameters as f64 / n_parameters(tensors.iter()).max(1) as f64;
    print_note(&format!(
        "{share:.1} % of the parameters stay as they are, since {} does not hold the weights of several experts in one tensor: {}{more}",
        Escaped(scheme),
        names.join(", ")
    ));
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
        "copied": done.copied,
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
