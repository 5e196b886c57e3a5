//! Writes tensors as they come, when their number and sizes are not known before.
//!
//! The header of a file stands before its data, but is known last. So room is reserved for it: data goes to the file
//! behind the reserve, and the header is put in front at the end, padded with spaces up to the data. What is small
//! is kept in memory instead and written without a reserve. Where a header outgrows its reserve, the file is written
//! once more with enough.

use std::path::{Path, PathBuf};

use tensorhold_core::{
    Dtype, Error, ErrorKind, LENGTH_BYTES, Layout, LayoutOptions, Order, Result, Sink, TensorSpec,
    layout, shape_size_bytes,
};
use tensorhold_io::{AtomicFile, Durability};

use crate::save::{Pieces, SaveOptions, ShardNames, TensorData, TensorView, Turn, shard_target};

/// Up to this much is kept in memory before a file is begun.
const HELD_BYTES: u64 = 16 << 20;
/// The room for a header: some 8 000 tensors.
const RESERVE_BYTES: u64 = 1 << 20;

/// How tensors are written as they come.
#[derive(Debug, Clone, Copy, Default)]
pub struct StreamOptions {
    /// Alignment and durability.
    pub save: SaveOptions,
    /// A new shard begins where the tensors of one would take more bytes.
    pub max_shard_bytes: Option<u64>,
}

/// A checkpoint that is written tensor by tensor; nothing is at the target until [`StreamWriter::finish`]. Other
/// saves of this process to the same target wait until this is finished or dropped.
pub struct StreamWriter {
    target: PathBuf,
    /// Where files are begun: the target, or a name beside it until the number of shards is known.
    place: PathBuf,
    metadata: Option<Vec<(String, String)>>,
    options: StreamOptions,
    names: std::collections::HashSet<String>,
    open: Shard,
    closed: Vec<Closed>,
    total_size: u64,
    /// A tensor is there in part.
    is_broken: bool,
    /// Held until the checkpoint is in place.
    _turn: Turn,
}

/// The shard that is being written.
#[derive(Default)]
struct Shard {
    tensors: Vec<Spec>,
    held: Vec<u8>,
    file: Option<AtomicFile>,
    size: u64,
    reserve: u64,
}

struct Closed {
    file: AtomicFile,
    tensors: Vec<Spec>,
}

struct Spec {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
}

impl StreamWriter {
    /// Begins a checkpoint at `target`, a path that ends in `.safetensors` where shards are asked for.
    ///
    /// # Errors
    /// `InvalidArgument` for another path with shards.
    pub fn create(
        target: impl AsRef<Path>,
        metadata: Option<&[(&str, &str)]>,
        options: StreamOptions,
    ) -> Result<StreamWriter> {
        let target = target.as_ref().to_owned();
        let (turn, place) = match options.max_shard_bytes {
            Some(_) => {
                let turn = Turn::take(&shard_target(&target)?)?;
                (turn, ShardNames::of(&target)?.unnumbered())
            }
            None => (Turn::take(&target)?, target.clone()),
        };
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let metadata = metadata.map(|metadata| metadata.iter().map(own).collect());
        Ok(StreamWriter {
            target,
            place,
            metadata,
            options,
            names: std::collections::HashSet::new(),
            open: Shard::default(),
            closed: Vec::new(),
            total_size: 0,
            is_broken: false,
            _turn: turn,
        })
    }

    /// Sets an entry of the metadata, or removes it, for this shard and those that come.
    pub fn set_metadata(&mut self, key: &str, value: Option<String>) {
        let metadata = self.metadata.get_or_insert_default();
        metadata.retain(|(known, _)| known != key);
        metadata.extend(value.map(|value| (key.to_owned(), value)));
    }

    /// Takes the next tensor.
    ///
    /// # Errors
    /// `DuplicateTensor`; `InvalidTensor` if `bytes` are not as many as shape and dtype ask for; `Io`.
    pub fn push(&mut self, name: &str, dtype: Dtype, shape: &[u64], bytes: &[u8]) -> Result<()> {
        self.push_checked(name, dtype, shape, bytes.into())
            .map_err(|error| {
                error
                    .with_tensor(name)
                    .with_file(self.target.to_string_lossy())
            })
    }

    /// Takes the next tensor, wherever its bytes lie. From a device they come piece by piece through the pinned ring.
    ///
    /// # Errors
    /// Those of [`push`](StreamWriter::push); `Device` where bytes cannot be copied from a device. Of a tensor that failed
    /// half-way the checkpoint cannot be rid of again: what is called next fails too.
    pub fn push_view(&mut self, tensor: &TensorView<'_>) -> Result<()> {
        let TensorSpec { name, dtype, shape } = tensor.spec;
        self.push_checked(name, dtype, shape, tensor.data)
            .map_err(|error| {
                error
                    .with_tensor(name)
                    .with_file(self.target.to_string_lossy())
            })
    }

    fn push_checked(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[u64],
        data: TensorData<'_>,
    ) -> Result<()> {
        self.require_whole()?;
        let expected = shape_size_bytes(dtype, shape)?;
        if data.len() as u64 != expected {
            let message = format!("{} bytes were given for a tensor of {expected}", data.len());
            return Err(Error::new(ErrorKind::InvalidTensor, message));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(Error::new(
                ErrorKind::DuplicateTensor,
                "the name was given twice",
            ));
        }
        let full = |max: u64| {
            !self.open.tensors.is_empty() && self.open.size.saturating_add(expected) > max
        };
        if self.options.max_shard_bytes.is_some_and(full) {
            self.close()?;
        }
        self.append(data)?;
        self.open.tensors.push(Spec {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        });
        self.total_size = self.total_size.saturating_add(expected);
        Ok(())
    }

