//! Quantized checkpoints in the layout of another program, with the same weights.
//!
//! ```text
//! find the quantized weights, and refuse what the layout cannot hold
//! for each part of each: take codes, zeros and scales out of the order that they lie in, and put them into the other
//! open what was written: all weights must have the same bits
//! ```

mod layout;
mod proof;
mod source;

use std::path::{Path, PathBuf};

use tensorhold_core::{Dtype, Error, ErrorKind, Result, TensorSpec, shape_size_bytes};
use tensorhold_quant::codec::BitOrder;
use tensorhold_quant::detect::Quantization;
use tensorhold_quant::scheme::Window;

use crate::checkpoint::{Checkpoint, Tensor};
use crate::quantize::{self, Plain, Put, Quantizer, columns, group_index, lines, size, transposed};
use crate::reshard::{metadata_of, refuse_own_folder};
use crate::save::{DEFAULT_SHARD_BYTES, SaveOptions, save_streamed_shards, shard_target};

pub use layout::RepackLayout;
use layout::{Common, Part, PartSpec};
use source::{Kind, Origin, turned};

/// So many codes are taken at once by a thread.
const WINDOW: u64 = 2 << 20;
/// Keys of the metadata that say how ComfyUI's weights are written.
const COMFY_KEY: &str = "_quantization_metadata";

/// How a checkpoint is repacked.
#[derive(Debug, Clone)]
pub struct RepackOptions {
    /// What weights are repacked to.
    pub layout: RepackLayout,
    /// Alignment and durability.
    pub save: SaveOptions,
    /// The most bytes of tensors in a shard; 5 GB where `None`.
    pub max_shard_bytes: Option<u64>,
    /// How many threads work, at most 8; as many as the machine has where `None`.
    pub n_threads: Option<usize>,
    /// Whether the second scale of NVFP4 may become the F32 nearest to its reciprocal, where that changes weights by a last place of
    /// F32.
    pub allow_rounding: bool,
    /// Whether what was written is read again, and its weights compared with the source's bit for bit.
    pub verify: bool,
}

impl RepackOptions {
    /// Weights are repacked to this and compared, and nothing else is asked for.
    #[must_use]
    pub fn new(layout: RepackLayout) -> RepackOptions {
        RepackOptions {
            layout,
            save: SaveOptions::default(),
            max_shard_bytes: None,
            n_threads: None,
            allow_rounding: false,
            verify: true,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct Repacked {
    /// The files that were written: those with tensors, their index, the configuration.
    pub paths: Vec<PathBuf>,
    /// How many weights were repacked.
    pub n_weights: usize,
    /// Weights that are not the same in the last place of F32.
    pub rounded: Vec<String>,
}

/// Is told the bytes that were written or compared, of how many in all; ends the work by an error.
pub type RepackProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// Writes the quantized checkpoint `source` to the folder `target` in the layout of another program: the same codes, zeros and scales in
/// another order, so that all weights are the same bit for bit, with the `config.json` beside the source that says what they are now.
///
/// Integers go between GPTQ (any version that is read), AWQ and `pack-quantized`, NVFP4 between modelopt, compressed-tensors and, as a
/// source, ComfyUI. Some MB for each thread are in memory. Nothing changes at `target` until all is written.
///
/// # Errors
/// `Unsupported`, before anything is written, where a weight is of another kind, the layout cannot hold it, one configuration cannot
/// be of all, or weights would change. `InvalidArgument` where nothing is quantized, or the target lies in the source's folder. Those of
/// [`Checkpoint::quantization`] and of a save.
pub fn repack(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &RepackOptions,
    progress: &mut RepackProgress<'_>,
) -> Result<Repacked> {
    let (source, target) = (source.as_ref(), shard_target(target.as_ref())?);
    let opened = quantize::open_plain(source)?;
    refuse_own_folder(&opened, &target)?;
    let quantization = opened.quantization()?;
    let origins = origins_of(&opened, &quantization, options.layout)?;
    let rounded = rounded(&origins, options)?;
    let common = Common::of(&origins)?;
    let plan = Plan::of(&opened, &origins, options.layout, &common)?;
    let config = Plain::without(quantize::config_of(source)?.as_deref())?;
    let config = config.with(&options.layout.config(&common, &plan.ignored()));
    let (path, file) = quantize::prepare(&target, &config, options.save.durability)?;
    let mut job = Job {
        crew: Quantizer::new(options.n_threads),
        layout: options.layout,
        total: plan.size_bytes(options.verify)?,
        done: 0,
        progress,
    };
    let mut paths = job.write(&plan, &target, options)?;
    file.commit()?;
    if options.verify {
        let last = paths.last().expect("a file with tensors was written");
        job.prove(&plan, &quantize::open_plain(last)?, &rounded)?;
    }
    paths.push(path);
    let n_weights = origins.len();
    Ok(Repacked {
        paths,
        n_weights,
        rounded,
    })
}

/// The quantized weights, if the layout can hold all of them.
fn origins_of<'a>(
    checkpoint: &'a Checkpoint,
    quantization: &'a Quantization,
    layout: RepackLayout,
) -> Result<Vec<Origin<'a>>> {
    let origins = quantization.weights.iter().map(|weight| {
        let origin = Origin::of(checkpoint, weight);
        let origin = origin.and_then(|origin| layout.check(&origin).map(|()| origin));
        origin.map_err(|error| error.with_tensor(&*weight.name))
    });
    origins.collect()
}

/// The weights whose second scale has no reciprocal that gives the same weights; refuses them where that is not allowed.
fn rounded(origins: &[Origin<'_>], options: &RepackOptions) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for origin in origins {
        let Kind::Nvfp4 { global, effect } = origin.kind else {
            continue;
        };
        if effect == options.layout.effect() {
            continue;
        }
        let input = origin.input().map(|part| origin.number(part)).transpose()?;
        let is_same =
            source::has_same_products(global, effect) && input.is_none_or(source::returns);
        if is_same {
            continue;
        }
        if !options.allow_rounding {
            let message = format!(
                "the second scale is {global}, whose reciprocal is no F32: weights would change in their last place"
            );
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_tensor(origin.name)
                .with_hint("`--allow-rounding` (`allow_rounding`) takes the nearest one, and names these weights"));
        }
        found.push(origin.name.to_owned());
    }
    Ok(found)
}

