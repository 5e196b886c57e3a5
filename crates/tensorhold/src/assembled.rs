//! Whole tensors, of which files hold chunks: what the ranks of a group have saved, seen as one checkpoint.
//!
//! The files are those of PyTorch's distributed checkpoints in safetensors files: each has chunks of tensors under the tensors' names,
//! and says in its metadata where in the whole they lie. A plain checkpoint is one too, with one chunk of each tensor.

mod consolidate;
mod cover;
mod files;
mod read;
mod reshard;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tensorhold_core::{Dtype, Error, ErrorKind, Request, Result, shape_size_bytes};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::file::OpenOptions;

pub use consolidate::consolidate;
pub use files::existing_chunks;
pub use reshard::reshard;

/// A checkpoint by its whole tensors, of each of which files hold one or more chunks.
#[derive(Debug)]
pub struct Assembled {
    checkpoint: Checkpoint,
    tensors: Vec<WholeTensor>,
    by_name: HashMap<String, usize>,
}

/// A tensor, all of whose elements are in the files, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The shape of the whole.
    pub shape: Vec<u64>,
    /// What the files hold of it.
    pub chunks: Vec<Chunk>,
}

/// A box of a tensor, in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The file, in [`Checkpoint::files`].
    pub file: usize,
    /// The number of the chunk in that file, in the order of the bytes.
    pub index: usize,
    /// Of each dimension of the whole, the positions that it has.
    pub ranges: Vec<Range<u64>>,
}

impl WholeTensor {
    /// The bytes of the whole.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        shape_size_bytes(self.dtype, &self.shape).expect("it was counted when it was assembled")
    }

    /// All of it, as ranges of its dimensions.
    #[must_use]
    pub fn ranges(&self) -> Vec<Range<u64>> {
        self.shape.iter().map(|&size| 0..size).collect()
    }
}

impl Assembled {
    /// Opens what lies at `path`: of a folder in which ranks have saved, all files; otherwise what [`Checkpoint::open`] opens.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`] and of [`assemble`].
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Assembled> {
        let path = path.as_ref();
        match files::of_ranks(path)? {
            Some(paths) => Assembled::open_files(&paths, options),
            None => Assembled::new(Checkpoint::open(path, options)?),
        }
    }

    /// Opens these files.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open_pieces`] and of [`assemble`].
    pub fn open_files(paths: &[PathBuf], options: &OpenOptions) -> Result<Assembled> {
        Assembled::new(Checkpoint::open_pieces(paths, options)?)
    }

    fn new(checkpoint: Checkpoint) -> Result<Assembled> {
        let tensors = assemble(&checkpoint)?;
        let numbered = tensors.iter().enumerate();
        let by_name = numbered
            .map(|(number, tensor)| (tensor.name.clone(), number))
            .collect();
        Ok(Assembled {
            checkpoint,
            tensors,
            by_name,
        })
    }

    /// The files.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The tensors, in the order in which the files have them first.
    #[must_use]
    pub fn tensors(&self) -> &[WholeTensor] {
        &self.tensors
    }

    /// The tensor with this name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&WholeTensor> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// The bytes of all whole tensors.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.tensors.iter().map(WholeTensor::size_bytes).sum()
    }

    /// What reads a box of `tensor` by a [plan](Checkpoint::plan) over [the files](Assembled::checkpoint): requests for the parts of the
    /// chunks that meet it, placed as the box lies row by row from the first byte of `buffer` on. What does not lie
    /// side by side there is a request for each row.
    ///
    /// # Errors
    /// `InvalidArgument` if the box is none of the tensor's; `Misaligned` if a chunk ends inside a byte; `InvalidSlice` if it would take
    /// too many requests.
    pub fn requests(
        &self,
        tensor: &WholeTensor,
        ranges: &[Range<u64>],
        buffer: usize,
    ) -> Result<Vec<Request>> {
        read::requests(self, tensor, ranges, buffer)
    }

    /// Hands the bytes of a box of `tensor` to `put`, row by row, some MB at a time.
    ///
    /// # Errors
    /// `InvalidArgument` if the box is none of the tensor's; `Misaligned` if a chunk ends inside a byte; `Truncated`, `Io`, and those of
    /// `put`.
    pub fn stream(
        &self,
        tensor: &WholeTensor,
        ranges: &[Range<u64>],
        put: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        read::Windows::of(self).stream(tensor, ranges, put)
    }
}