    fn append(&mut self, data: TensorData<'_>) -> Result<()> {
        let SaveOptions { align, durability } = self.options.save;
        let align = u64::from(align.unwrap_or(1));
        let (open, place) = (&mut self.open, &self.place);
        let mut append = |bytes: &[u8]| open.append(bytes, place, durability, align);
        self.is_broken = true;
        match data {
            TensorData::Host(bytes) => append(bytes)?,
            TensorData::Device(view) => Pieces(view).for_each(append)?,
        }
        self.is_broken = false;
        Ok(())
    }

    /// Completes the checkpoint and puts it in place. Gives the paths that were written, the index last.
    ///
    /// # Errors
    /// As a save: what was at the target before is then still there.
    pub fn finish(mut self) -> Result<Vec<PathBuf>> {
        self.require_whole()?;
        if self.closed.is_empty() || !self.open.tensors.is_empty() {
            self.close()?;
        }
        if self.options.max_shard_bytes.is_none() {
            for closed in self.closed {
                closed.file.commit()?;
            }
            return Ok(vec![self.target]);
        }
        let (files, shards): (Vec<AtomicFile>, Vec<Vec<Spec>>) = self
            .closed
            .into_iter()
            .map(|closed| (closed.file, closed.tensors))
            .unzip();
        let shard_of = shards.iter().enumerate();
        let shard_of = shard_of
            .flat_map(|(n, tensors)| tensors.iter().map(move |tensor| (tensor.name.as_str(), n)));
        let durability = self.options.save.durability;
        ShardNames::of(&self.target)?.commit(files, shard_of, self.total_size, durability)
    }

    fn require_whole(&self) -> Result<()> {
        if !self.is_broken {
            return Ok(());
        }
        let message = "a tensor was written in part only: begin the checkpoint anew";
        Err(Error::new(ErrorKind::Io, message).with_file(self.target.to_string_lossy()))
    }

    fn close(&mut self) -> Result<()> {
        let shard = std::mem::take(&mut self.open);
        let metadata: Option<Vec<(&str, &str)>> = self.metadata.as_ref().map(|all| {
            all.iter()
                .map(|(key, value)| (&key[..], &value[..]))
                .collect()
        });
        let align = self.options.save.align;
        let specs: Vec<TensorSpec<'_>> = shard.tensors.iter().map(Spec::borrow).collect();
        let layout = layout(
            &specs,
            metadata.as_deref(),
            &LayoutOptions {
                align,
                order: Order::Given,
            },
        )?;
        let durability = self.options.save.durability;
        let mut file = match shard.file {
            None => write_held(&self.place, &layout, &shard.held, durability)?,
            Some(file) => put_in_front(file, &layout, shard.reserve, &self.place, durability)?,
        };
        file.prepare()?;
        self.closed.push(Closed {
            file,
            tensors: shard.tensors,
        });
        Ok(())
    }
}

impl Spec {
    fn borrow(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            dtype: self.dtype,
            shape: &self.shape,
        }
    }
}

impl Shard {
    fn append(
        &mut self,
        bytes: &[u8],
        target: &Path,
        durability: Durability,
        align: u64,
    ) -> Result<()> {
        self.size += bytes.len() as u64;
        if self.file.is_none() && self.size > HELD_BYTES {
            self.reserve = RESERVE_BYTES.next_multiple_of(align);
            let mut file = AtomicFile::create(target, None, durability)?;
            write_zeros(&mut file, self.reserve)?;
            file.write(&std::mem::take(&mut self.held))?;
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write(bytes),
            None => {
                self.held.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

fn write_zeros(file: &mut AtomicFile, count: u64) -> Result<()> {
    let zeros = [0; 4096];
    let mut left = count;
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        file.write(&zeros[..usize::try_from(now).expect("at most 4096")])?;
        left -= now;
    }
    Ok(())
}

fn write_held(
    target: &Path,
    layout: &Layout,
    held: &[u8],
    durability: Durability,
) -> Result<AtomicFile> {
    let mut file = AtomicFile::create(target, Some(layout.file_size), durability)?;
    file.write(&layout.head)?;
    file.write(held)?;
    Ok(file)
}

/// Puts the header before the data, which begins at `reserve` of `file`.
fn put_in_front(
    mut file: AtomicFile,
    layout: &Layout,
    reserve: u64,
    target: &Path,
    durability: Durability,
) -> Result<AtomicFile> {
    let head_len = layout.head.len() as u64;
    if head_len > reserve {
        let mut larger = AtomicFile::create(target, Some(layout.file_size), durability)?;
        larger.write(&layout.head)?;
        file.copy_to(reserve, &mut larger)?;
        return Ok(larger);
    }
    let mut head = layout.head.clone();
    let padded = usize::try_from(reserve).expect("a reserve of about 1 MiB");
    head.resize(padded, b' ');
    let length = reserve - LENGTH_BYTES;
    head[..8].copy_from_slice(&length.to_le_bytes());
    file.write_at(0, &head)?;
    Ok(file)
}
