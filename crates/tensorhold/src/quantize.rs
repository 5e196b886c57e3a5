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

use tensorhold_core::{Dtype, Error, ErrorKind, Result, TensorSpec, shape_size_bytes};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::file::{Backend, OpenOptions};
use crate::reshard::{metadata_of, refuse_own_folder};
use crate::save::{DEFAULT_SHARD_BYTES, SaveOptions, save_streamed_shards, shard_target};

pub use choose::Kept;
pub(crate) use config::{Plain, config_of, prepare, quantization_config};
use scheme::PartSpec;
pub use scheme::{IntLayout, QuantizeScheme};
use stream::Weight;
pub(crate) use stream::{
    Put, Quantizer, as_numbers, columns, group_index, lines, range_index, size, transposed,
};
pub use verify::WeightError;
pub(crate) use verify::read_need;

/// How a checkpoint is quantized.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// What weights become.
    pub scheme: QuantizeScheme,
    /// The type that scales are stored in and everything is computed in: F32, BF16 or F16. That of each weight where `None`, but
    /// F16 for GPTQ of F32.
    pub scale_dtype: Option<Dtype>,
    /// Patterns of names: only these weights are quantized, embeddings and the like too. All that fit where there are none.
    pub include: Vec<String>,
    /// Patterns of names that are left as they are.
    pub ignore: Vec<String>,
    /// Alignment and durability.
    pub save: SaveOptions,
    /// The most bytes of tensors in a shard; 5 GB where `None`.
    pub max_shard_bytes: Option<u64>,
    /// How many threads compute, at most 8; as many as the machine has where `None`.
    pub n_threads: Option<usize>,
    /// Whether what was written is read again and compared with the source.
    pub verify: bool,
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
            save: SaveOptions::default(),
            max_shard_bytes: None,
            n_threads: None,
            verify: false,
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
    /// All tensors of the source, in its order.
    pub tensors: Vec<QuantizedTensor>,
}

/// Is told the bytes that were written or compared, of how many in all; ends the work by an error.
pub type QuantizeProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// Writes the checkpoint `source` to the folder `target` with its weights quantized, and the `config.json` beside the source with the
/// `quantization_config` that engines read.
///
/// Weights are the tensors `*.weight` of two dimensions and type F32, BF16 or F16, but for embeddings, output layers, norms and
/// routers. All other tensors are written as they are. At most some 10 MiB of weights a thread are in memory. Nothing changes at
/// `target` until all tensors are written.
///
/// # Errors
/// Those of [`Checkpoint::open`] and [`save_shards`](crate::save_shards). `InvalidArgument` where the source is quantized already, a
/// pattern matches nothing, no weight is left, inputs are no whole groups, or the target lies in the source's folder.
/// `InvalidTensor` for a weight that is NaN or infinite, and where what was written cannot be what it was made of.
pub fn quantize(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &QuantizeOptions,
    progress: &mut QuantizeProgress<'_>,
) -> Result<Quantized> {
    let (source, target) = (source.as_ref(), shard_target(target.as_ref())?);
    options.scheme.checked()?;
    let opened = open_plain(source)?;
    refuse_own_folder(&opened, &target)?;
    let plain = config::Plain::of(config::config_of(source)?.as_deref())?;
    refuse_quantized(&opened)?;
    let kept = choose::choose(&opened, &options.include, &options.ignore)?;
    let plan = Plan::of(&opened, &kept, options)?;
    let config = config::quantization_config(options.scheme, &plan.ignored());
    let mut tensors = plan.tensors(&kept)?;
    let mut paths = Vec::new();
    if !options.dry_run {
        let (path, file) = config::prepare(&target, &plain.with(&config), options.save.durability)?;
        let mut job = Job {
            quantizer: Quantizer::new(options.n_threads),
            total: plan.size_bytes(options.verify)?,
            done: 0,
            progress,
        };
        paths = job.write(&plan, &target, options)?;
        file.commit()?;
        if options.verify {
            job.verify(&plan, &paths, &mut tensors)?;
        }
        paths.push(path);
    }
    Ok(Quantized { paths, tensors })
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

/// A checkpoint whose files are read and not mapped, so that its pages do not count as memory of the process.
pub(crate) fn open_plain(path: &Path) -> Result<Checkpoint> {
    let options = OpenOptions {
        backend: Backend::Pread,
        ..OpenOptions::default()
    };
    Checkpoint::open(path, &options)
}

/// What is to be written.
struct Plan<'a> {
    source: &'a Checkpoint,
    weights: Vec<Weight<'a>>,
    outputs: Vec<Output<'a>>,
}

/// A tensor to write.
struct Output<'a> {
    name: String,
    spec: PartSpec,
    from: From<'a>,
}

