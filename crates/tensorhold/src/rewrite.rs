//! Checkpoints written anew, with other tensors in the place of some of theirs: what quantizing, repacking and dequantizing share.
//!
//! ```text
//! say which tensors are written, and of what each is made
//! make ready what lies beside them (`beside.rs`), so that what can fail there does not wait for the weights
//! write the tensors, in pieces that threads make ahead of the one who writes (`ahead.rs`)
//! put in place the tensors, then what lies beside them
//! open what was written and compare, where that is asked for
//! ```

mod ahead;
mod beside;
mod config;
mod matrix;
mod parts;
mod reading;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use tensorhold_core::{Dtype, Result, TensorSpec, shape_size_bytes};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::file::{Backend, OpenOptions};
use crate::reshard::metadata_of;
use crate::save::{DEFAULT_SHARD_BYTES, SaveOptions, save_streamed, save_streamed_shards};

pub(crate) use ahead::Makers;
pub(crate) use beside::Beside;
pub use beside::{Companions, Existing, companions, existing_beside};
pub(crate) use config::{Config, Plain};
pub(crate) use matrix::{columns, cut, group_index, lines, range_index, size, transposed, turned};
pub(crate) use parts::{Part, PartSpec, gptq_parts, gptq_unit, nvfp4_parts, packed_parts};
pub(crate) use reading::{as_numbers, copy, read_at, read_need, weights_of};

/// What all that write a checkpoint anew are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct RewriteOptions {
    /// Alignment and durability.
    pub save: SaveOptions,
    /// The most bytes of tensors in a shard. Where `None`, 5 GB, but [`dequantize_checkpoint`](crate::dequantize_checkpoint) writes one
    /// file.
    pub max_shard_bytes: Option<u64>,
    /// How many threads work, at most 8; as many as the machine has where `None`.
    pub n_threads: Option<usize>,
    /// Whether what was written is read again and compared with the source.
    pub verify: bool,
}

/// Is told the bytes that were written or compared, of how many in all (all first); ends the work by an error.
pub type RewriteProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// Takes bytes, one piece after the other.
pub(crate) type Put<'p> = dyn FnMut(&[u8]) -> Result<()> + 'p;

/// A checkpoint whose files are read and not mapped, so that its pages do not count as memory of the process.
pub(crate) fn open_plain(path: &Path) -> Result<Checkpoint> {
    let options = OpenOptions {
        backend: Backend::Pread,
        ..OpenOptions::default()
    };
    Checkpoint::open(path, &options)
}

/// How far the work is.
pub(crate) struct Told<'p, 'q> {
    total: u64,
    done: u64,
    progress: &'p mut RewriteProgress<'q>,
}

impl<'p, 'q> Told<'p, 'q> {
    /// Nothing is done of so many bytes.
    pub fn new(total: u64, progress: &'p mut RewriteProgress<'q>) -> Told<'p, 'q> {
        Told {
            total,
            done: 0,
            progress,
        }
    }

    pub fn add(&mut self, n_bytes: u64) -> Result<()> {
        self.done += n_bytes;
        (self.progress)(self.total, self.done)
    }
}

/// A tensor to write.
pub(crate) struct Output<'a, W> {
    pub name: Cow<'a, str>,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub from: From<'a, W>,
}

/// What a tensor is made of.
pub(crate) enum From<'a, W> {
    /// It is copied.
    Tensor(Tensor<'a>),
    Weight(W),
}

/// A part of a weight, with the weight's number.
pub(crate) type PartOf = (usize, PartSpec);

impl<'a, W> Output<'a, W> {
    /// A tensor that stays as it is.
    pub fn copied(tensor: Tensor<'a>) -> Output<'a, W> {
        let info = tensor.info();
        Output {
            name: info.name.into(),
            dtype: info.dtype,
            shape: info.shape.to_vec(),
            from: From::Tensor(tensor),
        }
    }

    pub fn spec(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            dtype: self.dtype,
            shape: &self.shape,
        }
    }

