//! Many files seen as one table of tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use tensorhold_core::{
    Bounds, Error, ErrorKind, Index, LoadPlan, Request, Result, Selection, ShardIndex, Source,
    TensorInfo,
};
use tensorhold_io::{Buffer, Pread, open_regular};

use crate::file::{File, OpenOptions};
use crate::quantized::Known;
use crate::read;
use crate::subbyte::NarrowTensor;
use crate::transfer::{Memory, Transfer, TransferOptions};

/// A checkpoint: the tensors of one file, of a folder, or of the shards that an index names.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<File>,
    table: Table,
    pub(crate) known: Known,
}

/// One tensor of an open checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    file: &'a File,
    file_index: usize,
    index: usize,
    info: TensorInfo<'a>,
}

impl Checkpoint {
    /// Opens what lies at `path`: a file, an `*.safetensors.index.json`, or a folder with either.
    ///
    /// In a folder, `model.safetensors` comes before an index and an index before a set of files, as the
    /// loaders of Hugging Face choose. Only headers are read.
    ///
    /// # Errors
    /// Those of [`File::open`]; `InvalidIndex` if an index names a shard or tensor that is not there;
    /// `DuplicateTensor` if two files hold the same name.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Checkpoint> {
        let path = path.as_ref();
        if path.is_dir() {
            return match contents_of(path)? {
                Contents::Index(index) => open_index(&index, options),
                Contents::Files(files) => Checkpoint::open_files(&files, options),
            };
        }
        match path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            true => open_index(path, options),
            false => Checkpoint::open_files(&[path], options),
        }
    }

    /// Opens several files as one checkpoint.
    ///
    /// # Errors
    /// Those of [`File::open`]; `DuplicateTensor` if two files hold the same name.
    pub fn open_files(paths: &[impl AsRef<Path>], options: &OpenOptions) -> Result<Checkpoint> {
        let files: Result<Vec<File>> = paths
            .iter()
            .map(|path| File::open(path.as_ref(), options))
            .collect();
        Checkpoint::of_files(files?)
    }

    /// Opens several files that may hold pieces of the same tensors, each under the tensor's name, as those that ranks have written.
    ///
    /// Of a name in several files the first is [found](Checkpoint::find); [`tensor_in`](Checkpoint::tensor_in) finds all.
    ///
    /// # Errors
    /// Those of [`File::open`].
    pub fn open_pieces(paths: &[impl AsRef<Path>], options: &OpenOptions) -> Result<Checkpoint> {
        let files: Result<Vec<File>> = paths
            .iter()
            .map(|path| File::open(path.as_ref(), options))
            .collect();
        let files = files?;
        let table = Table::of(&files, Repeated::Allowed)?;
        Ok(Checkpoint {
            files,
            table,
            known: Known::default(),
        })
    }

    /// Several files that are open already as one checkpoint.
    ///
    /// # Errors
    /// `DuplicateTensor` if two files hold the same name.
    pub fn of_files(files: Vec<File>) -> Result<Checkpoint> {
        let table = Table::of(&files, Repeated::Refused)?;
        Ok(Checkpoint {
            files,
            table,
            known: Known::default(),
        })
    }

    /// The files, in the order in which their tensors are listed.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// How many tensors there are in all files.
    #[must_use]
    pub fn n_tensors(&self) -> usize {
        self.files.iter().map(|file| file.header().len()).sum()
    }

    /// How many bytes the tensors of all files take.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.files
            .iter()
            .map(|file| file.header().data_size())
            .sum()
    }

    /// The keys of the metadata that have different values in two files, of which [`metadata`](Checkpoint::metadata)
    /// gives the first.
    #[must_use]
    pub fn ambiguous_metadata(&self) -> BTreeSet<&str> {
        let first = self.metadata();
        self.files
            .iter()
            .filter_map(|file| file.header().metadata())
            .flat_map(|metadata| metadata.iter())
            .filter(|(key, value)| first.get(key) != Some(value))
            .map(|(key, _)| key)
            .collect()
    }

    /// The `__metadata__` of all files, by key; of a key in several, the first file's value.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<&str, &str> {
        let mut all = BTreeMap::new();
        for metadata in self
            .files
            .iter()
            .filter_map(|file| file.header().metadata())
        {
            for (key, value) in metadata.iter() {
                all.entry(key).or_insert(value);
            }
        }
        all
    }

    /// All tensors: file after file, in each in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.files
            .iter()
            .enumerate()
            .flat_map(|(file_index, file)| {
                let tensors = file.header().tensors().enumerate();
                tensors.map(move |(index, info)| Tensor {
                    file,
                    file_index,
                    index,
                    info,
                })
            })
    }

    /// The tensor with this name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Tensor<'_>> {
        let (file_index, index) = self.table.find(&self.files, name)?;
        let file = self.files.get(file_index)?;
        Some(Tensor {
            file,
            file_index,
            index,
            info: file.header().tensor_at(index)?,
        })
    }

    /// The tensor with this name.
    ///
    /// # Errors
    /// `TensorNotFound`, with the nearest name there is as a hint.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.find(name).ok_or_else(|| {
            Error::new(ErrorKind::TensorNotFound, "there is no such tensor")
                .with_tensor(name)
                .with_file(self.name())
        })
    }

    /// The tensor, or the piece of it, that has this name in the file of this index.
    ///
    /// # Errors
    /// `TensorNotFound`.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn tensor_in(&self, file_index: usize, name: &str) -> Result<Tensor<'_>> {
        let file = &self.files[file_index];
        let header = file.header();
        let found = header.index_of(name).and_then(|index| {
            Some(Tensor {
                file,
                file_index,
                index,
                info: header.tensor_at(index)?,
            })
        });
        found.ok_or_else(|| {
            Error::new(ErrorKind::TensorNotFound, "there is no such tensor")
                .with_tensor(name)
                .with_file(file.path().to_string_lossy())
        })
    }

    /// A plan over the files of this checkpoint, in their order, that wants nothing yet.
    #[must_use]
    pub fn plan(&self) -> LoadPlan {
        let mut plan = LoadPlan::new();
        for file in &self.files {
            plan.add_file(&file.path().to_string_lossy(), Arc::clone(file.header()));
        }
        plan
    }

    /// How errors call the checkpoint: the path of its first file.
    fn name(&self) -> String {
        self.files.first().map_or_else(String::new, |file| {
            file.path().to_string_lossy().into_owned()
        })
    }
}

