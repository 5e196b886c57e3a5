//! Checkpoints of other formats as files of this one.
//!
//! ```text
//! open each source: its values, and where their bytes lie
//! say what is to be stored
//! write that tensor by tensor, some MB in memory at a time
//! open what was written, and compare, where that is asked for
//! ```

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use tensorhold_convert::gguf::Blocks;
use tensorhold_convert::{Finding, Foreign, Laid, Lie, Limits, Node, NodeId};
use tensorhold_core::{
    Dtype, Error, ErrorKind, Result, Rules, ShardIndex, Sink, TensorSpec, shape_size_bytes,
};
use tensorhold_io::{AtomicFile, io_error};
use tensorhold_quant::can_cast;

use crate::checkpoint::{Checkpoint, read_index};
use crate::file::{Backend, File, OpenOptions};
use crate::foreign::{ForeignFile, Streamed, Streamer, TREE_KEY, metadata_of};
use crate::save::{SaveOptions, save_streamed, save_streamed_shards, shard_target};

/// What becomes of values that are no tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Values {
    /// They are kept in the metadata, as the tree of all values.
    #[default]
    Tree,
    /// The same text goes to a file of its own beside the target, `model.tree.json` for `model.safetensors`.
    Beside,
    /// They are left out.
    Dropped,
}

/// How foreign checkpoints are converted.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// Alignment and durability.
    pub save: SaveOptions,
    /// Shards are written, each with tensors of at most so many bytes.
    pub max_shard_bytes: Option<u64>,
    /// What becomes of values that are no tensors.
    pub values: Values,
    /// What floats are cast to.
    pub dtype: Option<Dtype>,
    /// The keys to the value that is converted, joined by `.`, such as `state_dict`; all where there is none.
    pub root: Option<String>,
    /// Blocks of quantized types of GGUF become numbers: of `dtype`, or F32.
    pub dequantize: bool,
    /// Whether what was written is read again and compared with the source.
    pub verify: bool,
    /// What a source may ask for.
    pub limits: Limits,
}

/// What a conversion has done.
#[derive(Debug)]
pub struct Converted {
    /// The files that were written, the index last.
    pub paths: Vec<PathBuf>,
    /// How many tensors they hold.
    pub n_tensors: usize,
    /// The bytes of these.
    pub size_bytes: u64,
    /// Values that were left out, being no tensors.
    pub n_dropped: u64,
    /// What is odd about the sources, with the path of each.
    pub findings: Vec<(PathBuf, Finding)>,
}

/// Is told the bytes of tensors that were written or compared, in all and so far; ends the conversion by an error.
pub type ConvertProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// Writes the values of a foreign checkpoint to `target`: a file that ends in `.safetensors`, or a folder where shards are asked
/// for. `source` is a file of any format that [`ForeignFile::open`] knows, an `*.index.json` that names such files, or a folder
/// with either. Nothing is at `target` until all is written.
///
/// # Errors
/// Those of [`ForeignFile::open`] and of a save; `ForeignFormat` where a checksum is wrong; `InvalidArgument` for a `root` that is
/// not there, and a target that is a source; `DuplicateTensor` where two files hold the same name.
pub fn convert(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &mut ConvertProgress<'_>,
) -> Result<Converted> {
    let target = target.as_ref();
    let Sources { paths, index } = sources_of(source.as_ref())?;
    for path in &paths {
        refuse_same(path, target)?;
    }
    let opened = paths.iter().map(|path| Opened::open(path, options));
    let opened = opened.collect::<Result<Vec<Opened>>>()?;
    let is_one = opened.len() == 1;
    let keeps_tree = is_one && options.values != Values::Dropped;
    let metadata = metadata(&opened, keeps_tree && options.values == Values::Tree);
    let metadata: Vec<(&str, &str)> = metadata.iter().map(|(k, v)| (&k[..], &v[..])).collect();
    let items = items_of(&opened, options)?;
    if let Some(index) = &index {
        check_index(index, &opened)
            .map_err(|error| error.with_file(source.as_ref().to_string_lossy()))?;
    }
    let specs: Vec<TensorSpec<'_>> = items.iter().map(Item::spec).collect();
    let size_bytes: u64 = items.iter().map(|item| item.size_bytes).sum();
    let mut job = Job {
        opened: &opened,
        streamers: opened
            .iter()
            .map(|source| Streamer::new(&source.file))
            .collect(),
        items: &items,
        total: size_bytes * if options.verify { 2 } else { 1 },
        done: 0,
        progress,
    };
    let paths = job.write(target, &specs, &metadata, options)?;
    if options.verify {
        job.verify(&paths)?;
    }
    let beside = match keeps_tree && options.values == Values::Beside {
        true => Some(write_beside(target, &opened[0].laid, &options.save)?),
        false => None,
    };
    let n_values = opened.iter().map(Opened::n_values).sum();
    Ok(Converted {
        paths: beside.into_iter().chain(paths).collect(),
        n_tensors: items.len(),
        size_bytes,
        n_dropped: if keeps_tree { 0 } else { n_values },
        findings: opened.iter().flat_map(Opened::findings).collect(),
    })
}