    pub fn size_bytes(&self) -> Result<u64> {
        shape_size_bytes(self.dtype, &self.shape).map_err(|error| error.with_tensor(&*self.name))
    }
}

impl<'a> Output<'a, PartOf> {
    /// A part of the weight with this number, whose module's name ends in a dot.
    pub fn part(module: &str, number: usize, spec: PartSpec) -> Output<'a, PartOf> {
        Output {
            name: format!("{module}{}", spec.suffix).into(),
            dtype: spec.dtype,
            shape: spec.shape.clone(),
            from: From::Weight((number, spec)),
        }
    }
}

/// The bytes of all of them.
pub(crate) fn size_bytes<W>(outputs: &[Output<'_, W>]) -> Result<u64> {
    outputs.iter().try_fold(0u64, |total, output| {
        Ok(total.saturating_add(output.size_bytes()?))
    })
}

/// The modules that an engine would take for quantized ones, and that are not: those of matrices that are copied, but for such as look
/// things up.
pub(crate) fn ignored<W>(outputs: &[Output<'_, W>], has_head: bool) -> Vec<String> {
    let kept = outputs
        .iter()
        .filter(|output| matches!(output.from, From::Tensor(_)) && output.shape.len() == 2);
    let mut ignored: Vec<String> = kept
        .filter_map(|output| output.name.strip_suffix(".weight"))
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

/// Where tensors go, and what is said of them there.
pub(crate) struct Target<'t> {
    path: &'t Path,
    metadata: Option<Vec<(&'t str, &'t str)>>,
    /// One file is written where `None`.
    max_shard_bytes: Option<u64>,
    save: SaveOptions,
}

impl<'t> Target<'t> {
    /// Shards beside `path`, with the metadata of `source`.
    pub fn shards(path: &'t Path, source: &'t Checkpoint, options: &RewriteOptions) -> Target<'t> {
        Target {
            path,
            metadata: metadata_of(source),
            max_shard_bytes: Some(options.max_shard_bytes.unwrap_or(DEFAULT_SHARD_BYTES)),
            save: options.save,
        }
    }

    /// The one file `path` where shards of no size are asked for.
    pub fn file_or_shards(
        path: &'t Path,
        source: &'t Checkpoint,
        options: &RewriteOptions,
    ) -> Target<'t> {
        Target {
            max_shard_bytes: options.max_shard_bytes,
            ..Target::shards(path, source, options)
        }
    }

    /// Without the entries of the metadata for which `is_dropped`.
    pub fn without_metadata(mut self, is_dropped: impl Fn(&str) -> bool) -> Target<'t> {
        if let Some(metadata) = &mut self.metadata {
            metadata.retain(|(key, _)| !is_dropped(key));
        }
        self
    }

    /// Writes the tensors, whose bytes `stream` hands over by their numbers. Gives the paths, the index last.
    pub fn write<W>(
        &self,
        outputs: &[Output<'_, W>],
        told: &mut Told<'_, '_>,
        stream: &mut dyn FnMut(usize, &mut Put<'_>) -> Result<()>,
    ) -> Result<Vec<PathBuf>> {
        let specs: Vec<TensorSpec<'_>> = outputs.iter().map(Output::spec).collect();
        let mut stream = |number: usize, put: &mut Put<'_>| {
            stream(number, &mut |bytes| {
                put(bytes)?;
                told.add(bytes.len() as u64)
            })
        };
        let metadata = self.metadata.as_deref();
        let Some(most) = self.max_shard_bytes else {
            save_streamed(self.path, &specs, metadata, &self.save, &mut stream)?;
            return Ok(vec![self.path.to_owned()]);
        };
        save_streamed_shards(self.path, &specs, metadata, most, &self.save, &mut stream)
    }
}

/// Opens what was written, by its last path.
pub(crate) fn reopen(paths: &[PathBuf]) -> Result<Checkpoint> {
    open_plain(paths.last().expect("a file with tensors was written"))
}
