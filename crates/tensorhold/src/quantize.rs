//! Checkpoints whose weights are quantized while they are written.
//!
//! ```text
//! choose the weights; for each the tensors that will hold it
//! write these tensors, and all others as they are, window by window
//! put the weights in place, then what engines read beside them
//! open what was written and compare, where that is asked for
//! ```

mod choose;
mod config;
mod scheme;
mod stream;
mod verify;

use std::path::{Path, PathBuf};

use tensorhold_core::{Dtype, Error, ErrorKind, Result};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::reshard::refuse_own_folder;
use crate::rewrite::{
    self, Beside, Config, From, Output, PartOf, Plain, RewriteOptions, RewriteProgress, Target,
    Told, ignored, open_plain, reopen,
};
use crate::save::shard_target;

pub use choose::Kept;
pub(crate) use config::quantization_config;
pub use scheme::{IntLayout, QuantizeScheme};
use stream::{Quantizer, Weight};
pub use verify::WeightError;

/// How a checkpoint is quantized.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// What weights become.
    pub scheme: QuantizeScheme,
    /// The type that scales are stored in and everything is computed in: F32, BF16 or F16. That of each weight where `None`, but
    /// F16 for GPTQ of F32, and F32 for [`Fp8Finegrained`](QuantizeScheme::Fp8Finegrained).
    pub scale_dtype: Option<Dtype>,
    /// Patterns of names: only these weights are quantized, embeddings and the like too. All that fit where there are none.
    pub include: Vec<String>,
    /// Patterns of names that are left as they are.
    pub ignore: Vec<String>,
    /// How it is written.
    pub rewrite: RewriteOptions,
    /// Whether nothing is written, and only said what would be.
    pub dry_run: bool,
}

impl QuantizeOptions {
    /// Weights become this, and nothing else is asked for.
    #[must_use]
    pub fn new(scheme: QuantizeScheme) -> QuantizeOptions {
        QuantizeOptions {
            scheme,
            scale_dtype: None,
            include: Vec::new(),
            ignore: Vec::new(),
            rewrite: RewriteOptions::default(),
            dry_run: false,
        }
    }
}

/// What became of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedTensor {
    /// Its name in the source.
    pub name: String,
    /// Its type there.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Why it stays as it is; it is quantized where `None`.
    pub kept: Option<Kept>,
    /// Its bytes in the source.
    pub size_before: u64,
    /// The bytes of the tensors that hold it now.
    pub size_after: u64,
    /// How far its weights are from those of the source, where that was asked for.
    pub error: Option<WeightError>,
}

/// What was done.
#[derive(Debug)]
pub struct Quantized {
    /// The files that were written: those with tensors, their index, the configuration; none where nothing was.
    pub paths: Vec<PathBuf>,
    /// The [companions](crate::companions) of the source that were copied.
    pub copied: Vec<PathBuf>,
    /// All tensors of the source, in its order.
    pub tensors: Vec<QuantizedTensor>,
}

/// Is told the bytes that were written or compared, of how many in all; ends the work by an error.
pub type QuantizeProgress<'a> = RewriteProgress<'a>;