/// What is to be written.
struct Plan<'a> {
    source: &'a Checkpoint,
    origins: &'a [Origin<'a>],
    outputs: Vec<Output<'a>>,
}

/// A tensor to write.
struct Output<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    from: From<'a>,
}

/// What a tensor is made of.
enum From<'a> {
    Tensor(Tensor<'a>),
    /// A part of a weight, by its number.
    Weight(usize, PartSpec),
}

impl<'a> Plan<'a> {
    fn of(
        source: &'a Checkpoint,
        origins: &'a [Origin<'a>],
        layout: RepackLayout,
        common: &Common,
    ) -> Result<Plan<'a>> {
        let parts: std::collections::HashSet<&str> =
            origins.iter().flat_map(Origin::parts).collect();
        let rest = source
            .tensors()
            .filter(|tensor| !parts.contains(tensor.info().name));
        let mut outputs: Vec<Output<'a>> = rest.map(Output::of).collect();
        refuse_others(origins, &outputs)?;
        for (number, origin) in origins.iter().enumerate() {
            let Some(module) = origin.name.strip_suffix("weight") else {
                return Err(source::refused(format!(
                    "a weight of the name `{}`",
                    origin.name
                )));
            };
            for spec in layout.parts(origin, common.symmetric)? {
                outputs.push(Output {
                    name: format!("{module}{}", spec.suffix),
                    dtype: spec.dtype,
                    shape: spec.shape.clone(),
                    from: From::Weight(number, spec),
                });
            }
        }
        Ok(Plan {
            source,
            origins,
            outputs,
        })
    }

    /// The modules that an engine would take for quantized ones, and that are not.
    fn ignored(&self) -> Vec<String> {
        let kept = self
            .outputs
            .iter()
            .filter(|output| matches!(output.from, From::Tensor(_)));
        let kept = kept.map(|output| (&*output.name, &output.shape[..]));
        quantize::ignored(
            kept,
            self.origins
                .iter()
                .any(|origin| origin.name == "lm_head.weight"),
        )
    }

    fn size_bytes(&self, verify: bool) -> Result<u64> {
        let mut total = 0u64;
        for output in &self.outputs {
            let size = shape_size_bytes(output.dtype, &output.shape);
            total = total.saturating_add(size.map_err(|error| error.with_tensor(&*output.name))?);
        }
        let compared = self
            .origins
            .iter()
            .map(Origin::n_weights)
            .fold(0, u64::saturating_add);
        Ok(total.saturating_add(if verify { compared } else { 0 }))
    }
}

