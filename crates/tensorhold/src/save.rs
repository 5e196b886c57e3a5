//! Writes checkpoints: one file, or shards with an index.

mod arriving;
mod background;
mod image;
mod parallel;
mod shards;
mod source;
mod turn;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use tensorhold_core::{
    Error, ErrorKind, Layout, LayoutOptions, Order, Result, Sink, TensorSpec, layout,
};
use tensorhold_io::{AtomicFile, Durability};

pub(crate) use self::arriving::Pieces;
pub use self::background::{
    BackgroundOptions, BackgroundProgress, Outcome, PendingSave, save_in_background,
};
pub(crate) use self::shards::ShardNames;
pub use self::shards::{DEFAULT_SHARD_BYTES, existing_shards, shard_target};
use self::shards::{split, total_size};
pub use self::source::TensorData;
pub use self::turn::Turn;

/// How a checkpoint is written.
#[derive(Debug, Clone, Copy)]
pub struct SaveOptions {
    /// The data starts on this boundary, a power of two from 8 on; `None` gives the bytes that the
    /// reference writes.
    pub align: Option<u32>,
    /// What is on the disk when the save returns.
    pub durability: Durability,
}

impl Default for SaveOptions {
    /// Data aligned to a page, on the disk before the name points to it.
    fn default() -> Self {
        SaveOptions {
            align: Some(4096),
            durability: Durability::Data,
        }
    }
}

impl SaveOptions {
    fn layout(&self) -> LayoutOptions {
        LayoutOptions {
            align: self.align,
            order: Order::Reference,
        }
    }
}

/// The bytes of the tensor at an index of the list that is saved.
pub type TensorBytes<'a, 'b> = dyn FnMut(usize) -> Result<Cow<'a, [u8]>> + 'b;

/// A file in memory with these tensors; `bytes` is asked for each tensor once, in the order of the file.
///
/// # Errors
/// Those of [`layout`]; `InvalidTensor` if the bytes of a tensor are not as many as its shape and dtype ask for.
pub fn serialize<'a>(
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &SaveOptions,
    mut bytes: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<Vec<u8>> {
    let layout = layout(tensors, metadata, &options.layout())?;
    let mut file = room(&layout)?;
    write(tensors, &layout, &mut file, &mut bytes)?;
    Ok(file)
}

/// A file in memory with these tensors, wherever their bytes lie.
///
/// # Errors
/// Those of [`serialize`]; `Device` where bytes cannot be copied from a device.
pub fn serialize_views(
    tensors: &[TensorView<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &SaveOptions,
) -> Result<Vec<u8>> {
    let specs: Vec<TensorSpec<'_>> = tensors.iter().map(|tensor| tensor.spec).collect();
    let layout = layout(&specs, metadata, &options.layout())?;
    require_sizes(tensors, &layout)?;
    let mut file = room(&layout)?;
    let plan = parallel::plan(&layout);
    let mut writes = 0..plan.n_writes();
    arriving::for_each_write(
        &parallel::Live::new(&layout, &plan, tensors),
        || writes.next(),
        |_, parts| {
            parts.iter().for_each(|part| file.extend_from_slice(part));
            Ok(())
        },
    )?;
    Ok(file)
}

/// Memory for the whole file.
fn room(layout: &Layout) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let reserved = usize::try_from(layout.file_size).map(|size| file.try_reserve_exact(size));
    if !matches!(reserved, Ok(Ok(()))) {
        let message = format!("no memory for a file of {} bytes", layout.file_size);
        return Err(Error::new(ErrorKind::NoMemory, message));
    }
    Ok(file)
}

/// A tensor to save, whose bytes lie in memory, the host's or a device's.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// What it is.
    pub spec: TensorSpec<'a>,
    /// Its bytes, as they go into the file.
    pub data: TensorData<'a>,
}

/// Is told how many bytes of tensors were written so far; ends the save by an error.
pub type SaveProgress<'a> = dyn FnMut(u64) -> Result<()> + 'a;

/// Writes one file with these tensors to `target`, whole or not at all; `bytes` is asked for each tensor
/// once, in the order of the file, so that only one needs to be in memory.
///
/// Saves of one process to one target take place one after the other, in the order in which they began.
///
/// # Errors
/// Those of [`serialize`]; `Io`, `PermissionDenied`, `NotFound` or `NotRegularFile` if it cannot be written. What
/// was at `target` before is then still there.
pub fn save_file<'a>(
    target: impl AsRef<Path>,
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &SaveOptions,
    mut bytes: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    let mut fill = lazily(&mut bytes);
    save_one(target.as_ref(), tensors, metadata, options, &mut fill)
}