impl<'a> Tensor<'a> {
    /// Name, dtype, shape and place.
    #[must_use]
    pub fn info(&self) -> TensorInfo<'a> {
        self.info
    }

    /// The file that holds it.
    #[must_use]
    pub fn file(&self) -> &'a File {
        self.file
    }

    /// The index of that file in [`Checkpoint::files`].
    #[must_use]
    pub fn file_index(&self) -> usize {
        self.file_index
    }

    /// Its number in that file, in the order of the bytes.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// What it holds, if it is one of integers narrower than a byte: its own type and shape are those of the bytes.
    #[must_use]
    pub fn narrow(&self) -> Option<&'a NarrowTensor> {
        self.file.narrow_tensors().get(self.index)
    }

    /// A request for all of it, in a [plan](Checkpoint::plan) over its checkpoint.
    #[must_use]
    pub fn request(&self) -> Request {
        Request::whole(self.file_index, self.index)
    }

    /// Its bytes where they lie, if the file is mapped.
    #[must_use]
    pub fn mapped_bytes(&self) -> Option<&'a [u8]> {
        let bytes = self.file.map()?.as_bytes();
        let start = self.file.header().data_start() + self.info.offsets.start;
        let end = start + self.info.size_bytes();
        bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    /// Its bytes, read into memory of their own.
    ///
    /// # Errors
    /// `Truncated` or `Io`.
    pub fn read(&self) -> Result<Vec<u8>> {
        read::read_whole(self)
    }

    /// The bytes of a slice of it, and the slice's shape. Ranges past the end are clamped, as numpy does.
    ///
    /// # Errors
    /// `InvalidSlice` if the index does not fit, `Truncated` or `Io`.
    pub fn read_slice(&self, index: &[Index]) -> Result<(Vec<u64>, Vec<u8>)> {
        let selection =
            Selection::resolve(self.info.dtype, self.info.shape, index, Bounds::Clamped)
                .map_err(|error| self.file.blame(&self.info, error))?;
        let mut bytes = read::allocate(selection.size_bytes())?;
        read::read_selection(self, &selection, &mut bytes)?;
        Ok((selection.shape().to_vec(), bytes))
    }

    /// The bytes of `selection`, which was resolved against this tensor, in memory of their own, read by as many threads as
    /// they deserve.
    ///
    /// # Errors
    /// `InvalidArgument` if the selection is of another tensor; `NoMemory`, `Truncated` or `Io`.
    pub fn load(&self, selection: Selection) -> Result<Buffer> {
        let mut plan = LoadPlan::new();
        let name = self.file.path().to_string_lossy();
        let file = plan.add_file(&name, Arc::clone(self.file.header()));
        plan.add_new(Request::whole(file, self.index).part(selection))?;
        let files = std::slice::from_ref(self.file);
        let options = TransferOptions::default();
        let (mut buffers, _) = Transfer::run(plan, files, Vec::new(), options, &mut |_| Ok(()))?;
        let buffer = buffers.pop().and_then(Memory::into_host);
        Ok(buffer.expect("the plan has one buffer, of the host"))
    }

    /// Fills `into` with the bytes of `selection`, which was resolved against this tensor.
    ///
    /// # Errors
    /// `InvalidArgument` if `into` has another size; `Truncated` or `Io`.
    pub fn read_into(&self, selection: &Selection, into: &mut [u8]) -> Result<()> {
        read::read_selection(self, selection, into)
    }
}

