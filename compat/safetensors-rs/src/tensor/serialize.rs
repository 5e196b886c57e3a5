//! Writes files of tensors.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use tensorhold_core::{Layout, LayoutOptions, Order, Result as CoreResult, TensorSpec, layout};

use super::info::{shape_to_core, size_bytes};
use super::{SafeTensorError, View};
use crate::HashMap;

/// The bytes of a file with the tensors `data` and the free-form entries `data_info`.
///
/// Tensors go by descending [`Dtype`](super::Dtype), then by name; the entries by key.
///
/// # Errors
/// `JsonError` if a name is given twice or is `__metadata__`, `TensorInvalidInfo` if a tensor has another
/// [`data_len`](View::data_len) than its shape asks for, `InvalidTensorView` if its [`data`](View::data) has,
/// `ValidationOverflow` and `MisalignedSlice` if its shape is impossible, `HeaderTooLarge` if there are too many.
pub fn serialize<S, V, I>(
    data: I,
    data_info: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, SafeTensorError>
where
    S: AsRef<str> + Ord + Display,
    V: View,
    I: IntoIterator<Item = (S, V)>,
{
    let prepared = Prepared::new(data, data_info)?;
    let mut file = Vec::new();
    if let Ok(size) = usize::try_from(prepared.layout.file_size) {
        // Without so much memory the vector grows with the bytes that really come: a tensor may have promised too many.
        let _ = file.try_reserve_exact(size);
    }
    file.extend_from_slice(&prepared.layout.head);
    for index in 0..prepared.tensors.len() {
        file.extend_from_slice(&prepared.data(index)?);
    }
    Ok(file)
}

/// Writes a file with the tensors `data` and the free-form entries `data_info` to `filename`, without a copy of the tensors
/// in memory. Until it is complete, an old file stays as it is, and stays visible to those who have it mapped.
///
/// # Errors
/// Those of [`serialize`]; `IoError` if the system refuses, with the path and what can be done.
#[cfg(feature = "std")]
pub fn serialize_to_file<S, V, I>(
    data: I,
    data_info: Option<HashMap<String, String>>,
    filename: &std::path::Path,
) -> Result<(), SafeTensorError>
where
    S: AsRef<str> + Ord + Display,
    V: View,
    I: IntoIterator<Item = (S, V)>,
{
    use tensorhold::{AtomicFile, Durability, Sink};

    let prepared = Prepared::new(data, data_info)?;
    let size = prepared.layout.file_size;
    let mut file = AtomicFile::create(filename, Some(size), Durability::None).map_err(io_error)?;
    file.write(&prepared.layout.head).map_err(io_error)?;
    for index in 0..prepared.tensors.len() {
        file.write(&prepared.data(index)?).map_err(io_error)?;
    }
    file.commit().map_err(io_error)
}

struct Prepared<V> {
    /// Of the tensors as they are ordered here.
    layout: Layout,
    tensors: Vec<V>,
}

impl<V: View> Prepared<V> {
    fn new<S, I>(
        data: I,
        data_info: Option<HashMap<String, String>>,
    ) -> Result<Prepared<V>, SafeTensorError>
    where
        S: AsRef<str> + Ord + Display,
        I: IntoIterator<Item = (S, V)>,
    {
        let mut data: Vec<(S, V)> = data.into_iter().collect();
        // By the order of the caller's type, which need not be that of strings.
        data.sort_by(|(left_name, left), (right_name, right)| {
            right
                .dtype()
                .cmp(&left.dtype())
                .then_with(|| left_name.cmp(right_name))
        });
        let mut described = Vec::with_capacity(data.len());
        for (name, tensor) in &data {
            if size_bytes(tensor.dtype(), tensor.shape())? != tensor.data_len() {
                return Err(SafeTensorError::TensorInvalidInfo);
            }
            described.push((name.to_string(), shape_to_core(tensor.shape())));
        }
        let layout = lay_out(&data, &described, data_info.as_ref())
            .map_err(|error| SafeTensorError::from_layout(&error))?;
        let tensors = data.into_iter().map(|(_, tensor)| tensor).collect();
        Ok(Prepared { layout, tensors })
    }

    /// The bytes of a tensor, as many as the header has room for.
    fn data(&self, index: usize) -> Result<Cow<'_, [u8]>, SafeTensorError> {
        let tensor = &self.tensors[index];
        let data = tensor.data();
        if data.len() as u64 == self.layout.offsets[index].len() {
            return Ok(data);
        }
        Err(SafeTensorError::InvalidTensorView(
            tensor.dtype(),
            tensor.shape().to_vec(),
            data.len(),
        ))
    }
}

fn lay_out<S, V: View>(
    data: &[(S, V)],
    described: &[(String, Vec<u64>)],
    data_info: Option<&HashMap<String, String>>,
) -> CoreResult<Layout> {
    let specs: Vec<TensorSpec<'_>> = described
        .iter()
        .zip(data)
        .map(|((name, shape), (_, tensor))| TensorSpec {
            name,
            dtype: tensor.dtype().to_core(),
            shape,
        })
        .collect();
    let pairs: Option<Vec<(&str, &str)>> = data_info.map(|entries| {
        let entries = entries.iter();
        entries
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    });
    let options = LayoutOptions {
        align: None,
        order: Order::Given,
    };
    layout(&specs, pairs.as_deref(), &options)
}

#[cfg(feature = "std")]
fn io_error(error: tensorhold::Error) -> SafeTensorError {
    use std::io::{Error, ErrorKind};

    let kind = match error.os_error() {
        Some(number) => Error::from_raw_os_error(number).kind(),
        None if error.kind() == tensorhold::ErrorKind::NotRegularFile => ErrorKind::InvalidInput,
        None => ErrorKind::Other,
    };
    SafeTensorError::IoError(Error::new(kind, error))
}