/// What a tensor is made of.
enum From<'a> {
    Tensor(Tensor<'a>),
    /// A weight, by its number.
    Weight(usize),
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
                (&[rows, columns], None) => plan
                    .add(tensor, [rows, columns], options)
                    .map_err(|error| tensor.file().blame(&tensor.info(), error))?,
                _ => plan.outputs.push(Output::of(tensor)),
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
    fn add(
        &mut self,
        tensor: Tensor<'a>,
        shape: [u64; 2],
        options: &QuantizeOptions,
    ) -> Result<()> {
        let (info, scheme) = (tensor.info(), options.scheme);
        let scales = config::scale_dtype(scheme, info.dtype);
        let scales = options.scale_dtype.unwrap_or(scales);
        scheme.check_shape(shape)?;
        let module = info.name.strip_suffix("weight").unwrap_or(info.name);
        for spec in scheme.parts(shape, scales)? {
            self.outputs.push(Output {
                name: format!("{module}{}", spec.suffix),
                spec,
                from: From::Weight(self.weights.len()),
            });
        }
        self.weights.push(Weight {
            tensor,
            shape,
            scheme,
            coding: scheme.coding(scales)?,
            scales,
        });
        Ok(())
    }

    /// The modules that an engine would take for quantized ones, and that are not.
    fn ignored(&self) -> Vec<String> {
        let kept = self
            .outputs
            .iter()
            .filter(|output| matches!(output.from, From::Tensor(_)));
        let kept = kept.map(|output| (&*output.name, &output.spec.shape[..]));
        let is_head = |weight: &Weight<'_>| weight.tensor.info().name == "lm_head.weight";
        ignored(kept, self.weights.iter().any(is_head))
    }

    fn tensors(&self, kept: &[Option<Kept>]) -> Result<Vec<QuantizedTensor>> {
        let mut sizes = vec![0u64; self.weights.len()];
        for output in &self.outputs {
            if let From::Weight(number) = output.from {
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

    /// The bytes that are written, and those of the source that are compared.
    fn size_bytes(&self, verify: bool) -> Result<u64> {
        let mut total = 0u64;
        for output in &self.outputs {
            total = total.saturating_add(output.size_bytes()?);
        }
        let compared = self
            .weights
            .iter()
            .map(|weight| weight.tensor.info().size_bytes());
        Ok(total.saturating_add(if verify { compared.sum() } else { 0 }))
    }
}

/// The modules of the matrices among these tensors, which are not quantized, but for those that look things up.
pub(crate) fn ignored<'n>(
    kept: impl Iterator<Item = (&'n str, &'n [u64])>,
    has_head: bool,
) -> Vec<String> {
    let mut ignored: Vec<String> = kept
        .filter(|(_, shape)| shape.len() == 2)
        .filter_map(|(name, _)| name.strip_suffix(".weight"))
        .filter(|name| !name.rsplit('.').next().is_some_and(is_embedding))
        .map(str::to_owned)
        .collect();
    // Where it shares the embedding's weights, it is not in the file.
    if !has_head && !ignored.iter().any(|name| name == "lm_head") {
        ignored.push("lm_head".to_owned());
    }
    ignored.sort();
    ignored
}

/// Whether a module of this name looks things up.
fn is_embedding(part: &str) -> bool {
    part.contains("embed") || matches!(part, "wte" | "wpe")
}

impl<'a> Output<'a> {
    fn of(tensor: Tensor<'a>) -> Output<'a> {
        let info = tensor.info();
        Output {
            name: info.name.to_owned(),
            spec: PartSpec {
                part: scheme::Part::Codes,
                suffix: "",
                dtype: info.dtype,
                shape: info.shape.to_vec(),
            },
            from: From::Tensor(tensor),
        }
    }

    fn spec(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            dtype: self.spec.dtype,
            shape: &self.spec.shape,
        }
    }

    fn size_bytes(&self) -> Result<u64> {
        shape_size_bytes(self.spec.dtype, &self.spec.shape)
            .map_err(|error| error.with_tensor(&*self.name))
    }
}

/// The work under way.
struct Job<'p, 'q> {
    quantizer: Quantizer,
    total: u64,
    done: u64,
    progress: &'p mut QuantizeProgress<'q>,
}

impl Job<'_, '_> {
    fn write(
        &mut self,
        plan: &Plan<'_>,
        target: &Path,
        options: &QuantizeOptions,
    ) -> Result<Vec<PathBuf>> {
        let specs: Vec<TensorSpec<'_>> = plan.outputs.iter().map(Output::spec).collect();
        let metadata = metadata_of(plan.source);
        let most = options.max_shard_bytes.unwrap_or(DEFAULT_SHARD_BYTES);
        let mut stream = |index: usize, put: &mut dyn FnMut(&[u8]) -> Result<()>| {
            let output = &plan.outputs[index];
            let (total, done, progress) = (self.total, &mut self.done, &mut self.progress);
            let mut put = |bytes: &[u8]| {
                put(bytes)?;
                *done += bytes.len() as u64;
                progress(total, *done)
            };
            match &output.from {
                From::Tensor(tensor) => self.quantizer.copy(tensor, &mut put),
                From::Weight(number) => {
                    self.quantizer
                        .part(&plan.weights[*number], &output.spec, &mut put)
                }
            }
        };
        save_streamed_shards(
            target,
            &specs,
            metadata.as_deref(),
            most,
            &options.save,
            &mut stream,
        )
    }

    /// Reads what was written, and says how far each weight is from the source's.
    fn verify(
        &mut self,
        plan: &Plan<'_>,
        paths: &[PathBuf],
        tensors: &mut [QuantizedTensor],
    ) -> Result<()> {
        let last = paths.iter().rfind(|path| {
            let name = path.to_string_lossy();
            name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")
        });
        let written = open_plain(last.expect("a file with tensors was written"))?;
        for weight in &plan.weights {
            let info = weight.tensor.info();
            let error = verify::error_of(&self.quantizer, weight, &written)
                .map_err(|error| error.with_tensor(info.name))?;
            let row = tensors.iter_mut().find(|tensor| tensor.name == info.name);
            row.expect("all tensors of the source are listed").error = Some(error);
            self.done += info.size_bytes();
            (self.progress)(self.total, self.done)?;
        }
        Ok(())
    }
}