impl<'a> Output<'a> {
    fn of(tensor: Tensor<'a>) -> Output<'a> {
        let info = tensor.info();
        Output {
            name: info.name.to_owned(),
            dtype: info.dtype,
            shape: info.shape.to_vec(),
            from: From::Tensor(tensor),
        }
    }

    fn spec(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            dtype: self.dtype,
            shape: &self.shape,
        }
    }
}

/// Refuses a tensor that does something with a weight for which the other layout has no name, such as `pre_quant_scale`.
fn refuse_others(origins: &[Origin<'_>], rest: &[Output<'_>]) -> Result<()> {
    let modules = origins
        .iter()
        .filter_map(|origin| origin.name.strip_suffix(".weight"));
    let modules: std::collections::HashSet<&str> = modules.collect();
    let is_other = |output: &&Output<'_>| {
        let split = output.name.rsplit_once('.');
        split.is_some_and(|(module, part)| part != "bias" && modules.contains(module))
    };
    match rest.iter().find(is_other) {
        None => Ok(()),
        Some(output) => Err(
            source::refused("a weight with this tensor beside it".to_owned())
                .with_tensor(&*output.name),
        ),
    }
}

/// The work under way.
struct Job<'p, 'q> {
    crew: Quantizer,
    layout: RepackLayout,
    total: u64,
    done: u64,
    progress: &'p mut RepackProgress<'q>,
}