/// A source, and what is to be stored of it.
struct Opened {
    file: ForeignFile,
    root: NodeId,
    laid: Laid,
    /// What tensors are blocks of, by their nodes, where these are to become numbers.
    blocks: HashMap<NodeId, Blocks>,
}

impl Opened {
    fn open(path: &Path, options: &ConvertOptions) -> Result<Opened> {
        let mut file = ForeignFile::open(path, options.limits.clone())
            .map_err(|error| explained(path, error))?;
        let blocks = match options.dequantize {
            true => take_blocks(file.foreign_mut()),
            false => HashMap::new(),
        };
        let at_file = |error: Error| error.with_file(path.to_string_lossy());
        let root = match &options.root {
            Some(keys) => find(file.foreign(), keys).map_err(at_file)?,
            None => file.foreign().tree.root(),
        };
        let root = file.root_of(root).map_err(at_file)?;
        let laid = file
            .foreign()
            .lay_out(root, Lie::Written)
            .map_err(at_file)?;
        Ok(Opened {
            file,
            root,
            laid,
            blocks,
        })
    }

    /// The keys of the outermost dict.
    fn keys(&self) -> HashSet<&str> {
        let tree = &self.file.foreign().tree;
        let pairs = tree.pairs(self.root).unwrap_or_default();
        pairs
            .iter()
            .filter_map(|(key, _)| tree.text(*key))
            .collect()
    }

    fn findings(&self) -> impl Iterator<Item = (PathBuf, Finding)> {
        let path = self.file.path();
        let findings = self.file.foreign().findings.iter();
        findings.map(move |finding| (path.to_owned(), finding.clone()))
    }

    /// How many values there are that are no tensors and hold none.
    fn n_values(&self) -> u64 {
        let tree = &self.file.foreign().tree;
        let mut seen = HashSet::new();
        let mut left = vec![self.root];
        let mut n_values = 0;
        while let Some(id) = left.pop() {
            if !seen.insert(id) {
                continue;
            }
            match &tree[id] {
                Node::Tensor(_) | Node::Ndarray(_) | Node::Quantized(_) | Node::Sparse(_) => {}
                Node::List(items) | Node::Tuple(items) => left.extend(items),
                Node::Dict(pairs) | Node::OrderedDict { pairs, .. } => {
                    left.extend(pairs.iter().map(|&(_, value)| value));
                }
                Node::Object(object) => left.push(object.state),
                _ => n_values += 1,
            }
        }
        n_values
    }
}

/// For a file that is not certainly of a foreign format, what it is instead.
fn explained(path: &Path, error: Error) -> Error {
    if error.kind() != ErrorKind::ForeignFormat || ForeignFile::is_certain(path) {
        return error;
    }
    let options = OpenOptions {
        rules: Rules::Compatible,
        backend: Backend::Pread,
    };
    match File::open(path, &options) {
        Ok(_) => {
            let message = "this is a safetensors file already";
            Error::new(ErrorKind::InvalidArgument, message)
                .with_file(path.to_string_lossy())
                .with_hint("`tensorhold merge` and `tensorhold shard` write it in other files")
        }
        // What looks like a pickle or a message pack has been read as one, and that says more.
        Err(other)
            if other.message().starts_with("a pickle") || other.message().starts_with("a Flax") =>
        {
            error
        }
        Err(other) if other.kind() == ErrorKind::ForeignFormat => other,
        Err(_) => error,
    }
}

