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

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result, TensorSpec, shape_size_bytes};
use tensorhold_io::{Buffer, check_interrupt};
use tensorhold_quant::detect::QuantizedWeight;

use super::ahead::Ahead;
use super::beside::{Existing as ExistingConfig, write_config};
use super::dequantize::{Dequantize, Entry, logical_order, n_cores, refuse_unread};
use super::located::{Located, Origins, Room};
use super::part::{Part, Strip};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::file::{Backend, OpenOptions};
use crate::reshard::{metadata_of, refuse_own_folder, refuse_source};
use crate::save::{
    SaveOptions, order_of_writes, save_streamed, save_streamed_shards, shard_target,
};

/// How a checkpoint is written as numbers.
#[derive(Debug, Clone, Default)]
pub struct DequantizeOptions {
    /// Alignment and durability.
    pub save: SaveOptions,
    /// What weights become; the type that each is given as where nothing else is asked for, if `None`.
    pub dtype: Option<Dtype>,
    /// Shards are written, each with tensors of at most so many bytes.
    pub max_shard_bytes: Option<u64>,
    /// Whether what was written is read again and compared with the source.
    pub verify: bool,
    /// What becomes of a `config.json` that is beside the target already.
    pub existing_config: ExistingConfig,
}

/// What was written.
#[derive(Debug)]
pub struct Dequantized {
    /// The files, a `config.json` first and the index last.
    pub paths: Vec<PathBuf>,
    /// How many tensors they hold.
    pub n_tensors: usize,
    /// How many of them were quantized.
    pub n_weights: usize,
    /// The bytes of all of them.
    pub size_bytes: u64,
}

/// Is told the bytes of tensors that are to be written or compared, and how many were; ends the work by an error.
pub type DequantizeProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// So much is made at once.
const PIECE_BYTES: u64 = 4 << 20;

/// So many pieces are made ahead of the one that is written, for each thread.
const N_AHEAD: usize = 2;

/// A tensor to write.
struct Item<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: Vec<u64>,
    from: From<'a>,
}

enum From<'a> {
    Weight(Located<'a>, Part),
    Tensor(Tensor<'a>),
}

/// What is made at once.
enum Piece<'a> {
    Strip(&'a Located<'a>, &'a Part, Strip),
    /// Bytes of a tensor that is copied.
    Bytes(Tensor<'a>, ByteRange),
}

/// Writes the tensors of `source` to `target`, a file or, where shards are asked for, what [`shard_target`] says: `weights` as numbers by
/// their own names, without the tensors that they are made of, and all others as they are. A few MB for each thread are in memory,
/// whatever the size of the checkpoint. A `config.json` beside the source is written beside the target, without what it says of
/// quantization; nothing else is that lies there.
///
/// # Errors
/// As [`Checkpoint::dequantize_all`], before anything is written; those of a save; `InvalidArgument` if a file of the source would be overwritten;
/// `DuplicateTensor` if a weight has the name of a tensor that it is not made of.
pub fn dequantize_checkpoint(
    source: &Checkpoint,
    weights: &[QuantizedWeight],
    target: impl AsRef<Path>,
    options: &DequantizeOptions,
    progress: &mut DequantizeProgress<'_>,
) -> Result<Dequantized> {
    let target = target.as_ref();
    match options.max_shard_bytes {
        Some(_) => refuse_own_folder(source, &shard_target(target)?)?,
        None => refuse_source(source, target)?,
    }
    let items = items_of(source, weights, options)?;
    let specs: Vec<TensorSpec<'_>> = items.iter().map(Item::spec).collect();
    let order = order_of_writes(&specs, options.max_shard_bytes, &options.save)?;
    let mut size_bytes = 0;
    for item in &items {
        size_bytes += shape_size_bytes(item.dtype, &item.shape)?;
    }
    let job = Job {
        origins: Origins::plain(source),
        items: &items,
        order,
    };
    let mut told = Told {
        total: size_bytes * if options.verify { 2 } else { 1 },
        done: 0,
        progress,
    };
    let paths = job.write(target, &specs, source, options, &mut told)?;
    if options.verify {
        job.verify(&paths, &mut told)?;
    }
    let config = write_config(source, &paths[0], options.existing_config, &options.save)?;
    Ok(Dequantized {
        paths: config.into_iter().chain(paths).collect(),
        n_tensors: items.len(),
        n_weights: weights.len(),
        size_bytes,
    })
}

impl Item<'_> {
    fn spec(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: self.name,
            dtype: self.dtype,
            shape: &self.shape,
        }
    }
}