/// The whole tensors of which the files of `checkpoint` hold chunks.
///
/// # Errors
/// `HeaderJson` if a file's metadata does not say where its chunks lie, `InvalidTensor` if files of two saves are mixed, or with the file
/// and the tensor if elements of it are in no file, or in two.
pub fn assemble(checkpoint: &Checkpoint) -> Result<Vec<WholeTensor>> {
    let files = checkpoint.files();
    let saves: BTreeSet<Option<&str>> = files.iter().map(words::save_of).collect();
    if saves.len() > 1 {
        let message = format!("the folder has files of {} saves", saves.len());
        let folder = files[0].path().parent().unwrap_or(files[0].path());
        return Err(
            Error::new(ErrorKind::InvalidTensor, message).with_file(folder.to_string_lossy())
        );
    }
    let mut found: Vec<Found> = Vec::new();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut tensors = checkpoint.tensors().peekable();
    for (number, file) in files.iter().enumerate() {
        let sharding = words::sharding_of(file)?;
        while let Some(tensor) = tensors.next_if(|tensor| tensor.file_index() == number) {
            let name = tensor.info().name;
            let number = *by_name.entry(name).or_insert_with(|| {
                found.push(Found::of(&tensor));
                found.len() - 1
            });
            found[number].add(&tensor, sharding.get(name))?;
        }
    }
    found
        .into_iter()
        .map(|found| found.whole(checkpoint))
        .collect()
}

/// The chunks of a tensor that were found so far.
struct Found {
    name: String,
    dtype: Dtype,
    shape: Option<Vec<u64>>,
    chunks: Vec<Chunk>,
}

impl Found {
    fn of(first: &Tensor<'_>) -> Found {
        let info = first.info();
        Found {
            name: info.name.to_owned(),
            dtype: info.dtype,
            shape: None,
            chunks: Vec::new(),
        }
    }

    fn add(&mut self, tensor: &Tensor<'_>, said: Option<&words::Place>) -> Result<()> {
        let info = tensor.info();
        let refuse = |what: String| Err(wrong(tensor.file().path(), info.name, what));
        let none = vec![0; info.shape.len()];
        let offsets = said.map_or(&none, |place| &place.offsets);
        let shape = said.and_then(|place| place.shape.as_ref());
        let differs = |other: &Vec<u64>| self.shape.as_ref().is_some_and(|known| known != other);
        if offsets.len() != info.shape.len() || shape.is_some_and(differs) {
            return refuse("has chunks of different shapes".into());
        }
        if info.dtype != self.dtype {
            let known = self.dtype;
            return refuse(format!(
                "is {} here, and {known} in another file",
                info.dtype
            ));
        }
        let ranges = offsets.iter().zip(info.shape).map(|(&start, &size)| {
            let end = start.checked_add(size)?;
            Some(start..end)
        });
        let Some(ranges) = ranges.collect() else {
            return refuse("has a chunk that ends past 2^64".into());
        };
        self.shape = self.shape.take().or_else(|| shape.cloned());
        self.chunks.push(Chunk {
            file: tensor.file_index(),
            index: tensor.index(),
            ranges,
        });
        Ok(())
    }

    fn whole(self, checkpoint: &Checkpoint) -> Result<WholeTensor> {
        let Found {
            name,
            dtype,
            shape,
            chunks,
        } = self;
        let refuse = |chunk: usize, what: String| {
            let file = &checkpoint.files()[chunks[chunk].file];
            wrong(file.path(), &name, what)
        };
        let boxes: Vec<&[Range<u64>]> = chunks.iter().map(|chunk| &chunk.ranges[..]).collect();
        let Some(reach) = cover::reach(&boxes) else {
            return Err(refuse(
                0,
                "has chunks of different numbers of dimensions".into(),
            ));
        };
        let shape = shape.unwrap_or(reach);
        if let Err(error) = shape_size_bytes(dtype, &shape) {
            return Err(refuse(
                0,
                format!("cannot be put together: {}", error.message()),
            ));
        }
        if let Err(fault) = cover::check(&shape, &boxes) {
            return Err(refuse(fault.chunk(), fault.to_string()));
        }
        Ok(WholeTensor {
            name,
            dtype,
            shape,
            chunks,
        })
    }
}

fn wrong(file: &Path, tensor: &str, what: String) -> Error {
    Error::new(ErrorKind::InvalidTensor, format!("a tensor {what}"))
        .with_file(file.to_string_lossy())
        .with_tensor(tensor)
        .with_hint("a file of the save is missing, or is of another save")
}