enum Contents {
    Index(PathBuf),
    Files(Vec<PathBuf>),
}

fn contents_of(folder: &Path) -> Result<Contents> {
    let mut indexes = Vec::new();
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder)
        .map_err(|error| tensorhold_io::io_error(error, folder, "list the folder"))?;
    for entry in entries {
        let entry =
            entry.map_err(|error| tensorhold_io::io_error(error, folder, "list the folder"))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "model.safetensors" {
            return Ok(Contents::Files(vec![entry.path()]));
        }
        if name.ends_with(".safetensors.index.json") {
            indexes.push(entry.path());
        } else if name.ends_with(".safetensors") {
            files.push(entry.path());
        }
    }
    indexes.sort();
    files.sort();
    choose(folder, indexes, files)
}

fn choose(folder: &Path, indexes: Vec<PathBuf>, files: Vec<PathBuf>) -> Result<Contents> {
    let usual = folder.join("model.safetensors.index.json");
    if indexes.contains(&usual) {
        return Ok(Contents::Index(usual));
    }
    match (indexes.len(), files.is_empty()) {
        (1, _) => Ok(Contents::Index(
            indexes.into_iter().next().expect("there is exactly one"),
        )),
        (0, false) => Ok(Contents::Files(files)),
        (0, true) => Err(Error::new(
            ErrorKind::NotFound,
            "no `*.safetensors` file and no `*.safetensors.index.json` is in this folder",
        )
        .with_file(folder.to_string_lossy())),
        (n, _) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{n} index files are in this folder, and none is `model.safetensors.index.json`"
            ),
        )
        .with_file(folder.to_string_lossy())
        .with_hint("name the index file that you mean")),
    }
}

fn open_index(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    open_shards(path, options).map_err(|error| error.with_file(path.to_string_lossy()))
}

fn open_shards(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let text = read_index(path)?;
    let index = ShardIndex::parse(&text)?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let paths: Vec<PathBuf> = index
        .shards()
        .iter()
        .map(|shard| folder.join(shard))
        .collect();
    for (shard, path) in index.shards().iter().zip(&paths) {
        if !path.exists() {
            return Err(Error::new(
                ErrorKind::InvalidIndex,
                format!("shard `{shard}` is named by the index, but is not in its folder"),
            )
            .with_hint("the download is incomplete; fetch the missing file"));
        }
    }
    let checkpoint = Checkpoint::open_files(&paths, options)?;
    check_index(&index, &checkpoint)?;
    Ok(checkpoint)
}

/// An index.json lists 200 000 tensors in about 20 MB; ten times that is no index.
const MAX_INDEX_BYTES: u64 = 200_000_000;

pub(crate) fn read_index(path: &Path) -> Result<Vec<u8>> {
    let source = Pread::new(open_regular(path)?)?;
    let size = source.size_bytes();
    if size > MAX_INDEX_BYTES {
        let message = format!("an index of {size} bytes is over the limit of {MAX_INDEX_BYTES}");
        return Err(Error::new(ErrorKind::InvalidIndex, message));
    }
    let mut text = read::allocate(size)?;
    source.read_at(0, &mut text)?;
    Ok(text)
}

