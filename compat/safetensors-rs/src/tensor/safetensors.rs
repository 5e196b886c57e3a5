//! A file of tensors in memory.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use tensorhold_core::{Header, LENGTH_BYTES, Rules, header_length};

use super::info::{fits, shape_from_core};
use super::{Dtype, Metadata, SafeTensorError, TensorView};

/// The tensors of a file whose bytes are borrowed.
pub struct SafeTensors<'data> {
    header: Header,
    data: &'data [u8],
}

impl<'data> SafeTensors<'data> {
    /// The length of the header of the file `buffer`, without the 8 bytes before it, and its table. The whole file must be
    /// there: its end is checked.
    ///
    /// # Errors
    /// Those of [`deserialize`](SafeTensors::deserialize).
    pub fn read_metadata(buffer: &'data [u8]) -> Result<(usize, Metadata), SafeTensorError> {
        let (length, header) = parse(buffer)?;
        Ok((length, Metadata::from_core(&header)))
    }

    /// The tensors in the file `buffer`. Their bytes stay where they are.
    ///
    /// # Errors
    /// `HeaderTooSmall`, `HeaderTooLarge`, `InvalidHeaderLength`, `InvalidHeader`, `InvalidHeaderDeserialization`,
    /// `InvalidOffset`, `TensorInvalidInfo`, `ValidationOverflow`, `MisalignedSlice` or `MetadataIncompleteBuffer`, as each
    /// says.
    ///
    /// # Source
    /// The verdicts are those of the published crate, but that names which stand twice are refused.
    pub fn deserialize(buffer: &'data [u8]) -> Result<Self, SafeTensorError> {
        let (length, header) = parse(buffer)?;
        let data = &buffer[LENGTH_BYTES as usize + length..];
        Ok(SafeTensors { header, data })
    }

    /// All tensors with their names, in the order of the file.
    pub fn tensors(&self) -> Vec<(String, TensorView<'data>)> {
        self.iter()
            .map(|(name, view)| (name.to_string(), view))
            .collect()
    }

    /// All tensors with their names, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorView<'data>)> {
        self.header
            .tensors()
            .map(|info| (info.name, self.view(info)))
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// `TensorNotFound` if there is none.
    pub fn tensor(&self, tensor_name: &str) -> Result<TensorView<'data>, SafeTensorError> {
        let info = self.header.tensor(tensor_name);
        info.map(|info| self.view(info))
            .ok_or_else(|| SafeTensorError::TensorNotFound(tensor_name.to_string()))
    }

    /// The names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<&'_ str> {
        self.header.tensors().map(|info| info.name).collect()
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.header.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.header.is_empty()
    }

    fn view(&self, info: tensorhold_core::TensorInfo<'_>) -> TensorView<'data> {
        TensorView::checked(
            Dtype::from_core(info.dtype),
            shape_from_core(info.shape),
            &self.data[info.offsets.start as usize..info.offsets.end as usize],
        )
    }
}

impl fmt::Debug for SafeTensors<'_> {
    /// The tensors without their bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SafeTensors")
            .field("metadata", &Metadata::from_core(&self.header))
            .field("data_len", &self.data.len())
            .finish()
    }
}

fn parse(buffer: &[u8]) -> Result<(usize, Header), SafeTensorError> {
    let file_size = buffer.len() as u64;
    let start = LENGTH_BYTES as usize;
    let prefix = &buffer[..buffer.len().min(start)];
    let length = header_length(prefix, file_size)
        .map_err(|error| SafeTensorError::from_header(&error, &[]))?;
    let text = &buffer[start..start + length];
    let header = Header::parse(text.to_vec(), file_size, Rules::Compatible)
        .map_err(|error| SafeTensorError::from_header(&error, text))?;
    match fits(&header) {
        true => Ok((length, header)),
        false => Err(SafeTensorError::ValidationOverflow),
    }
}