/// Writes the checkpoint `source` to the folder `target` with its weights quantized, the `config.json` beside the source with the
/// `quantization_config` that engines read, and copies of its [companions](crate::companions).
///
/// Weights are the tensors `*.weight` of two dimensions and type F32, BF16 or F16, but for embeddings, output layers, norms and
/// routers, and where the scheme has a place for them the weights of several experts in one tensor. All other tensors are written as they are. At most some 10 MiB of weights a thread are in memory. Nothing changes at
/// `target` until all tensors are written.
///
/// # Errors
/// Those of [`Checkpoint::open`] and [`save_shards`](crate::save_shards). `InvalidArgument` where the source is quantized already, a
/// pattern matches nothing, no weight is left, inputs are no whole groups, or the target lies in the source's folder.
/// `InvalidConfig` where the configuration is no object of JSON. `InvalidTensor` for a weight that is NaN or infinite, and where what
/// was written cannot be what it was made of.
pub fn quantize(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &QuantizeOptions,
    progress: &mut QuantizeProgress<'_>,
) -> Result<Quantized> {
    let target = shard_target(target.as_ref())?;
    options.scheme.checked()?;
    let source = open_plain(source.as_ref())?;
    refuse_own_folder(&source, &target)?;
    let plain = Config::of(&source)?.map_or_else(|| Ok(Plain::empty()), |config| config.plain())?;
    refuse_quantized(&source)?;
    let kept = choose::choose(&source, options.scheme, &options.include, &options.ignore)?;
    let plan = Plan::of(&source, &kept, options)?;
    let mut done = Quantized {
        paths: Vec::new(),
        copied: Vec::new(),
        tensors: plan.tensors(&kept)?,
    };
    if !options.dry_run {
        plan.carry_out(&target, &plain, options, progress, &mut done)?;
    }
    Ok(done)
}

/// Refuses a checkpoint of which something is quantized, whatever says so: one configuration could not be of both.
fn refuse_quantized(source: &Checkpoint) -> Result<()> {
    let quantization = source.quantization()?;
    let Some(weight) = quantization.weights.first() else {
        return Ok(());
    };
    let message = format!("a weight is quantized already, in {}", weight.scheme);
    let error = Error::new(ErrorKind::InvalidArgument, message).with_tensor(&*weight.name);
    Err(error.with_hint("make floats of them first: `tensorhold dequantize`"))
}

/// What is to be written.
struct Plan<'a> {
    source: &'a Checkpoint,
    weights: Vec<Weight<'a>>,
    outputs: Vec<Output<'a, PartOf>>,
}

