//! What of a checkpoint is quantized: each weight by the name and shape that it has without quantization, and read as numbers.

mod configs;
mod crew;
mod dequantize;
mod located;
mod part;
mod proof;
mod shares;
mod signs;
mod stream;

use std::sync::{Arc, OnceLock};

use tensorhold_core::{ByteRange, Dtype, Error, ErrorKind, Result};
use tensorhold_quant::detect::{
    ConfigText, Evidence, MAX_CONFIG_BYTES, Quantization, QuantizedWeight, SchemeName, detect,
};

use crate::checkpoint::{Checkpoint, Tensor};
use crate::read;
use crate::subbyte::{NarrowInt, NarrowTensor};

pub use configs::read_quantization_config;
pub(crate) use configs::{CONFIG, read_text};
pub use dequantize::Dequantize;
pub(crate) use proof::prove;
pub use proof::{Proof, ProofNote};
pub(crate) use shares::{Piece, beside, held_beside};
pub use stream::{DequantizeOptions, DequantizeProgress, Dequantized, dequantize_checkpoint};

/// What is known of a checkpoint's quantization, found when somebody first asks.
#[derive(Debug, Default)]
pub(crate) struct Known {
    given: Option<String>,
    found: OnceLock<Arc<Quantization>>,
}

/// A weight as it is without quantization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical {
    /// The type that its values are given as where nothing else is asked for.
    pub dtype: Dtype,
    /// The type of a tensor of integers narrower than a byte, which is stored as `dtype`.
    pub narrow: Option<NarrowInt>,
    /// Its shape.
    pub shape: Vec<u64>,
    /// What it is written in; `None` for a tensor that is not quantized.
    pub scheme: Option<SchemeName>,
}

impl Checkpoint {
    /// The same checkpoint, with what `text` says of quantization in place of what its files say: the JSON of a
    /// `quantization_config`, or of a `config.json` with one.
    #[must_use]
    pub fn with_quantization_config(mut self, text: String) -> Checkpoint {
        self.known = Known {
            given: Some(text),
            found: OnceLock::new(),
        };
        self
    }

    /// Which weights are quantized, what they are written in, and what is wrong with them.
    ///
    /// Headers are looked at, the configurations beside the files (`config.json`, `hf_quant_config.json`, `quantize_config.json`,
    /// `quant_config.json`, `*_qmap.json`), and small tensors that describe others; a second call gives the same answer.
    ///
    /// # Errors
    /// `InvalidConfig` for a configuration that is over 16 MiB, nested too deep or no JSON, where a tensor is quantized;
    /// `Truncated` or `Io`.
    pub fn quantization(&self) -> Result<Arc<Quantization>> {
        if let Some(found) = self.known.found.get() {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(self.detect()?);
        Ok(Arc::clone(self.known.found.get_or_init(|| found)))
    }

    /// [`quantization`](Checkpoint::quantization), for as long as the checkpoint is there.
    pub(crate) fn known_quantization(&self) -> Result<&Quantization> {
        self.quantization()?;
        let found = self.known.found.get();
        Ok(found.expect("what was found is kept"))
    }

    /// Type and shape of a weight without quantization, by the name that it has then; of any other tensor, its own.
    ///
    /// # Errors
    /// Those of [`quantization`](Checkpoint::quantization); `TensorNotFound`; `Unsupported` for a weight that is not read, and what is
    /// wrong with one that is broken.
    pub fn logical(&self, name: &str) -> Result<Logical> {
        let quantization = self.quantization()?;
        if let Some(weight) = quantization.find(name) {
            return Ok(Logical {
                dtype: weight.dtype,
                narrow: None,
                shape: weight.logical_shape()?.to_vec(),
                scheme: Some(weight.scheme),
            });
        }
        let tensor = self.tensor(name)?;
        let (info, narrow) = (tensor.info(), tensor.narrow());
        Ok(Logical {
            dtype: info.dtype,
            narrow: narrow.map(NarrowTensor::dtype),
            shape: narrow.map_or(info.shape, NarrowTensor::shape).to_vec(),
            scheme: None,
        })
    }

    /// The bytes that the parts of a weight take.
    #[must_use]
    pub fn quantized_size_bytes(&self, weight: &QuantizedWeight) -> u64 {
        let sizes = weight.parts.values().filter_map(|name| self.find(name));
        sizes.fold(0, |sum: u64, tensor| {
            sum.saturating_add(tensor.info().size_bytes())
        })
    }

    fn detect(&self) -> Result<Quantization> {
        let found = configs::read(self.files());
        let given = self.known.given.as_deref();
        let given = given.map(|text| ConfigText {
            file: None,
            text: Ok(text),
        });
        let files = found.iter().map(|(file, text)| ConfigText {
            file: Some(file),
            text: text.as_deref().map_err(|why| &**why),
        });
        let metadata = self
            .files()
            .iter()
            .filter_map(|file| file.header().metadata());
        detect(&Evidence {
            tensors: self.tensors().map(|tensor| tensor.info()).collect(),
            metadata: metadata.flat_map(|metadata| metadata.iter()).collect(),
            configs: given.into_iter().chain(files).collect(),
            read: &|name, range| read_part(&self.tensor(name)?, range),
        })
    }
}

/// Some bytes of a tensor, few enough to be read at once.
fn read_part(tensor: &Tensor<'_>, range: ByteRange) -> Result<Vec<u8>> {
    let (info, file) = (tensor.info(), tensor.file());
    if range.end > info.size_bytes() || range.len() > MAX_CONFIG_BYTES as u64 {
        let message = format!(
            "bytes {range} are not asked of a tensor of {}",
            info.size_bytes()
        );
        return Err(file.blame(&info, Error::new(ErrorKind::InvalidArgument, message)));
    }
    read_range(tensor, range)
}

/// Some bytes of a tensor that has them.
fn read_range(tensor: &Tensor<'_>, range: ByteRange) -> Result<Vec<u8>> {
    let (info, file) = (tensor.info(), tensor.file());
    let mut bytes = read::allocate(range.len())?;
    let position = file.header().data_start() + info.offsets.start + range.start;
    let read = file.source().read_at(position, &mut bytes);
    read.map_err(|error| file.blame(&info, error))?;
    Ok(bytes)
}