/// Writes one file as [`save_file`] does, by several threads, as the bytes lie in memory. They go past the page cache
/// where that is faster, through at most 32 MiB of memory, and the file then is not in it. Bytes on devices come through the
/// pinned ring: each thread has those of its next write under way while it writes the present ones.
///
/// # Errors
/// Those of [`save_file`], and of `progress`; `Device` where bytes cannot be copied from a device.
pub fn save_views(
    target: impl AsRef<Path>,
    tensors: &[TensorView<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &SaveOptions,
    progress: &mut SaveProgress<'_>,
) -> Result<()> {
    let specs: Vec<TensorSpec<'_>> = tensors.iter().map(|tensor| tensor.spec).collect();
    let mut fill = at_once(tensors, progress);
    save_one(target.as_ref(), &specs, metadata, options, &mut fill)
}

/// Hands the bytes of the tensor at an index of the list that is saved to a function, some at a time.
pub(crate) type TensorStream<'s> =
    dyn FnMut(usize, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> + 's;

/// Writes one file as [`save_file`] does, of tensors that need not be in memory.
pub(crate) fn save_streamed(
    target: &Path,
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &SaveOptions,
    stream: &mut TensorStream<'_>,
) -> Result<()> {
    save_one(target, tensors, metadata, options, &mut streamed(stream))
}

/// Writes shards as [`save_shards`] does, of tensors that need not be in memory.
pub(crate) fn save_streamed_shards(
    target: &Path,
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    max_shard_bytes: u64,
    options: &SaveOptions,
    stream: &mut TensorStream<'_>,
) -> Result<Vec<PathBuf>> {
    let mut fill = streamed(stream);
    save_set(
        target,
        tensors,
        metadata,
        max_shard_bytes,
        options,
        &mut fill,
    )
}

/// The order in which a streamed save asks for tensors.
pub(crate) fn order_of_writes(
    tensors: &[TensorSpec<'_>],
    max_shard_bytes: Option<u64>,
    options: &SaveOptions,
) -> Result<Vec<usize>> {
    let shards = split(tensors, max_shard_bytes.unwrap_or(u64::MAX))?;
    let mut all = Vec::with_capacity(tensors.len());
    for shard in shards {
        let order = layout(&tensors[shard.clone()], None, &options.layout())?.order;
        all.extend(order.into_iter().map(|index| shard.start + index));
    }
    Ok(all)
}

/// What writes the tensors from the given number on that a layout is of.
type Fill<'f> = dyn FnMut(&mut AtomicFile, usize, &[TensorSpec<'_>], &Layout) -> Result<()> + 'f;

fn lazily<'f>(
    bytes: &'f mut TensorBytes<'_, '_>,
) -> impl FnMut(&mut AtomicFile, usize, &[TensorSpec<'_>], &Layout) -> Result<()> + 'f {
    move |file, first, specs, layout| write(specs, layout, file, &mut |index| bytes(first + index))
}

fn streamed<'f>(
    stream: &'f mut TensorStream<'_>,
) -> impl FnMut(&mut AtomicFile, usize, &[TensorSpec<'_>], &Layout) -> Result<()> + 'f {
    move |file, first, specs, layout| {
        file.write(&layout.head)?;
        for &index in &layout.order {
            let mut given = 0;
            stream(first + index, &mut |bytes| {
                given += bytes.len() as u64;
                file.write(bytes)
            })?;
            require_size(&specs[index], layout.offsets[index].len(), given)?;
        }
        Ok(())
    }
}

fn at_once<'f>(
    tensors: &'f [TensorView<'_>],
    progress: &'f mut SaveProgress<'_>,
) -> impl FnMut(&mut AtomicFile, usize, &[TensorSpec<'_>], &Layout) -> Result<()> + 'f {
    let mut n_done = 0;
    move |file, first, specs, layout| {
        let tensors = &tensors[first..first + specs.len()];
        require_sizes(tensors, layout)?;
        let plan = parallel::plan(layout);
        let live = parallel::Live::new(layout, &plan, tensors);
        let (before, head) = (n_done, layout.head.len() as u64);
        parallel::write(file, &plan, 0..plan.n_writes(), &live, &mut |n| {
            progress(before + n.saturating_sub(head))
        })?;
        n_done += layout.file_size - head;
        Ok(())
    }
}

fn require_sizes(tensors: &[TensorView<'_>], layout: &Layout) -> Result<()> {
    tensors
        .iter()
        .zip(&layout.offsets)
        .try_for_each(|(tensor, offsets)| {
            require_size(&tensor.spec, offsets.len(), tensor.data.len() as u64)
        })
}

fn save_one(
    target: &Path,
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    options: &SaveOptions,
    fill: &mut Fill<'_>,
) -> Result<()> {
    let layout = layout(tensors, metadata, &options.layout())?;
    let _turn = Turn::take(target)?;
    prepare(target, 0, tensors, &layout, options.durability, fill)?.commit()
}

/// Writes the file beside `target`, ready to be committed.
fn prepare(
    target: &Path,
    first: usize,
    tensors: &[TensorSpec<'_>],
    layout: &Layout,
    durability: Durability,
    fill: &mut Fill<'_>,
) -> Result<AtomicFile> {
    let mut file = AtomicFile::create(target, Some(layout.file_size), durability)?;
    fill(&mut file, first, tensors, layout)
        .map_err(|error| error.with_file(target.to_string_lossy()))?;
    Ok(file)
}

fn write(
    tensors: &[TensorSpec<'_>],
    layout: &Layout,
    sink: &mut dyn Sink,
    bytes: &mut TensorBytes<'_, '_>,
) -> Result<()> {
    sink.write(&layout.head)?;
    for &index in &layout.order {
        let tensor = &tensors[index];
        let bytes = bytes(index).map_err(|error| error.with_tensor(tensor.name))?;
        require_size(tensor, layout.offsets[index].len(), bytes.len() as u64)?;
        sink.write(&bytes)?;
    }
    Ok(())
}

fn require_size(tensor: &TensorSpec<'_>, expected: u64, given: u64) -> Result<()> {
    if given == expected {
        return Ok(());
    }
    let message = format!("{given} bytes were given for a tensor of {expected}");
    Err(Error::new(ErrorKind::InvalidTensor, message).with_tensor(tensor.name))
}

/// Writes shards of at most `max_shard_bytes` of tensors beside each other, and the index `{stem}.safetensors.index.json` that
/// names them, to `target`: `folder` and `folder/model.safetensors` give `folder/model-00001-of-00003.safetensors` and so on. What
/// fits into one shard becomes the one file `target`. Gives the paths that were written, the index last.
///
/// The folder is made where it is not there. Tensors stay in the order given. The index is the commit: all shards are in place, and durable as asked, before
/// it is renamed, and files of an earlier save that it still names are left alone until then, then removed.
///
/// # Errors
/// Those of [`save_file`].
pub fn save_shards<'a>(
    target: impl AsRef<Path>,
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    max_shard_bytes: u64,
    options: &SaveOptions,
    mut bytes: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<Vec<PathBuf>> {
    let mut fill = lazily(&mut bytes);
    save_set(
        target.as_ref(),
        tensors,
        metadata,
        max_shard_bytes,
        options,
        &mut fill,
    )
}

/// Writes shards as [`save_shards`] does, each as [`save_views`] writes a file.
///
/// # Errors
/// Those of [`save_file`], and of `progress`.
pub fn save_view_shards(
    target: impl AsRef<Path>,
    tensors: &[TensorView<'_>],
    metadata: Option<&[(&str, &str)]>,
    max_shard_bytes: u64,
    options: &SaveOptions,
    progress: &mut SaveProgress<'_>,
) -> Result<Vec<PathBuf>> {
    let specs: Vec<TensorSpec<'_>> = tensors.iter().map(|tensor| tensor.spec).collect();
    let mut fill = at_once(tensors, progress);
    save_set(
        target.as_ref(),
        &specs,
        metadata,
        max_shard_bytes,
        options,
        &mut fill,
    )
}

fn save_set(
    target: &Path,
    tensors: &[TensorSpec<'_>],
    metadata: Option<&[(&str, &str)]>,
    max_shard_bytes: u64,
    options: &SaveOptions,
    fill: &mut Fill<'_>,
) -> Result<Vec<PathBuf>> {
    let _turn = Turn::take(&shard_target(target)?)?;
    let names = ShardNames::of(target)?;
    let shards = split(tensors, max_shard_bytes)?;
    let mut pending = Vec::with_capacity(shards.len());
    for (n, shard) in shards.iter().enumerate() {
        let path = names.path(n, shards.len());
        let part = &tensors[shard.clone()];
        let layout = layout(part, metadata, &options.layout())?;
        let mut file = prepare(&path, shard.start, part, &layout, options.durability, fill)?;
        file.prepare()?;
        pending.push(file);
    }
    let shard_of = shards.iter().enumerate().flat_map(|(n, shard)| {
        tensors[shard.clone()]
            .iter()
            .map(move |tensor| (tensor.name, n))
    });
    names.commit(pending, shard_of, total_size(tensors)?, options.durability)
}