/// All tensors but those that weights are made of, and the weights in the place of the first of theirs.
fn items_of<'a>(
    source: &'a Checkpoint,
    weights: &'a [QuantizedWeight],
    options: &DequantizeOptions,
) -> Result<Vec<Item<'a>>> {
    refuse_unread(weights.iter())?;
    let each = logical_order(source, weights).into_iter();
    let each = each.map(|logical| match logical {
        Entry::Weight(weight) => weight_item(source, weight, options),
        Entry::Tensor(tensor) => {
            let info = tensor.info();
            Ok(Item {
                name: info.name,
                dtype: info.dtype,
                shape: info.shape.to_vec(),
                from: From::Tensor(tensor),
            })
        }
    });
    each.collect()
}

fn weight_item<'a>(
    source: &'a Checkpoint,
    weight: &'a QuantizedWeight,
    options: &DequantizeOptions,
) -> Result<Item<'a>> {
    let mut wanted = Dequantize::whole(weight);
    if let Some(dtype) = options.dtype {
        wanted = wanted.cast(dtype);
    }
    let part = wanted.resolve()?;
    Ok(Item {
        name: &weight.name,
        dtype: wanted.dtype(),
        shape: part.shape.clone(),
        from: From::Weight(Located::find(source, weight)?, part),
    })
}

/// How far the work is.
struct Told<'a, 'p> {
    total: u64,
    done: u64,
    progress: &'a mut DequantizeProgress<'p>,
}

impl Told<'_, '_> {
    fn add(&mut self, n_bytes: u64) -> Result<()> {
        self.done += n_bytes;
        (self.progress)(self.total, self.done)
    }
}

struct Job<'a> {
    origins: Origins,
    items: &'a [Item<'a>],
    /// The items in the order in which they are written.
    order: Vec<usize>,
}

