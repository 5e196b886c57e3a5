//! One open file: its header, and a way to its bytes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tensorhold_core::{Error, Header, Result, Rules, Source, TensorInfo};
use tensorhold_io::{Access, Map, Pread, Reading, Wanted, identity, is_network, open_regular};

use crate::cache;
use crate::subbyte::NarrowTensors;
use crate::transfer::{Gds, GdsFile, Origin};

/// How the bytes of a file are reached. Every way gives the same bytes, slices and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// A map for views and reads for bytes that are owned; reads alone on a network file system, where a page fault may
    /// hang or kill the process, and where no map is to be had.
    #[default]
    Auto,
    /// A private map for everything: tensors are views of the file, read when they are touched.
    Mmap,
    /// Positional reads: a file that shrinks is an error, not a signal.
    Pread,
    /// Reads past the page cache where the file system can, else as `Pread`: for files larger than memory, or read once.
    Direct,
    /// As `Auto`, but never past the page cache: for files that several processes read at once, so that storage is read once.
    Shared,
    /// As `Auto`, but tensors of 1 MiB or more that go whole to a device are read into it past the host's memory, by NVIDIA's cuFile or
    /// AMD's hipFile. What cannot go so goes as by `Auto`, and [`TransferStats::gds`](crate::TransferStats::gds) says why.
    Gds,
}

/// How a checkpoint is opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Which headers are refused.
    pub rules: Rules,
    /// How bytes are reached.
    pub backend: Backend,
}

impl Default for OpenOptions {
    /// Strict rules, automatic backend.
    fn default() -> Self {
        OpenOptions {
            rules: Rules::Strict,
            backend: Backend::Auto,
        }
    }
}

/// One open file. Opening reads the header only.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    header: Arc<Header>,
    bytes: Bytes,
    backend: Backend,
    narrow: OnceLock<NarrowTensors>,
}

#[derive(Debug)]
enum Bytes {
    /// With a way to read bytes that will be owned, where the choice was ours: a file that shrinks is then an error.
    Mapped(Arc<Map>, Option<Arc<Pread>>),
    Read(Arc<Pread>),
}

impl File {
    /// Opens the file at `path` and checks its header.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `NotRegularFile` or `Io` if it cannot be opened or mapped; the header's
    /// kinds if it is not a safetensors file by `options.rules`.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<File> {
        open(path, options).map_err(|error| error.with_file(path.to_string_lossy()))
    }

    /// Opens the file at `path`, of whatever format; `table` looks into it and says [where tensors lie](Header::of_placed).
    ///
    /// # Errors
    /// Those of the system, as [`open`](File::open), and those of `table`.
    pub fn open_as(
        path: &Path,
        backend: Backend,
        table: impl FnOnce(&dyn Source) -> Result<Header>,
    ) -> Result<File> {
        open_as(path, backend, table).map_err(|error| error.with_file(path.to_string_lossy()))
    }

    /// Where the file lies, as it was named when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's table of tensors.
    #[must_use]
    pub fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// The tensors that hold integers narrower than a byte, as the metadata describes them.
    #[must_use]
    pub fn narrow_tensors(&self) -> &NarrowTensors {
        self.narrow.get_or_init(|| NarrowTensors::of(&self.header))
    }

    /// The file's map, if it was opened as one.
    #[must_use]
    pub fn map(&self) -> Option<&Arc<Map>> {
        match &self.bytes {
            Bytes::Mapped(map, _) => Some(map),
            Bytes::Read(_) => None,
        }
    }

    /// The bytes of the file, to be read into memory that the caller owns.
    #[must_use]
    pub fn source(&self) -> &dyn Source {
        self.bytes.source()
    }

    /// The file as a transfer reads `wanted` of it: by `choice` where nobody said how.
    pub(crate) fn origin(&self, wanted: Wanted, choice: Access, gds: &Arc<Gds>) -> Origin {
        let access = match self.backend {
            Backend::Auto | Backend::Gds => choice,
            Backend::Mmap => Access::Mapped,
            Backend::Pread => Access::Buffered,
            Backend::Direct => Access::Direct,
            Backend::Shared => Access::Shared,
        };
        let (pread, map) = match &self.bytes {
            Bytes::Mapped(map, None) => return Origin::Map(Arc::clone(map)),
            Bytes::Mapped(map, Some(pread)) => (pread, Some(map)),
            Bytes::Read(pread) => (pread, None),
        };
        let reading = Reading::new(pread, map, access, wanted);
        match self.backend {
            Backend::Gds => Origin::Gds(reading, GdsFile::new(gds, &self.path, pread)),
            _ => Origin::Reading(reading),
        }
    }

    /// Puts the file and the tensor into an error that happened while `tensor` was read.
    pub(crate) fn blame(&self, tensor: &TensorInfo<'_>, error: Error) -> Error {
        error
            .with_file(self.path.to_string_lossy())
            .with_tensor(tensor.name)
    }
}

fn open(path: &Path, options: &OpenOptions) -> Result<File> {
    let pread = Arc::new(Pread::new(open_regular(path)?)?);
    let identity = identity(pread.file())?;
    let header = match cache::find(&identity, options.rules) {
        Some(header) => header,
        None => {
            let header = Arc::new(pread.with_first(|pread| Header::read(pread, options.rules))?);
            cache::remember(identity, options.rules, &header);
            header
        }
    };
    Ok(File {
        path: path.to_owned(),
        header,
        bytes: Bytes::of(pread, options.backend)?,
        backend: options.backend,
        narrow: OnceLock::new(),
    })
}

fn open_as(
    path: &Path,
    backend: Backend,
    table: impl FnOnce(&dyn Source) -> Result<Header>,
) -> Result<File> {
    let pread = Arc::new(Pread::new(open_regular(path)?)?);
    let header = Arc::new(table(&*pread)?);
    Ok(File {
        path: path.to_owned(),
        header,
        bytes: Bytes::of(pread, backend)?,
        backend,
        narrow: OnceLock::new(),
    })
}

impl Bytes {
    /// The bytes of `file`, mapped where `backend` wants that and a map is to be had.
    fn of(pread: Arc<Pread>, backend: Backend) -> Result<Bytes> {
        let wants_map = match backend {
            Backend::Mmap => true,
            Backend::Pread | Backend::Direct => false,
            Backend::Auto | Backend::Shared | Backend::Gds => !is_network(pread.file()),
        };
        Ok(match (wants_map, backend) {
            (false, _) => Bytes::Read(pread),
            (true, Backend::Mmap) => Bytes::Mapped(Arc::new(Map::open(pread.file())?), None),
            (true, _) => match Map::open(pread.file()) {
                Ok(map) => Bytes::Mapped(Arc::new(map), Some(pread)),
                // No room, or a file system without maps: what can be read is read.
                Err(_) => Bytes::Read(pread),
            },
        })
    }

    fn source(&self) -> &dyn Source {
        match self {
            Bytes::Mapped(map, None) => &**map,
            Bytes::Mapped(_, Some(pread)) | Bytes::Read(pread) => &**pread,
        }
    }
}
