//! Whole checkpoints with numbers in place of quantized weights, written while they are made.
//!
//! ```text
//! say what is to be stored, and in which order it is written
//! threads: the next strip of a weight, or piece of a tensor, some ahead of
//! caller:  writes it
//! read it all again and compare, where that is asked for
//! ```

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, TensorSpec};
use tensorhold_io::Buffer;
use tensorhold_quant::detect::QuantizedWeight;

use super::dequantize::{Dequantize, Entry, logical_order, refuse_unread};
use super::located::{Located, Origins, Room};
use super::part::{Part, Strip};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::reshard::{refuse_own_folder, refuse_source};
use crate::rewrite::{
    self, Beside, Config, Existing, From, Makers, Output, Put, RewriteOptions, RewriteProgress,
    Target, Told, read_at, reopen,
};
use crate::save::{order_of_writes, shard_target};

/// How a checkpoint is written as numbers.
#[derive(Debug, Clone, Default)]
pub struct DequantizeOptions {
    /// How it is written.
    pub rewrite: RewriteOptions,
    /// What weights become; the type that each is given as where nothing else is asked for, if `None`.
    pub dtype: Option<Dtype>,
    /// What becomes of a `config.json` that is beside the target already.
    pub existing_config: Existing,
}

/// What was written.
#[derive(Debug)]
pub struct Dequantized {
    /// The files, a `config.json` first and the index last.
    pub paths: Vec<PathBuf>,
    /// The [companions](crate::companions) of the source that were copied.
    pub copied: Vec<PathBuf>,
    /// How many tensors they hold.
    pub n_tensors: usize,
    /// How many of them were quantized.
    pub n_weights: usize,
    /// The bytes of all of them.
    pub size_bytes: u64,
}

/// Is told the bytes of tensors that are to be written or compared, and how many were; ends the work by an error.
pub type DequantizeProgress<'a> = RewriteProgress<'a>;

/// So much of a tensor is copied at once.
const PIECE_BYTES: u64 = 4 << 20;

/// What is made of a weight.
type Made<'a> = (Located<'a>, Part);

/// What is made at once.
enum Piece<'a> {
    Strip(&'a Made<'a>, Strip),
    /// Bytes of a tensor that is copied.
    Bytes(Tensor<'a>, ByteRange),
}

/// Writes the tensors of `source` to `target`, a file or, where shards are asked for, what [`shard_target`] says: `weights` as numbers by
/// their own names, without the tensors that they are made of, and all others as they are. A few MB for each thread are in memory,
/// whatever the size of the checkpoint. A `config.json` beside the source is written beside the target, without what it says of
/// quantization, and its [companions](crate::companions) are copied there.
///
/// # Errors
/// As [`Checkpoint::dequantize_all`], before anything is written; those of a save; `InvalidArgument` if a file of the source would be overwritten;
/// `DuplicateTensor` if a weight has the name of a tensor that it is not made of; `InvalidConfig` if the configuration is no object of JSON.
pub fn dequantize_checkpoint(
    source: &Checkpoint,
    weights: &[QuantizedWeight],
    target: impl AsRef<Path>,
    options: &DequantizeOptions,
    progress: &mut DequantizeProgress<'_>,
) -> Result<Dequantized> {
    let target = match options.rewrite.max_shard_bytes {
        Some(_) => shard_target(target.as_ref())?,
        None => target.as_ref().to_owned(),
    };
    match options.rewrite.max_shard_bytes {
        Some(_) => refuse_own_folder(source, &target)?,
        None => refuse_source(source, &target)?,
    }
    let job = Job::of(source, weights, options)?;
    let size_bytes = rewrite::size_bytes(&job.outputs)?;
    let total = size_bytes.saturating_mul(if options.rewrite.verify { 2 } else { 1 });
    let mut told = Told::new(total, progress);
    let beside = prepare_beside(source, &target, options)?;
    let paths = job.write(&target, source, options, &mut told)?;
    let placed = beside.commit()?;
    if options.rewrite.verify {
        job.verify(&reopen(&paths)?, &mut told)?;
    }
    Ok(Dequantized {
        paths: placed.config.into_iter().chain(paths).collect(),
        copied: placed.copied,
        n_tensors: job.outputs.len(),
        n_weights: weights.len(),
        size_bytes,
    })
}

/// The configuration without what it says of quantization, unless one is there that is to be kept, and the companions.
fn prepare_beside(
    source: &Checkpoint,
    target: &Path,
    options: &DequantizeOptions,
) -> Result<Beside> {
    let there = target.with_file_name(super::CONFIG);
    let is_kept = options.existing_config == Existing::Kept && there.symlink_metadata().is_ok();
    let config = match Config::of(source)? {
        Some(config) if !is_kept => Some(config.without_quantization()?),
        _ => None,
    };
    let text = config.as_ref().map(|config| config.text());
    Beside::prepare(source, target, text, options.rewrite.save.durability)
}

/// All tensors but those that weights are made of, and the weights in the place of the first of theirs.
fn outputs_of<'a>(
    source: &'a Checkpoint,
    weights: &'a [QuantizedWeight],
    options: &DequantizeOptions,
) -> Result<Vec<Output<'a, Made<'a>>>> {
    refuse_unread(weights.iter())?;
    let each = logical_order(source, weights).into_iter();
    let each = each.map(|logical| match logical {
        Entry::Weight(weight) => weight_output(source, weight, options),
        Entry::Tensor(tensor) => Ok(Output::copied(tensor)),
    });
    each.collect()
}

