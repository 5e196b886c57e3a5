//! Checkpoints of other formats: opened without running anything in them, and read by the same engine.

mod stream;

use std::path::{Path, PathBuf};

use tensorhold_convert::{Finding, Foreign, Global, Laid, Lie, Limits, NodeId, Place};
use tensorhold_core::{Dtype, Error, ErrorKind, Header, PlacedTensor, Result, Source, TensorSpec};

pub(crate) use self::stream::{Streamed, Streamer};
use crate::checkpoint::Checkpoint;
use crate::file::{Backend, File};
use crate::save::{SaveOptions, serialize};

/// The key of `__metadata__` under which a file has the tree of its values.
pub const TREE_KEY: &str = "TENSORHOLD_TREE";

/// An open file of another format. Opening reads what describes its values, and no tensor's bytes.
#[derive(Debug)]
pub struct ForeignFile {
    path: PathBuf,
    foreign: Foreign,
    /// The storages that lie in the file as they are, as rows of bytes named by their numbers.
    rows: Checkpoint,
    limits: Limits,
}

/// The values of a foreign file as those of a checkpoint of this format.
pub struct PlacedForeign {
    /// The tensors that lie in the file as they are, with the [tree](TREE_KEY) in the metadata.
    pub checkpoint: Checkpoint,
    /// The others, as a file in memory.
    pub rest: Vec<u8>,
}

impl ForeignFile {
    /// Opens the file at `path` and finds out by its content what it is.
    ///
    /// # Errors
    /// Those of the system; `ForeignFormat` if the format is not known or the file is not as its format asks; `Truncated` if it
    /// ends early; `Overflow` if it asks for more than `limits`.
    pub fn open(path: impl AsRef<Path>, limits: Limits) -> Result<ForeignFile> {
        let path = path.as_ref();
        let mut found = None;
        let file = File::open_as(path, Backend::Pread, |source| {
            let foreign = Foreign::read(source, &limits)?;
            let table = rows_of(&foreign, source.size_bytes());
            found = Some(foreign);
            table
        })?;
        Ok(ForeignFile {
            path: path.to_owned(),
            foreign: found.expect("the table was made of it"),
            rows: Checkpoint::of_files(vec![file])?,
            limits,
        })
    }

    /// Whether the file at `path` begins as one of a foreign format does that is read here, without any doubt; `false` where it cannot
    /// be read.
    #[must_use]
    pub fn is_certain(path: impl AsRef<Path>) -> bool {
        let opened =
            File::open_as(
                path.as_ref(),
                Backend::Pread,
                |source| match Foreign::is_certain(source)? {
                    true => Header::of_placed(&[], None, source.size_bytes()),
                    false => Err(Error::new(ErrorKind::ForeignFormat, "another format")),
                },
            );
        opened.is_ok()
    }

