//! What detection is given of a checkpoint.

use tensorhold_core::{ByteRange, Result, TensorInfo};

/// What detection is given of a checkpoint: what its headers and its configuration say, and a way to look into small tensors.
pub struct Evidence<'a> {
    /// All tensors, of all files.
    pub tensors: Vec<TensorInfo<'a>>,
    /// The `__metadata__` of all files; a key may be there several times.
    pub metadata: Vec<(&'a str, &'a str)>,
    /// The configurations, that which counts most first.
    pub configs: Vec<ConfigText<'a>>,
    /// Reads so many bytes of the tensor of this name, counted from its start.
    ///
    /// Nothing longer than 64 KiB is asked for, and nothing beyond the tensor.
    pub read: &'a dyn Fn(&str, ByteRange) -> Result<Vec<u8>>,
}

/// A configuration.
#[derive(Debug, Clone, Copy)]
pub struct ConfigText<'a> {
    /// The file that it was read from, such as `config.json` or `quantize_config.json`; `None` for one that the caller gives in place
    /// of what all files say of quantization.
    pub file: Option<&'a str>,
    /// What it says, or why it cannot be read.
    pub text: core::result::Result<&'a str, &'a str>,
}
