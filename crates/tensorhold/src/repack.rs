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

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tensorhold_core::{Error, ErrorKind, Result};
use tensorhold_quant::codec::BitOrder;
use tensorhold_quant::detect::Quantization;
use tensorhold_quant::scheme::Window;

use crate::checkpoint::Checkpoint;
use crate::reshard::refuse_own_folder;
use crate::rewrite::{
    self, Beside, Config, From, Makers, Output, Part, PartOf, PartSpec, Plain, Put, RewriteOptions,
    RewriteProgress, Target, Told, columns, cut, group_index, ignored, lines, open_plain, reopen,
    size, transposed, turned,
};
use crate::save::shard_target;

use layout::Common;
pub use layout::RepackLayout;
use source::{Kind, Origin};

/// So many codes are taken at once by a thread.
const WINDOW: u64 = 4 << 20;
/// A window is of whole words, and whole tiles of scales.
const UNIT: u64 = 128;
/// Keys of the metadata that say how ComfyUI's weights are written.
const COMFY_KEY: &str = "_quantization_metadata";

/// How a checkpoint is repacked.
#[derive(Debug, Clone)]
pub struct RepackOptions {
    /// What weights are repacked to.
    pub layout: RepackLayout,
    /// How it is written; [`verify`](RewriteOptions::verify) compares all weights bit for bit.
    pub rewrite: RewriteOptions,
    /// Whether the second scale of NVFP4 may become the F32 nearest to its reciprocal, where that changes weights by a last place of
    /// F32.
    pub allow_rounding: bool,
    /// What is said of quantization in place of the files beside the source: the JSON of a `quantization_config`, or of a `config.json`
    /// with one.
    pub quantization_config: Option<String>,
}