    /// What the pickles of a file that cannot be read had asked for until then, and what was odd about it.
    pub(crate) fn shown(path: &Path, limits: &Limits) -> (Vec<Global>, Vec<Finding>) {
        let mut shown = (Vec::new(), Vec::new());
        // What is wrong with the file is known already.
        let _ = File::open_as(path, Backend::Pread, |source| {
            if let Err(broken) = Foreign::examine(source, limits) {
                shown = (broken.globals, broken.findings);
            }
            Header::of_placed(&[], None, source.size_bytes())
        });
        shown
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was found in it.
    #[must_use]
    pub fn foreign(&self) -> &Foreign {
        &self.foreign
    }

    /// What was found in it, without the file.
    #[must_use]
    pub fn into_foreign(self) -> Foreign {
        self.foreign
    }

    pub(crate) fn foreign_mut(&mut self) -> &mut Foreign {
        &mut self.foreign
    }

    /// The file's bytes.
    pub(crate) fn source(&self) -> &dyn Source {
        self.rows.files()[0].source()
    }

    /// Opens the tensors of the file for loads and slices, each as it lies there; checksums are not looked at. Of a pickled module, and of
    /// a TorchScript program, they are those of its state dict.
    ///
    /// # Errors
    /// Those of [`Foreign::lay_out`]; `Truncated` if the file was changed since it was opened.
    pub fn placed(&mut self, backend: Backend) -> Result<PlacedForeign> {
        let root = self.root_of(self.foreign.tree.root());
        let laid = root.and_then(|root| self.foreign.lay_out(root, Lie::Placed));
        let laid = laid.map_err(|error| error.with_file(self.path.to_string_lossy()))?;
        let mut placed = Vec::new();
        let mut gathered = Vec::new();
        for stored in &laid.stored {
            match self.position_of(stored) {
                Some(start) => placed.push(PlacedTensor {
                    name: &stored.name,
                    dtype: stored.dtype,
                    shape: &stored.shape,
                    start,
                }),
                None => gathered.push(stored),
            }
        }
        let metadata = metadata_of(&laid);
        let metadata: Vec<(&str, &str)> = metadata.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let file = File::open_as(&self.path, backend, |source| {
            Header::of_placed(&placed, Some(&metadata), source.size_bytes())
        })?;
        Ok(PlacedForeign {
            checkpoint: Checkpoint::of_files(vec![file])?,
            rest: self.in_memory(&gathered)?,
        })
    }

    /// What stands for a value as the outermost one: for a module its state dict.
    pub(crate) fn root_of(&mut self, value: NodeId) -> Result<NodeId> {
        let state_dict = self.foreign.state_dict(value, &self.limits)?;
        Ok(state_dict.unwrap_or(value))
    }

    /// Where the elements of a tensor begin in the file, if they lie there as they are wanted.
    fn position_of(&self, stored: &tensorhold_convert::Stored) -> Option<u64> {
        let storage = &self.foreign.storages[stored.view.storage().0 as usize];
        let Place::InFile(range) = storage.place else {
            return None;
        };
        let is_plain = storage.swap_width_bytes <= 1 && stored.view.is_contiguous();
        let offset = stored.view.used_bytes().ok()?.start;
        is_plain.then_some(range.start.checked_add(offset)?)
    }

    /// A file in memory of tensors whose bytes have to be put together.
    fn in_memory(&self, gathered: &[&tensorhold_convert::Stored]) -> Result<Vec<u8>> {
        let spec = |stored: &&tensorhold_convert::Stored| (stored.dtype, stored.shape.clone());
        let shapes: Vec<(Dtype, Vec<u64>)> = gathered.iter().map(spec).collect();
        let specs = gathered
            .iter()
            .zip(&shapes)
            .map(|(stored, (dtype, shape))| TensorSpec {
                name: &stored.name,
                dtype: *dtype,
                shape,
            });
        let specs: Vec<TensorSpec<'_>> = specs.collect();
        let mut streamer = Streamer::new(self);
        serialize(&specs, None, &SaveOptions::default(), |index| {
            let mut bytes = Vec::new();
            streamer.stream(&Streamed::of(gathered[index]), &mut |piece| {
                let refused = bytes.try_reserve(piece.len()).is_err();
                if refused {
                    return Err(Error::new(ErrorKind::NoMemory, "no memory for a tensor"));
                }
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            Ok(bytes.into())
        })
    }
}

/// The metadata of a file with a tree: the tree, and names that stand for others.
pub(crate) fn metadata_of(laid: &Laid) -> Vec<(String, String)> {
    let mut metadata = vec![
        ("format".to_owned(), "pt".to_owned()),
        (TREE_KEY.to_owned(), laid.text.clone()),
    ];
    let tied = laid.tied.iter();
    let tied = tied.filter(|(name, _)| name != "format" && name != TREE_KEY);
    metadata.extend(tied.cloned());
    metadata
}

/// A row of bytes for each storage that lies in the file as it is.
fn rows_of(foreign: &Foreign, file_size: u64) -> Result<Header> {
    let in_file = foreign.storages.iter().enumerate();
    let rows: Vec<(String, [u64; 1], u64)> = in_file
        .filter_map(|(number, storage)| match storage.place {
            Place::InFile(range) => Some((number.to_string(), [range.len()], range.start)),
            _ => None,
        })
        .collect();
    let rows: Vec<PlacedTensor<'_>> = rows
        .iter()
        .map(|(name, shape, start)| PlacedTensor {
            name,
            dtype: Dtype::U8,
            shape,
            start: *start,
        })
        .collect();
    Header::of_placed(&rows, None, file_size)
}