/// Takes the descriptions of blocks off the tensors that can become numbers.
fn take_blocks(foreign: &mut Foreign) -> HashMap<NodeId, Blocks> {
    let ids = 0..u32::try_from(foreign.tree.n_nodes()).unwrap_or(u32::MAX);
    let of = |id: NodeId| match &foreign.tree[id] {
        Node::Tensor(tensor) => Blocks::of(&foreign.tree, tensor)
            .filter(|blocks| blocks.kind.is_dequantized(blocks.is_big_endian)),
        _ => None,
    };
    let found = ids.map(NodeId).filter_map(|id| Some((id, of(id)?)));
    let found: HashMap<NodeId, Blocks> = found.collect();
    for id in found.keys() {
        if let Node::Tensor(tensor) = foreign.tree.node_mut(*id) {
            tensor.attributes = None;
        }
    }
    found
}

/// The value under keys joined by `.`; keys may hold points themselves.
fn find(foreign: &Foreign, keys: &str) -> Result<NodeId> {
    let tree = &foreign.tree;
    let mut here = tree.root();
    let mut rest = keys;
    while !rest.is_empty() {
        let pairs = tree.pairs(here).unwrap_or_default();
        let key = |id: NodeId| tree.text(id);
        let after = |key: &str| {
            let after = rest.strip_prefix(key)?;
            after.strip_prefix('.').or(after.is_empty().then_some(""))
        };
        let found = pairs
            .iter()
            .filter_map(|&(id, value)| Some((after(key(id)?)?, value)))
            .min_by_key(|(after, _)| after.len());
        let Some((after, value)) = found else {
            let there: Vec<&str> = pairs
                .iter()
                .filter_map(|&(id, _)| key(id))
                .take(8)
                .collect();
            let message = format!("there is no `{rest}` where `{keys}` leads");
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint(format!("there are {there:?}")));
        };
        (here, rest) = (value, after);
    }
    Ok(here)
}

/// A tensor to write.
struct Item {
    file: usize,
    /// Its number in what is stored of the file.
    stored: usize,
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    size_bytes: u64,
}

impl Item {
    fn spec(&self) -> TensorSpec<'_> {
        TensorSpec {
            name: &self.name,
            dtype: self.dtype,
            shape: &self.shape,
        }
    }
}

fn items_of(opened: &[Opened], options: &ConvertOptions) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (file, source) in opened.iter().enumerate() {
        for (number, stored) in source.laid.stored.iter().enumerate() {
            let blocks = source.blocks.get(&stored.node);
            let (from, shape) = match blocks {
                Some(blocks) => (Dtype::F32, &blocks.shape),
                None => (stored.dtype, &stored.shape),
            };
            let may_cast = blocks.is_some() || stored.is_castable;
            let cast = options.dtype.filter(|&to| may_cast && can_cast(from, to));
            let dtype = cast.unwrap_or(from);
            let size = shape_size_bytes(dtype, shape);
            items.push(Item {
                file,
                stored: number,
                name: stored.name.clone(),
                dtype,
                shape: shape.clone(),
                size_bytes: size.map_err(|error| error.with_tensor(&stored.name[..]))?,
            });
        }
    }
    Ok(items)
}

/// A conversion under way.
struct Job<'a, 'p> {
    opened: &'a [Opened],
    streamers: Vec<Streamer<'a>>,
    items: &'a [Item],
    total: u64,
    done: u64,
    progress: &'a mut ConvertProgress<'p>,
}