impl<'a> Plan<'a> {
    fn of(
        source: &'a Checkpoint,
        kept: &[Option<Kept>],
        options: &QuantizeOptions,
    ) -> Result<Plan<'a>> {
        let mut plan = Plan {
            source,
            weights: Vec::new(),
            outputs: Vec::new(),
        };
        for (tensor, kept) in source.tensors().zip(kept) {
            match (tensor.info().shape, kept) {
                (&[.., _, _], None) => plan
                    .add(tensor, options)
                    .map_err(|error| tensor.file().blame(&tensor.info(), error))?,
                _ => plan.outputs.push(Output::copied(tensor)),
            }
        }
        if plan.weights.is_empty() {
            let message = "there is no weight to quantize";
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("weights are the F32, BF16 and F16 tensors `*.weight` of two dimensions, but for embeddings and the like"));
        }
        Ok(plan)
    }

    /// Adds a weight and the tensors that will hold it.
    fn add(&mut self, tensor: Tensor<'a>, options: &QuantizeOptions) -> Result<()> {
        let (info, scheme) = (tensor.info(), options.scheme);
        let scales = config::scale_dtype(scheme, info.dtype);
        let scales = options.scale_dtype.unwrap_or(scales);
        let (n_experts, shape, parts) = match *info.shape {
            [rows, columns] => {
                scheme.check_shape([rows, columns])?;
                (1, [rows, columns], scheme.parts([rows, columns], scales)?)
            }
            [experts, rows, columns] => {
                let parts = scheme.parts_of_experts([experts, rows, columns], scales);
                (experts, [rows, columns], parts)
            }
            _ => unreachable!("weights that are chosen have two dimensions, or three"),
        };
        let module = info.name.strip_suffix("weight").unwrap_or(info.name);
        let parts = parts.into_iter();
        let number = self.weights.len();
        self.outputs
            .extend(parts.map(|spec| Output::part(module, number, spec)));
        self.weights.push(Weight {
            tensor,
            n_experts,
            shape,
            scheme,
            coding: scheme.coding(scales)?,
            scales,
        });
        Ok(())
    }

    fn tensors(&self, kept: &[Option<Kept>]) -> Result<Vec<QuantizedTensor>> {
        let mut sizes = vec![0u64; self.weights.len()];
        for output in &self.outputs {
            if let From::Weight((number, _)) = output.from {
                sizes[number] += output.size_bytes()?;
            }
        }
        let mut sizes = sizes.into_iter();
        let row = |(tensor, kept): (Tensor<'_>, &Option<Kept>)| {
            let info = tensor.info();
            let size_before = info.size_bytes();
            QuantizedTensor {
                name: info.name.to_owned(),
                dtype: info.dtype,
                shape: info.shape.to_vec(),
                kept: *kept,
                size_before,
                size_after: kept.map_or_else(|| sizes.next().unwrap_or(0), |_| size_before),
                error: None,
            }
        };
        Ok(self.source.tensors().zip(kept).map(row).collect())
    }

    /// The modules that an engine would take for quantized ones, and that are not.
    fn ignored(&self, scheme: QuantizeScheme) -> Vec<String> {
        let is_head = |weight: &Weight<'_>| weight.tensor.info().name == "lm_head.weight";
        let mut ignored = ignored(&self.outputs, self.weights.iter().any(is_head));
        // Engines of other schemes look for matrices alone.
        if matches!(scheme, QuantizeScheme::Fp8Finegrained { .. }) {
            let kept = self
                .outputs
                .iter()
                .filter(|output| matches!(output.from, From::Tensor(_)) && output.shape.len() == 3);
            let modules = kept.filter_map(|output| choose::experts_of(&output.name));
            ignored.extend(modules.map(str::to_owned));
            ignored.sort();
            ignored.dedup();
        }
        ignored
    }

    /// The bytes that are written, and those of the source that are compared.
    fn size_bytes(&self, verify: bool) -> Result<u64> {
        let weights = self.weights.iter();
        let compared = weights.map(|weight| weight.tensor.info().size_bytes());
        let written = rewrite::size_bytes(&self.outputs)?;
        Ok(written.saturating_add(if verify { compared.sum() } else { 0 }))
    }

    /// Writes all, with the configuration `plain` and what is said in it of the weights.
    fn carry_out(
        &self,
        target: &Path,
        plain: &Plain,
        options: &QuantizeOptions,
        progress: &mut QuantizeProgress<'_>,
        done: &mut Quantized,
    ) -> Result<()> {
        let rewrite = &options.rewrite;
        let config = plain.with(&quantization_config(
            options.scheme,
            &self.ignored(options.scheme),
        ));
        let durability = rewrite.save.durability;
        let beside = Beside::prepare(self.source, target, Some(&config), durability)?;
        let mut quantizer = Quantizer::new(rewrite.n_threads);
        let mut told = Told::new(self.size_bytes(rewrite.verify)?, progress);
        let tensors = Target::shards(target, self.source, rewrite);
        done.paths = tensors.write(
            &self.outputs,
            &mut told,
            &mut |number, put| match &self.outputs[number].from {
                From::Tensor(tensor) => rewrite::copy(tensor, put),
                From::Weight((number, spec)) => quantizer.part(&self.weights[*number], spec, put),
            },
        )?;
        let placed = beside.commit()?;
        if rewrite.verify {
            self.compare(&quantizer, &reopen(&done.paths)?, &mut told, done)?;
        }
        done.paths.extend(placed.config);
        done.copied = placed.copied;
        Ok(())
    }

    /// Says how far each weight of what was written is from the source's.
    fn compare(
        &self,
        quantizer: &Quantizer,
        written: &Checkpoint,
        told: &mut Told<'_, '_>,
        done: &mut Quantized,
    ) -> Result<()> {
        for weight in &self.weights {
            let info = weight.tensor.info();
            let error = verify::error_of(quantizer.makers(), weight, written)
                .map_err(|error| error.with_tensor(info.name))?;
            let row = done.tensors.iter_mut().find(|row| row.name == info.name);
            row.expect("all tensors of the source are listed").error = Some(error);
            told.add(info.size_bytes())?;
        }
        Ok(())
    }
}