impl Job<'_, '_> {
    fn write(
        &mut self,
        plan: &Plan<'_>,
        target: &Path,
        options: &RepackOptions,
    ) -> Result<Vec<PathBuf>> {
        let specs: Vec<TensorSpec<'_>> = plan.outputs.iter().map(Output::spec).collect();
        let mut metadata = metadata_of(plan.source);
        if let Some(metadata) = &mut metadata {
            metadata.retain(|(key, _)| *key != COMFY_KEY);
        }
        let most = options.max_shard_bytes.unwrap_or(DEFAULT_SHARD_BYTES);
        let layout = self.layout;
        let mut stream = |index: usize, put: &mut dyn FnMut(&[u8]) -> Result<()>| {
            let (total, done, progress) = (self.total, &mut self.done, &mut self.progress);
            let mut put = |bytes: &[u8]| {
                put(bytes)?;
                *done += bytes.len() as u64;
                progress(total, *done)
            };
            match &plan.outputs[index].from {
                From::Tensor(tensor) => self.crew.copy(tensor, &mut put),
                From::Weight(number, spec) => {
                    let origin = &plan.origins[*number];
                    let written = part(&self.crew, layout, origin, spec, &mut put);
                    written.map_err(|error| error.with_tensor(origin.name))
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

    /// Reads what was written, and refuses any weight that is not the source's.
    fn prove(&mut self, plan: &Plan<'_>, written: &Checkpoint, rounded: &[String]) -> Result<()> {
        let quantization = written.quantization()?;
        for origin in plan.origins {
            let found = quantization
                .find(origin.name)
                .ok_or_else(|| proof::differs(origin.name))?;
            let ours = Origin::of(written, found)?;
            let may_round = rounded.iter().any(|name| name == origin.name);
            proof::prove(
                &self.crew,
                origin,
                &ours,
                &windows(self.layout, origin),
                may_round,
            )?;
            self.done += origin.n_weights();
            (self.progress)(self.total, self.done)?;
        }
        Ok(())
    }
}

/// Hands the bytes of a part of a weight to `put`.
fn part(
    crew: &Quantizer,
    layout: RepackLayout,
    origin: &Origin<'_>,
    spec: &PartSpec,
    put: &mut Put<'_>,
) -> Result<()> {
    match spec.part {
        Part::Shape => return put(origin.shape.map(u64::to_le_bytes).as_flattened()),
        Part::Index => return index(origin, put),
        Part::Global | Part::Input => return put(&number(layout, origin, spec)?.to_le_bytes()),
        _ => {}
    }
    let windows = match spec.part {
        Part::Codes => windows(layout, origin),
        _ => group_windows(layout, origin),
    };
    let work = |window: &Window| packed(layout, origin, spec, window);
    crew.in_order(&windows, &work, &mut |bytes: Vec<u8>| put(&bytes))
}

/// The group of each input.
fn index(origin: &Origin<'_>, put: &mut Put<'_>) -> Result<()> {
    match &origin.index {
        Some(index) => {
            let bytes: Vec<u8> = index.iter().flat_map(|group| group.to_le_bytes()).collect();
            put(&bytes)
        }
        None => group_index(origin.shape[1], origin.group_size(), put),
    }
}

/// A second scale, or that of inputs, as it is or turned over.
fn number(layout: RepackLayout, origin: &Origin<'_>, spec: &PartSpec) -> Result<f32> {
    if let (Part::Global, Kind::Nvfp4 { global, effect }) = (spec.part, origin.kind) {
        return Ok(source::turned_over(global, effect, layout.effect()));
    }
    let from = origin.input().unwrap_or("input_scale");
    let number = origin.number(from)?;
    Ok(if from == spec.suffix {
        number
    } else {
        1.0 / number
    })
}

/// The bytes of a part for a window of codes, or of groups.
fn packed(
    layout: RepackLayout,
    origin: &Origin<'_>,
    spec: &PartSpec,
    window: &Window,
) -> Result<Vec<u8>> {
    let (rows, groups) = (&window.rows, &window.columns);
    let (n_rows, n_columns) = (size(rows), size(groups));
    let order = match layout {
        RepackLayout::Awq => BitOrder::AWQ,
        RepackLayout::Nvfp4 | RepackLayout::ModeloptNvfp4 => BitOrder::lsb(4)?,
        _ => BitOrder::lsb_words(origin.bits())?,
    };
    match (spec.part, layout) {
        (Part::Scales, _) => {
            let scales = origin.scales(rows, groups)?;
            Ok(match (layout.is_by_columns(), spec.dtype.width_bytes()) {
                (false, _) => scales,
                (_, Some(4)) => turned::<4>(&scales, n_rows, n_columns),
                _ => turned::<2>(&scales, n_rows, n_columns),
            })
        }
        (Part::Zeros, RepackLayout::PackQuantized) => {
            columns(order, &origin.zeros(rows, groups)?, n_columns)
        }
        (Part::Zeros, _) => lines(
            order,
            &transposed(&origin.zeros(rows, groups)?, n_rows, n_columns),
            n_rows,
        ),
        (_, RepackLayout::Gptq) => columns(
            order,
            &transposed(&origin.codes(window)?, n_rows, n_columns),
            n_rows,
        ),
        (_, RepackLayout::Awq) => lines(
            order,
            &transposed(&origin.codes(window)?, n_rows, n_columns),
            n_rows,
        ),
        _ => lines(order, &origin.codes(window)?, n_columns),
    }
}

/// A weight cut so that no word is, and no tile of scales.
fn windows(layout: RepackLayout, origin: &Origin<'_>) -> Vec<Window> {
    cut(layout.is_by_columns(), origin.shape)
}

/// Its groups cut so.
fn group_windows(layout: RepackLayout, origin: &Origin<'_>) -> Vec<Window> {
    let [rows, columns] = origin.shape;
    cut(
        layout.is_by_columns(),
        [rows, columns.div_ceil(origin.group_size())],
    )
}

fn cut(by_columns: bool, [rows, columns]: [u64; 2]) -> Vec<Window> {
    const UNIT: u64 = 128;
    let (length, across) = if by_columns {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let size = (WINDOW / across.max(1) / UNIT).max(1) * UNIT;
    let window = |start: u64| {
        let range = start..start.saturating_add(size).min(length);
        let (rows, columns) = if by_columns {
            (0..rows, range)
        } else {
            (range, 0..columns)
        };
        Window {
            experts: 0..1,
            rows,
            columns,
        }
    };
    (0..length)
        .step_by(usize::try_from(size).unwrap_or(usize::MAX))
        .map(window)
        .collect()
}