impl RepackOptions {
    /// Weights are repacked to this and compared, and nothing else is asked for.
    #[must_use]
    pub fn new(layout: RepackLayout) -> RepackOptions {
        RepackOptions {
            layout,
            rewrite: RewriteOptions {
                verify: true,
                ..RewriteOptions::default()
            },
            allow_rounding: false,
            quantization_config: None,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct Repacked {
    /// The files that were written: those with tensors, their index, the configuration.
    pub paths: Vec<PathBuf>,
    /// The [companions](crate::companions) of the source that were copied.
    pub copied: Vec<PathBuf>,
    /// How many weights were repacked.
    pub n_weights: usize,
    /// Weights that are not the same in the last place of F32.
    pub rounded: Vec<String>,
}

/// Is told the bytes that were written or compared, of how many in all; ends the work by an error.
pub type RepackProgress<'a> = RewriteProgress<'a>;

/// Writes the quantized checkpoint `source` to the folder `target` in the layout of another program: the same codes, zeros and scales in
/// another order, so that all weights are the same bit for bit, with the `config.json` beside the source that says what they are now, and
/// copies of its [companions](crate::companions).
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
    let target = shard_target(target.as_ref())?;
    let mut source = open_plain(source.as_ref())?;
    if let Some(config) = &options.quantization_config {
        source = source.with_quantization_config(config.clone());
    }
    refuse_own_folder(&source, &target)?;
    let quantization = source.quantization()?;
    let origins = origins_of(&source, &quantization, options.layout)?;
    let rounded = rounded(&origins, options)?;
    let plan = Plan::of(&source, &origins, options.layout)?;
    plan.carry_out(&target, options, progress, rounded)
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
    layout: RepackLayout,
    origins: &'a [Origin<'a>],
    common: Common,
    outputs: Vec<Output<'a, PartOf>>,
}

impl<'a> Plan<'a> {
    fn of(
        source: &'a Checkpoint,
        origins: &'a [Origin<'a>],
        layout: RepackLayout,
    ) -> Result<Plan<'a>> {
        let common = Common::of(origins)?;
        let parts: HashSet<&str> = origins.iter().flat_map(Origin::parts).collect();
        let rest = source
            .tensors()
            .filter(|tensor| !parts.contains(tensor.info().name));
        let mut outputs: Vec<Output<'a, PartOf>> = rest.map(Output::copied).collect();
        refuse_others(origins, &outputs)?;
        for (number, origin) in origins.iter().enumerate() {
            let Some(module) = origin.name.strip_suffix("weight") else {
                let name = format!("a weight of the name `{}`", origin.name);
                return Err(source::refused(name));
            };
            let parts = layout.parts(origin, common.symmetric)?.into_iter();
            outputs.extend(parts.map(|spec| Output::part(module, number, spec)));
        }
        Ok(Plan {
            source,
            layout,
            origins,
            common,
            outputs,
        })
    }

    /// The configuration of the source, with what it is to say of the weights.
    fn config(&self) -> Result<String> {
        let config = Config::of(self.source)?;
        let plain = config.map_or_else(
            || Ok(Plain::empty()),
            |config| config.without_any_quantization(),
        )?;
        let is_head = |origin: &Origin<'_>| origin.name == "lm_head.weight";
        let ignored = ignored(&self.outputs, self.origins.iter().any(is_head));
        Ok(plain.with(&self.layout.config(&self.common, &ignored)))
    }

    fn size_bytes(&self, verify: bool) -> Result<u64> {
        let compared = self.origins.iter().map(Origin::n_weights);
        let compared = compared.fold(0, u64::saturating_add);
        let written = rewrite::size_bytes(&self.outputs)?;
        Ok(written.saturating_add(if verify { compared } else { 0 }))
    }

    fn carry_out(
        &self,
        target: &Path,
        options: &RepackOptions,
        progress: &mut RepackProgress<'_>,
        rounded: Vec<String>,
    ) -> Result<Repacked> {
        let rewrite = &options.rewrite;
        let durability = rewrite.save.durability;
        let beside = Beside::prepare(self.source, target, Some(&self.config()?), durability)?;
        let makers = Makers::new(rewrite.n_threads);
        let mut told = Told::new(self.size_bytes(rewrite.verify)?, progress);
        let tensors = Target::shards(target, self.source, rewrite);
        let tensors = tensors.without_metadata(|key| key == COMFY_KEY);
        let mut stream = |number: usize, put: &mut Put<'_>| self.stream(makers, number, put);
        let mut paths = tensors.write(&self.outputs, &mut told, &mut stream)?;
        let placed = beside.commit()?;
        if rewrite.verify {
            self.prove(makers, &reopen(&paths)?, &rounded, &mut told)?;
        }
        paths.extend(placed.config);
        Ok(Repacked {
            paths,
            copied: placed.copied,
            n_weights: self.origins.len(),
            rounded,
        })
    }

    /// Hands the bytes of a tensor to `put`.
    fn stream(&self, makers: Makers, number: usize, put: &mut Put<'_>) -> Result<()> {
        match &self.outputs[number].from {
            From::Tensor(tensor) => rewrite::copy(tensor, put),
            From::Weight((number, spec)) => {
                let origin = &self.origins[*number];
                let written = part(makers, self.layout, origin, spec, put);
                written.map_err(|error| error.with_tensor(origin.name))
            }
        }
    }

    /// Refuses any weight of what was written that is not the source's.
    fn prove(
        &self,
        makers: Makers,
        written: &Checkpoint,
        rounded: &[String],
        told: &mut Told<'_, '_>,
    ) -> Result<()> {
        let quantization = written.quantization()?;
        for origin in self.origins {
            let found = quantization.find(origin.name);
            let found = found.ok_or_else(|| proof::differs(origin.name))?;
            let ours = Origin::of(written, found)?;
            let may_round = rounded.iter().any(|name| name == origin.name);
            let windows = windows(self.layout, origin);
            proof::prove(makers, origin, &ours, &windows, may_round)?;
            told.add(origin.n_weights())?;
        }
        Ok(())
    }
}

/// Refuses a tensor that does something with a weight for which the other layout has no name, such as `pre_quant_scale`.
fn refuse_others(origins: &[Origin<'_>], rest: &[Output<'_, PartOf>]) -> Result<()> {
    let modules = origins
        .iter()
        .filter_map(|origin| origin.name.strip_suffix(".weight"));
    let modules: HashSet<&str> = modules.collect();
    let is_other = |output: &&Output<'_, PartOf>| {
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

/// Hands the bytes of a part of a weight to `put`.
fn part(
    makers: Makers,
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
    makers.in_order(&windows, &work, &mut |bytes: Vec<u8>| put(&bytes))
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
    let across = |codes: Vec<u8>| transposed(&codes, n_rows, n_columns);
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
        (Part::Zeros, _) => lines(order, &across(origin.zeros(rows, groups)?), n_rows),
        (_, RepackLayout::Gptq) => columns(order, &across(origin.codes(window)?), n_rows),
        (_, RepackLayout::Awq) => lines(order, &across(origin.codes(window)?), n_rows),
        _ => lines(order, &origin.codes(window)?, n_columns),
    }
}

/// A weight cut so that no word is, and no tile of scales.
fn windows(layout: RepackLayout, origin: &Origin<'_>) -> Vec<Window> {
    cut(origin.shape, layout.is_by_columns(), WINDOW, UNIT)
}

/// Its groups cut so.
fn group_windows(layout: RepackLayout, origin: &Origin<'_>) -> Vec<Window> {
    let [rows, columns] = origin.shape;
    let groups = [rows, columns.div_ceil(origin.group_size())];
    cut(groups, layout.is_by_columns(), WINDOW, UNIT)
}
