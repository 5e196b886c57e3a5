//! Whole tensors in chunks, as the ranks of a mesh hold them.
//!
//! ```text
//! for each rank, for each tensor: the boxes of what it holds, but for those that a rank before it holds too
//! refuse what leaves holes
//! write all files under names of their own, then give them their names
//! ```

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tensorhold_core::{
    BoundRules, Error, ErrorKind, Held as Holding, ParallelRules, Result, Share, TensorSpec,
};
use tensorhold_io::{Durability, io_error, sync_folder};

use super::consolidate::borrowed;
use super::read::Windows;
use super::{Assembled, WholeTensor, cover, files, words};
use crate::parallel::CheckpointRules;
use crate::reshard::refuse_own_folder;
use crate::save::{SaveOptions, Turn, save_streamed};

/// More ranks than any checkpoint was ever written by.
const MAX_RANKS: u64 = 1 << 16;
/// What a rank holds of a tensor in more boxes than this would take a file for each.
const MAX_BOXES: u64 = 1 << 12;

type Ranges = Vec<Range<u64>>;

/// Writes the whole tensors of `source` to `folder` as the ranks of a mesh hold them by `rules`, in the files of a distributed checkpoint:
/// one for each rank, and, where a rank holds several boxes of a tensor, further ones for these. What several ranks hold is written for
/// the first of them. All files are complete before any of them gets its name; those of an earlier save go then. `progress` is told the
/// bytes that were written; some MB are in memory at a time. Gives the paths that were written.
///
/// Of a source that has its tensors whole, rules name quantized weights as without quantization, and each rank gets what its share needs
/// of their parts, as it stands there: what a part says of the whole weight it says of the pieces together.
///
/// # Errors
/// Those of [`ParallelRules::bind`], of [`BoundRules::held`](tensorhold_core::BoundRules::held) and of [`Assembled::stream`];
/// `InvalidArgument` with the tensor if no rank would hold a part of it, if the files would lie in the folder of the source, or among
/// others that would be taken for theirs; `Io` and others of a save.
pub fn reshard(
    source: &Assembled,
    rules: &ParallelRules,
    folder: impl AsRef<Path>,
    options: &SaveOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    refuse_own_folder(source.checkpoint(), &folder.join(files::INDEX))?;
    let by_file = divide(source, rules)?;
    let _turn = Turn::take(&folder.join(files::INDEX))?;
    let earlier = earlier(folder)?;
    let metadata = words::metadata_of(source.checkpoint())?;
    let mut files = Unnamed::new(folder);
    let mut windows = Windows::of(source);
    for ((rank, part), chunks) in by_file {
        let mut beside = describe(source, &chunks, &files.key, &metadata);
        if files.names.is_empty() {
            // One file has what the checkpoint says as a whole.
            beside.extend(metadata.clone());
        }
        let path = files.begin(files::name(rank, part));
        write(
            &mut windows,
            source,
            &chunks,
            &path,
            &beside,
            options,
            progress,
        )?;
    }
    files.commit(&earlier, options.durability)
}

/// A box of a tensor that goes into a file.
struct Held {
    tensor: usize,
    ranges: Ranges,
    shape: Vec<u64>,
}

impl Held {
    fn of(tensor: usize, ranges: Ranges) -> Held {
        let shape = ranges.iter().map(|range| range.end - range.start).collect();
        Held {
            tensor,
            ranges,
            shape,
        }
    }
}

/// What goes into each file, by rank and by the number of the rank's file.
fn divide(source: &Assembled, rules: &ParallelRules) -> Result<BTreeMap<(u64, usize), Vec<Held>>> {
    let n_ranks = rules.mesh().n_ranks();
    if n_ranks > MAX_RANKS {
        let message = format!("{n_ranks} ranks are over the limit of {MAX_RANKS}");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let tensors = source.tensors();
    let rules = Bound::of(source, rules)?;
    let mut seen: Vec<HashSet<Ranges>> = vec![HashSet::new(); tensors.len()];
    // The first file is there also where there is no tensor.
    let mut by_file = BTreeMap::from([((0, 0), Vec::new())]);
    for rank in 0..n_ranks {
        let held = rules.held(rank)?;
        for (number, (tensor, held)) in tensors.iter().zip(held).enumerate() {
            let Some(held) = held else {
                continue;
            };
            let boxes = boxes(tensor, &held.share)?;
            let new = boxes
                .into_iter()
                .filter(|ranges| seen[number].insert(ranges.clone()));
            for (part, ranges) in new.enumerate() {
                let chunks = by_file.entry((rank, part)).or_default();
                chunks.push(Held::of(number, ranges));
            }
        }
    }
    for (tensor, seen) in tensors.iter().zip(&seen) {
        require_all(tensor, seen)?;
    }
    Ok(by_file)
}

/// Rules for whole tensors, or for those of a checkpoint, some of which may be parts of quantized weights.
enum Bound<'a> {
    Assembled(BoundRules<'a>),
    Plain(CheckpointRules<'a>),
}

impl<'a> Bound<'a> {
    fn of(source: &'a Assembled, rules: &'a ParallelRules) -> Result<Bound<'a>> {
        let tensors = source.tensors();
        let is_whole = |tensor: &WholeTensor| match &tensor.chunks[..] {
            [chunk] => chunk.ranges == tensor.ranges(),
            _ => false,
        };
        if tensors.iter().all(is_whole) {
            return source.checkpoint().bind(rules).map(Bound::Plain);
        }
        let named = tensors
            .iter()
            .map(|tensor| (&tensor.name[..], &tensor.shape[..]));
        rules.bind(named.collect()).map(Bound::Assembled)
    }

    fn held(&self, rank: u64) -> Result<Vec<Option<Holding>>> {
        match self {
            Bound::Assembled(rules) => rules.held(rank),
            Bound::Plain(rules) => rules.held(rank),
        }
    }
}

/// What a rank holds, in boxes without a gap. A tensor without elements is one box.
fn boxes(tensor: &WholeTensor, share: &Share) -> Result<Vec<Ranges>> {
    if tensor.shape.contains(&0) {
        return Ok(vec![tensor.ranges()]);
    }
    let lines: Vec<Ranges> = share.ranges().iter().map(|line| joined(line)).collect();
    let n_boxes = lines
        .iter()
        .try_fold(1u64, |n_boxes, line| n_boxes.checked_mul(line.len() as u64));
    if n_boxes.is_none_or(|n_boxes| n_boxes > MAX_BOXES) {
        let message = format!("a rank would hold it in over {MAX_BOXES} pieces");
        return Err(Error::new(ErrorKind::InvalidArgument, message).with_tensor(&tensor.name[..]));
    }
    let mut boxes: Vec<Ranges> = vec![Vec::new()];
    for line in lines {
        let longer = boxes.iter().flat_map(|before| {
            line.iter().map(|range| {
                let mut ranges = before.clone();
                ranges.push(range.clone());
                ranges
            })
        });
        boxes = longer.collect();
    }
    Ok(boxes)
}

/// The same positions in as few ranges as can be.
fn joined(line: &[Range<u64>]) -> Ranges {
    let mut joined: Ranges = Vec::with_capacity(line.len());
    for range in line.iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range.clone()),
        }
    }
    joined
}