impl Job<'_> {
    fn write(
        &self,
        target: &Path,
        specs: &[TensorSpec<'_>],
        source: &Checkpoint,
        options: &DequantizeOptions,
        told: &mut Told<'_, '_>,
    ) -> Result<Vec<PathBuf>> {
        let mut metadata = metadata_of(source);
        if let Some(metadata) = &mut metadata {
            // It says how weights are quantized: ComfyUI's for all, torchao's for each.
            let weights: HashSet<&str> = self.weights().collect();
            metadata.retain(|(key, _)| *key != "_quantization_metadata" && !weights.contains(key));
        }
        let metadata = metadata.as_deref();
        self.in_order(|next| {
            let mut stream = |item: usize, put: &mut dyn FnMut(&[u8]) -> Result<()>| {
                next(item, &mut |bytes| {
                    put(bytes)?;
                    told.add(bytes.len() as u64)
                })
            };
            let Some(most) = options.max_shard_bytes else {
                save_streamed(target, specs, metadata, &options.save, &mut stream)?;
                return Ok(vec![target.to_owned()]);
            };
            let target = shard_target(target)?;
            save_streamed_shards(&target, specs, metadata, most, &options.save, &mut stream)
        })
    }

    /// The names of the weights.
    fn weights(&self) -> impl Iterator<Item = &str> {
        let weights = self.items.iter();
        let weights = weights.filter(|item| matches!(item.from, From::Weight(..)));
        weights.map(|item| item.name)
    }

    /// Reads what was written, and compares it with what is made once more.
    fn verify(&self, paths: &[PathBuf], told: &mut Told<'_, '_>) -> Result<()> {
        let last = paths.last().expect("a file was written");
        let options = OpenOptions {
            backend: Backend::Pread,
            ..OpenOptions::default()
        };
        let written = Checkpoint::open(last, &options)?;
        self.in_order(|next| {
            let mut found = Vec::new();
            for &number in &self.order {
                let item = &self.items[number];
                let tensor = written.tensor(item.name)?;
                let info = tensor.info();
                if (info.dtype, info.shape) != (item.dtype, &item.shape[..]) {
                    return Err(differs(item, &tensor));
                }
                let mut position = tensor.file().header().data_start() + info.offsets.start;
                next(number, &mut |bytes| {
                    found.resize(bytes.len(), 0);
                    tensor.file().source().read_at(position, &mut found)?;
                    position += bytes.len() as u64;
                    match found == bytes {
                        true => told.add(bytes.len() as u64),
                        false => Err(differs(item, &tensor)),
                    }
                })?;
            }
            Ok(())
        })
    }

    /// Calls `take` with what hands over the bytes of the next item, some at a time, which are made ahead by other threads.
    fn in_order<S>(&self, take: impl FnOnce(&mut Next<'_>) -> Result<S>) -> Result<S> {
        let mut pieces = Vec::new();
        let mut n_pieces = vec![0; self.items.len()];
        for &number in &self.order {
            let of_item = self.items[number].pieces(&self.origins);
            n_pieces[number] = of_item.len();
            pieces.extend(of_item);
        }
        let n_threads = n_cores().min(MAX_THREADS);
        let ahead = Ahead::new(pieces.len(), N_AHEAD * n_threads);
        let make = |number: usize, room: &mut Room| pieces[number].make(&self.origins, room);
        ahead.while_making(n_threads, Room::default, make, || {
            take(&mut |item, put| {
                for _ in 0..n_pieces[item] {
                    check_interrupt()?;
                    put(&ahead.next()?)?;
                }
                Ok(())
            })
        })
    }
}

/// Hands over the bytes of an item.
type Next<'n> = dyn FnMut(usize, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + 'n;

/// More only take memory: a disk takes less than a few make.
const MAX_THREADS: usize = 8;

impl Item<'_> {
    fn pieces(&self, origins: &Origins) -> Vec<Piece<'_>> {
        match &self.from {
            From::Weight(weight, part) => {
                let strips = part.strips(weight.strip_bytes(origins, part, 1));
                let strips = strips.into_iter();
                strips
                    .map(|strip| Piece::Strip(weight, part, strip))
                    .collect()
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
}

impl Piece<'_> {
    fn make(&self, origins: &Origins, room: &mut Room) -> Result<Buffer> {
        match self {
            Piece::Strip(weight, part, strip) => {
                let mut into = Buffer::allocate(part.strip_bytes(strip))?;
                weight.make(origins, part, strip, room, &mut into)?;
                Ok(into)
            }
            Piece::Bytes(tensor, range) => {
                let mut into = Buffer::allocate(range.len())?;
                let (file, info) = (tensor.file(), tensor.info());
                let position = file.header().data_start() + info.offsets.start + range.start;
                let read = file.source().read_at(position, &mut into);
                read.map_err(|error| file.blame(&info, error))?;
                Ok(into)
            }
        }
    }
}

fn differs(item: &Item<'_>, written: &Tensor<'_>) -> Error {
    let message = "what was written is not what the source holds";
    let error = Error::new(ErrorKind::Io, message).with_tensor(item.name);
    error
        .with_file(written.file().path().to_string_lossy())
        .with_hint(
            "a disk or memory is at fault, or the source was changed meanwhile; write it again",
        )
}