fn weight_output<'a>(
    source: &'a Checkpoint,
    weight: &'a QuantizedWeight,
    options: &DequantizeOptions,
) -> Result<Output<'a, Made<'a>>> {
    let mut wanted = Dequantize::whole(weight);
    if let Some(dtype) = options.dtype {
        wanted = wanted.cast(dtype);
    }
    let part = wanted.resolve()?;
    Ok(Output {
        name: weight.name.as_str().into(),
        dtype: wanted.dtype(),
        shape: part.shape.clone(),
        from: From::Weight((Located::find(source, weight)?, part)),
    })
}

struct Job<'a> {
    origins: Origins,
    makers: Makers,
    outputs: Vec<Output<'a, Made<'a>>>,
    /// Their numbers in the order in which they are written.
    order: Vec<usize>,
}

impl<'a> Job<'a> {
    fn of(
        source: &'a Checkpoint,
        weights: &'a [QuantizedWeight],
        options: &DequantizeOptions,
    ) -> Result<Job<'a>> {
        let outputs = outputs_of(source, weights, options)?;
        let specs: Vec<TensorSpec<'_>> = outputs.iter().map(Output::spec).collect();
        let RewriteOptions {
            max_shard_bytes,
            save,
            n_threads,
            ..
        } = &options.rewrite;
        let order = order_of_writes(&specs, *max_shard_bytes, save)?;
        Ok(Job {
            origins: Origins::plain(source),
            makers: Makers::new(*n_threads),
            outputs,
            order,
        })
    }

    fn write(
        &self,
        target: &Path,
        source: &Checkpoint,
        options: &DequantizeOptions,
        told: &mut Told<'_, '_>,
    ) -> Result<Vec<PathBuf>> {
        // The metadata says how weights are quantized: ComfyUI's of all, torchao's of each.
        let weights: HashSet<&str> = self.weights().collect();
        let target = Target::file_or_shards(target, source, &options.rewrite)
            .without_metadata(|key| key == "_quantization_metadata" || weights.contains(key));
        self.in_order(|next| target.write(&self.outputs, told, next))
    }

    /// The names of the weights.
    fn weights(&self) -> impl Iterator<Item = &str> {
        let weights = self.outputs.iter();
        let weights = weights.filter(|output| matches!(output.from, From::Weight(_)));
        weights.map(|output| &*output.name)
    }

    /// Compares what was written with what is made once more.
    fn verify(&self, written: &Checkpoint, told: &mut Told<'_, '_>) -> Result<()> {
        self.in_order(|next| {
            let mut found = Vec::new();
            for &number in &self.order {
                let output = &self.outputs[number];
                let tensor = written.tensor(&output.name)?;
                let info = tensor.info();
                if (info.dtype, info.shape) != (output.dtype, &output.shape[..]) {
                    return Err(differs(&output.name, &tensor));
                }
                let mut start = 0;
                next(number, &mut |bytes| {
                    found.resize(bytes.len(), 0);
                    read_at(&tensor, start, &mut found)?;
                    start += bytes.len() as u64;
                    match found == bytes {
                        true => told.add(bytes.len() as u64),
                        false => Err(differs(&output.name, &tensor)),
                    }
                })?;
            }
            Ok(())
        })
    }

    /// Calls `take` with what hands over the bytes of the next tensor, some at a time, which are made ahead by other threads.
    fn in_order<S>(&self, take: impl FnOnce(&mut Next<'_>) -> Result<S>) -> Result<S> {
        let mut pieces = Vec::new();
        let mut n_pieces = vec![0; self.outputs.len()];
        for &number in &self.order {
            let of_output = pieces_of(&self.outputs[number], &self.origins);
            n_pieces[number] = of_output.len();
            pieces.extend(of_output);
        }
        let make = |number: usize, room: &mut Room| pieces[number].make(&self.origins, room);
        self.makers
            .ahead(pieces.len(), Room::default, make, |ahead| {
                take(&mut |number, put| (0..n_pieces[number]).try_for_each(|_| put(&ahead.next()?)))
            })
    }
}

/// Hands over the bytes of a tensor.
type Next<'n> = dyn FnMut(usize, &mut Put<'_>) -> Result<()> + 'n;

fn pieces_of<'p>(output: &'p Output<'_, Made<'_>>, origins: &Origins) -> Vec<Piece<'p>> {
    match &output.from {
        From::Weight(made) => {
            let (weight, part) = made;
            let strips = part.strips(weight.strip_bytes(origins, part, 1));
            let strips = strips.into_iter();
            strips.map(|strip| Piece::Strip(made, strip)).collect()
        }
        From::Tensor(tensor) => {
            let size = tensor.info().size_bytes();
            let starts = (0..size.div_ceil(PIECE_BYTES)).map(|piece| piece * PIECE_BYTES);
            let range = |start| ByteRange::new(start, (start + PIECE_BYTES).min(size));
            starts
                .map(|start| Piece::Bytes(*tensor, range(start)))
                .collect()
        }
    }
}

impl Piece<'_> {
    fn make(&self, origins: &Origins, room: &mut Room) -> Result<Buffer> {
        match self {
            Piece::Strip((weight, part), strip) => {
                let mut into = Buffer::allocate(part.strip_bytes(strip))?;
                weight.make(origins, part, strip, room, &mut into)?;
                Ok(into)
            }
            Piece::Bytes(tensor, range) => {
                let mut into = Buffer::allocate(range.len())?;
                read_at(tensor, range.start, &mut into)?;
                Ok(into)
            }
        }
    }
}

fn differs(name: &str, written: &Tensor<'_>) -> Error {
    let message = "what was written is not what the source holds";
    let error = Error::new(ErrorKind::Io, message).with_tensor(name);
    error
        .with_file(written.file().path().to_string_lossy())
        .with_hint(
            "a disk or memory is at fault, or the source was changed meanwhile; write it again",
        )
}