fn require_all(tensor: &WholeTensor, seen: &HashSet<Ranges>) -> Result<()> {
    let boxes: Vec<&[Range<u64>]> = seen.iter().map(|ranges| &ranges[..]).collect();
    let Err(fault) = cover::check(&tensor.shape, &boxes) else {
        return Ok(());
    };
    let message = match fault {
        cover::Fault::Incomplete { found, wanted } => {
            format!("the ranks would hold {found} of its {wanted} elements")
        }
        _ => "two ranks would hold parts of it that overlap and are not the same".to_owned(),
    };
    Err(Error::new(ErrorKind::InvalidArgument, message).with_tensor(&tensor.name[..]))
}

/// What a file says of its chunks.
fn describe(
    source: &Assembled,
    chunks: &[Held],
    save: &str,
    whole: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let places = chunks.iter().map(|chunk| {
        let tensor = &source.tensors()[chunk.tensor];
        let offsets = chunk.ranges.iter().map(|range| range.start).collect();
        (&tensor.name[..], offsets, &tensor.shape[..])
    });
    words::of_chunks(save, whole, places)
}

/// Writes one file.
fn write(
    windows: &mut Windows<'_>,
    source: &Assembled,
    chunks: &[Held],
    path: &Path,
    metadata: &BTreeMap<String, String>,
    options: &SaveOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let specs: Vec<TensorSpec<'_>> = chunks
        .iter()
        .map(|Held { tensor, shape, .. }| TensorSpec {
            name: &source.tensors()[*tensor].name,
            dtype: source.tensors()[*tensor].dtype,
            shape,
        })
        .collect();
    let metadata = borrowed(metadata);
    save_streamed(
        path,
        &specs,
        metadata.as_deref(),
        options,
        &mut |index, put| {
            let Held { tensor, ranges, .. } = &chunks[index];
            windows.stream(&source.tensors()[*tensor], ranges, &mut |bytes| {
                progress(bytes.len() as u64);
                put(bytes)
            })
        },
    )
}

/// The files that an earlier save has left in the folder, which is made if it is not there.
fn earlier(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)
        .map_err(|error| io_error(error, folder, "create the folder"))?;
    let tensors = files::of_tensors(folder)?;
    let foreign = tensors
        .iter()
        .find(|name| !files::is_of_a_save(&name.to_string_lossy()));
    if let Some(foreign) = foreign {
        let message = "would be taken for a file of the checkpoint that is to be written here";
        return Err(Error::new(ErrorKind::InvalidArgument, message)
            .with_file(folder.join(foreign).to_string_lossy())
            .with_hint("name another folder"));
    }
    let mut names = files::all(folder)?;
    names.retain(|name| {
        let name = name.to_string_lossy();
        files::is_of_a_save(&name) || name == files::INDEX
    });
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// Files of a save that have not got their names yet. They go if they never get them.
struct Unnamed<'a> {
    folder: &'a Path,
    /// Random, so that no other save has it.
    key: String,
    names: Vec<String>,
}

impl<'a> Unnamed<'a> {
    fn new(folder: &'a Path) -> Unnamed<'a> {
        let random = RandomState::new();
        let key = format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1));
        Unnamed {
            folder,
            key,
            names: Vec::new(),
        }
    }

    /// Where the file is written that will have this name.
    fn begin(&mut self, name: String) -> PathBuf {
        let path = self.temporary(&name);
        self.names.push(name);
        path
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}.{}", self.key))
    }

    /// Gives all files their names, and removes those of the save before.
    fn commit(self, earlier: &[PathBuf], durability: Durability) -> Result<Vec<PathBuf>> {
        let mut written = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let path = self.folder.join(name);
            std::fs::rename(self.temporary(name), &path)
                .map_err(|error| io_error(error, &path, "give the file its name"))?;
            written.push(path);
        }
        for path in earlier.iter().filter(|path| !written.contains(path)) {
            std::fs::remove_file(path)
                .map_err(|error| io_error(error, path, "remove the file of an earlier save"))?;
        }
        if durability == Durability::Full {
            sync_folder(self.folder)?;
        }
        Ok(written)
    }
}

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            // The error that ended the save says more than one of a file that was not begun.
            let _ = std::fs::remove_file(self.temporary(name));
        }
    }
}
