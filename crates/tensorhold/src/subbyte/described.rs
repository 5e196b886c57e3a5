//! What the metadata of a file says of its tensors.

use std::collections::HashMap;

use serde_json::Value;
use tensorhold_core::{Error, ErrorKind, Escaped, Header, Result, TensorInfo};

use super::{DTYPE_KEY, NarrowInt, NarrowTensor};

/// The tensors of a file that hold integers narrower than a byte, by their numbers in the header.
///
/// A description that does not fit its tensor is as good as none.
#[derive(Debug, Default)]
pub struct NarrowTensors(HashMap<usize, NarrowTensor>);

impl NarrowTensors {
    /// Those that `header` describes.
    #[must_use]
    pub fn of(header: &Header) -> NarrowTensors {
        let described = descriptions(header)
            .filter_map(|(index, info, text)| Some((index, read(&info, text).ok()?)));
        NarrowTensors(described.collect())
    }

    /// Tensor number `index` of the header, if it is one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&NarrowTensor> {
        self.0.get(&index)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Refuses a file of which a description does not fit its tensor.
pub(crate) fn check(header: &Header) -> Result<()> {
    descriptions(header).try_for_each(|(_, info, text)| {
        let fits = read(&info, text).map(drop);
        fits.map_err(|error| error.with_tensor(info.name))
    })
}

/// For each tensor that is described its number, what the header says of it, and the description. What describes tensors
/// that are not there may be of those in another shard.
fn descriptions(header: &Header) -> impl Iterator<Item = (usize, TensorInfo<'_>, &str)> {
    let entries = header.metadata().into_iter().flat_map(|all| all.iter());
    entries.filter_map(|(key, text)| {
        let index = header.index_of(key.strip_prefix(DTYPE_KEY)?)?;
        Some((index, header.tensor_at(index)?, text))
    })
}

/// The tensor that `text` describes, if `info` can hold it.
fn read(info: &TensorInfo<'_>, text: &str) -> Result<NarrowTensor> {
    let described = parse(text, info.shape.len())?;
    if described.fits(info.dtype, info.shape) {
        return Ok(described);
    }
    let (dtype, shape) = (described.dtype(), described.shape());
    let (stored, found) = (described.stored_shape(), info.shape);
    let message = format!(
        "the metadata says {dtype} of shape {shape:?}, which is stored as U8 of {stored:?}, but the tensor is {} of {found:?}",
        info.dtype
    );
    Err(invalid(message))
}

impl NarrowTensor {
    /// The tensor of `rank` dimensions that a value of the metadata describes.
    ///
    /// # Errors
    /// `InvalidTensor` when it describes none, `Overflow` past 2^64 integers.
    pub fn parse(description: &str, rank: usize) -> Result<NarrowTensor> {
        parse(description, rank)
    }
}

fn parse(text: &str, rank: usize) -> Result<NarrowTensor> {
    // No longer text can be of so many dimensions.
    let most = 64 + rank.saturating_mul(24);
    let value = match text.len() <= most {
        true => serde_json::from_str(text).unwrap_or(Value::Null),
        false => Value::Null,
    };
    let fields = value.as_object().filter(|fields| fields.len() == 2);
    let field = |name| fields.and_then(|fields| fields.get(name));
    let dtype = field("dtype").and_then(Value::as_str);
    let dtype = dtype.and_then(NarrowInt::from_name);
    let sizes = field("shape").and_then(Value::as_array);
    let shape = sizes.and_then(|sizes| sizes.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
    match (dtype, shape) {
        (Some(dtype), Some(shape)) => NarrowTensor::new(dtype, &shape),
        _ => {
            let start: String = text.chars().take(80).collect();
            let message = format!(
                "the metadata describes the tensor by `{}`, which is no type I1 to I7 or U1 to U7 and shape",
                Escaped(&start)
            );
            Err(invalid(message))
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidTensor, message).with_hint(
        "the tensor is read as the header says; write the file anew, or leave the key out",
    )
}