impl Job<'_, '_> {
    fn write(
        &mut self,
        target: &Path,
        specs: &[TensorSpec<'_>],
        metadata: &[(&str, &str)],
        options: &ConvertOptions,
    ) -> Result<Vec<PathBuf>> {
        let mut stream = |index: usize, put: &mut dyn FnMut(&[u8]) -> Result<()>| {
            self.stream(&self.items[index], put)
        };
        let metadata = Some(metadata);
        let Some(most) = options.max_shard_bytes else {
            save_streamed(target, specs, metadata, &options.save, &mut stream)?;
            return Ok(vec![target.to_owned()]);
        };
        let target = shard_target(target)?;
        save_streamed_shards(&target, specs, metadata, most, &options.save, &mut stream)
    }

    /// Hands the bytes of a tensor to `put`, as they go into the file.
    fn stream(&mut self, item: &Item, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let source = &self.opened[item.file];
        let stored = &source.laid.stored[item.stored];
        let streamed = Streamed {
            stored,
            cast: Some(item.dtype),
            blocks: source.blocks.get(&stored.node).cloned(),
        };
        let (total, done, progress) = (self.total, &mut self.done, &mut self.progress);
        self.streamers[item.file].stream(&streamed, &mut |bytes| {
            put(bytes)?;
            *done += bytes.len() as u64;
            progress(total, *done)
        })
    }

    /// Reads what was written, and compares it with the sources.
    fn verify(&mut self, paths: &[PathBuf]) -> Result<()> {
        let last = paths.last().expect("a file was written");
        let options = OpenOptions {
            backend: Backend::Pread,
            ..OpenOptions::default()
        };
        let written = Checkpoint::open(last, &options)?;
        let mut found = Vec::new();
        for item in self.items {
            let tensor = written.tensor(&item.name)?;
            let info = tensor.info();
            if (info.dtype, info.shape) != (item.dtype, &item.shape[..]) {
                return Err(differs(item, last));
            }
            let mut position = tensor.file().header().data_start() + info.offsets.start;
            self.stream(item, &mut |bytes| {
                found.resize(bytes.len(), 0);
                tensor.file().source().read_at(position, &mut found)?;
                position += bytes.len() as u64;
                match found == bytes {
                    true => Ok(()),
                    false => Err(differs(item, tensor.file().path())),
                }
            })?;
        }
        Ok(())
    }
}

fn differs(item: &Item, path: &Path) -> Error {
    let message = "what was written is not what the source holds";
    Error::new(ErrorKind::Io, message)
        .with_tensor(&item.name[..])
        .with_file(path.to_string_lossy())
        .with_hint(
            "a disk or memory is at fault, or the source was changed meanwhile; convert it again",
        )
}

/// The metadata of the files that are written.
fn metadata(opened: &[Opened], has_tree: bool) -> Vec<(String, String)> {
    let all = opened.iter().flat_map(|source| metadata_of(&source.laid));
    let mut seen = HashSet::new();
    all.filter(|(key, _)| has_tree || key != TREE_KEY)
        .filter(|(key, _)| seen.insert(key.clone()))
        .collect()
}

/// Writes the tree to a file beside the target.
fn write_beside(target: &Path, laid: &Laid, save: &SaveOptions) -> Result<PathBuf> {
    let path = target.with_extension("tree.json");
    let mut file = AtomicFile::create(&path, Some(laid.text.len() as u64), save.durability)?;
    file.write(laid.text.as_bytes())?;
    file.commit()?;
    Ok(path)
}

/// The files that a source is, in the order of the index that names them.
struct Sources {
    paths: Vec<PathBuf>,
    index: Option<ShardIndex>,
}

fn sources_of(source: &Path) -> Result<Sources> {
    let one = |path: PathBuf| Sources {
        paths: vec![path],
        index: None,
    };
    if !source.is_dir() {
        return match source
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            true => listed(source),
            false => Ok(one(source.to_owned())),
        };
    }
    let single = source.join("pytorch_model.bin");
    if single.is_file() {
        return Ok(one(single));
    }
    let refused = |error| io_error(error, source, "list the folder");
    let mut indexes = Vec::new();
    for entry in std::fs::read_dir(source).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path.to_string_lossy().ends_with(".bin.index.json") {
            indexes.push(path);
        }
    }
    if let [index] = &indexes[..] {
        return listed(index);
    }
    let n = indexes.len();
    let message =
        format!("the folder holds no `pytorch_model.bin`, and {n} files `*.bin.index.json`");
    Err(Error::new(ErrorKind::InvalidArgument, message)
        .with_file(source.to_string_lossy())
        .with_hint("name the file or the index that is to be converted"))
}

/// The files that an index names.
fn listed(path: &Path) -> Result<Sources> {
    let index = ShardIndex::parse(&read_index(path)?);
    let index = index.map_err(|error| error.with_file(path.to_string_lossy()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(Sources {
        paths: index
            .shards()
            .iter()
            .map(|name| folder.join(name))
            .collect(),
        index: Some(index),
    })
}

/// Checks that the files hold what their index says.
fn check_index(index: &ShardIndex, opened: &[Opened]) -> Result<()> {
    let names: Vec<HashSet<&str>> = opened.iter().map(Opened::keys).collect();
    for (name, shard) in index.entries() {
        if !names[shard].contains(name) {
            let message = format!(
                "`{}` lacks a tensor that the index says is in it",
                index.shards()[shard]
            );
            return Err(Error::new(ErrorKind::InvalidIndex, message).with_tensor(name));
        }
    }
    Ok(())
}

fn refuse_same(source: &Path, target: &Path) -> Result<()> {
    let real = target.canonicalize().ok();
    if real.is_none() || source.canonicalize().ok() != real {
        return Ok(());
    }
    let error = Error::new(ErrorKind::InvalidArgument, "this is the file that is read");
    Err(error
        .with_file(target.to_string_lossy())
        .with_hint("name another file"))
}