fn check_index(index: &ShardIndex, checkpoint: &Checkpoint) -> Result<()> {
    let mut n_listed = 0;
    for (name, shard) in index.entries() {
        n_listed += 1;
        let found = checkpoint.find(name).map(|tensor| tensor.file_index());
        if found == Some(shard) {
            continue;
        }
        let listed = &index.shards()[shard];
        let message = match found {
            Some(other) => format!(
                "is listed in shard `{listed}`, but lies in `{}`",
                index.shards()[other]
            ),
            None => format!("is listed in shard `{listed}`, which does not hold it"),
        };
        return Err(
            Error::new(ErrorKind::InvalidIndex, format!("a tensor {message}")).with_tensor(name),
        );
    }
    match checkpoint.n_tensors() == n_listed {
        true => Ok(()),
        false => Err(unlisted(index, checkpoint)),
    }
}

fn unlisted(index: &ShardIndex, checkpoint: &Checkpoint) -> Error {
    let extra = checkpoint
        .tensors()
        .find(|tensor| index.shard_of(tensor.info().name).is_none());
    let (name, file) = extra.map_or(("", ""), |tensor| {
        (
            tensor.info().name,
            index.shards()[tensor.file_index()].as_str(),
        )
    });
    Error::new(
        ErrorKind::InvalidIndex,
        format!("shard `{file}` holds a tensor that the index does not list"),
    )
    .with_tensor(name)
    .with_hint(
        "the shards and the index come from different saves; open the file itself if you want it",
    )
}

/// Finds a name in many files with one look-up. One file needs no table of its own.
#[derive(Debug)]
struct Table {
    hasher: DefaultHashBuilder,
    places: HashTable<(u32, u32)>,
}

/// Whether a name may be in several files.
#[derive(Clone, Copy, PartialEq)]
enum Repeated {
    Refused,
    Allowed,
}

impl Table {
    fn of(files: &[File], repeated: Repeated) -> Result<Table> {
        let hasher = DefaultHashBuilder::default();
        // One file has an index of its own.
        let n_tensors = match files {
            [_] => 0,
            files => files.iter().map(|file| file.header().len()).sum(),
        };
        let mut places = HashTable::with_capacity(n_tensors);
        if files.len() > 1 {
            for (file_index, file) in (0u32..).zip(files) {
                for (tensor_index, info) in (0u32..).zip(file.header().tensors()) {
                    let place = (file_index, tensor_index);
                    let inserted = insert(&hasher, &mut places, files, info, place);
                    if repeated == Repeated::Refused {
                        inserted?;
                    }
                }
            }
        }
        Ok(Table { hasher, places })
    }

    fn find(&self, files: &[File], name: &str) -> Option<(usize, usize)> {
        if let [file] = files {
            return Some((0, file.header().index_of(name)?));
        }
        let hash = self.hasher.hash_one(name);
        let place = self
            .places
            .find(hash, |place| name_at(files, *place) == name)?;
        Some((place.0 as usize, place.1 as usize))
    }
}

fn insert(
    hasher: &DefaultHashBuilder,
    places: &mut HashTable<(u32, u32)>,
    files: &[File],
    info: TensorInfo<'_>,
    place: (u32, u32),
) -> Result<()> {
    let hash = hasher.hash_one(info.name);
    if let Some(first) = places.find(hash, |other| name_at(files, *other) == info.name) {
        let path = files[first.0 as usize].path().display();
        return Err(Error::new(
            ErrorKind::DuplicateTensor,
            format!("a tensor lies in `{path}` already"),
        )
        .with_file(files[place.0 as usize].path().to_string_lossy())
        .with_tensor(info.name)
        .with_hint("these files are not shards of one checkpoint; open one, or its index"));
    }
    places.insert_unique(hash, place, |other| hasher.hash_one(name_at(files, *other)));
    Ok(())
}

fn name_at(files: &[File], (file, tensor): (u32, u32)) -> &str {
    files[file as usize]
        .header()
        .tensor_at(tensor as usize)
        .map_or("", |info| info.name)
}
