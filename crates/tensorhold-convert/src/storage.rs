//! Where the bytes of tensors lie, and which of them are a tensor's.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result};

use crate::element::Element;

/// The number of a storage in [`crate::Foreign::storages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageId(pub u32);

/// Where the bytes of a storage are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file as they are; positions count from the start of the file.
    InFile(ByteRange),
    /// In the file as they are, but in several runs: the bytes of the first, then those of the second, and so on.
    Pieces(Vec<ByteRange>),
    /// In the file, compressed with deflate: these compressed bytes.
    Deflated(ByteRange),
    /// Here: bytes that the file has in another coding.
    Memory(Vec<u8>),
    /// Nowhere: the file names the storage and does not have it.
    Missing,
}

/// A run of bytes that tensors are views of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The file's own name of it, such as `data/0`.
    pub name: String,
    /// Where its bytes are.
    pub place: Place,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// Bytes that are to be turned around together to make numbers little-endian; 1 where they are already.
    pub swap_width_bytes: u64,
    /// The check sum that the file has of the bytes as they are in the file (uncompressed, not turned around).
    pub crc32: Option<u32>,
    /// The device that it was on, such as `cpu` or `cuda:0`.
    pub device: String,
}

impl Storage {
    /// A storage on the CPU with bytes in this machine's order and no check sum.
    #[must_use]
    pub fn new(name: impl Into<String>, place: Place, size_bytes: u64) -> Storage {
        Storage {
            name: name.into(),
            place,
            size_bytes,
            swap_width_bytes: 1,
            crc32: None,
            device: "cpu".into(),
        }
    }
}

/// Which elements of a storage are a tensor's.
///
/// # Shapes
/// `shape` and `strides` have one number for each dimension; strides and the offset count elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    storage: StorageId,
    element: Element,
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

impl View {
    /// A view that has every element inside a storage of `size_bytes`.
    ///
    /// # Errors
    /// `InvalidTensor` if an element lies outside or the dimensions of shape and strides differ, `Overflow` if a
    /// number passes 2^64.
    pub fn new(
        storage: (StorageId, u64),
        element: Element,
        offset: u64,
        shape: Vec<u64>,
        strides: Vec<u64>,
    ) -> Result<View> {
        let (storage, size_bytes) = storage;
        if shape.len() != strides.len() {
            return Err(Error::new(
                ErrorKind::InvalidTensor,
                format!(
                    "a shape of {} dimensions has {} strides",
                    shape.len(),
                    strides.len()
                ),
            ));
        }
        let view = View {
            storage,
            element,
            offset,
            shape,
            strides,
        };
        let used = view.used_bytes()?;
        if used.end > size_bytes {
            return Err(Error::new(
                ErrorKind::InvalidTensor,
                format!(
                    "a tensor ends at byte {} of a storage of {size_bytes} bytes",
                    used.end
                ),
            ));
        }
        Ok(view)
    }

    /// A view with its elements side by side, the last dimension fastest.
    ///
    /// # Errors
    /// As [`View::new`].
    pub fn contiguous(
        storage: (StorageId, u64),
        element: Element,
        offset: u64,
        shape: Vec<u64>,
    ) -> Result<View> {
        let strides = row_major(&shape).ok_or_else(overflow)?;
        View::new(storage, element, offset, shape, strides)
    }

    /// The same bytes as elements of another type of the same width; `None` if it has another.
    #[must_use]
    pub fn as_element(&self, element: Element) -> Option<View> {
        let is_same = element.width_bytes() == self.element.width_bytes();
        is_same.then(|| View {
            element,
            ..self.clone()
        })
    }

    /// The storage that it is a view of.
    #[must_use]
    pub fn storage(&self) -> StorageId {
        self.storage
    }

    /// The type of its elements.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }

    /// The place of its first element in the storage, in elements.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The extent of each dimension.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The elements from one to the next of each dimension.
    #[must_use]
    pub fn strides(&self) -> &[u64] {
        &self.strides
    }

    /// The number of elements.
    #[must_use]
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether the elements lie side by side, the last dimension fastest; dimensions of one element do not count,
    /// and no elements are always so.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        if self.shape.contains(&0) {
            return true;
        }
        let mut expected = 1;
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if extent != 1 && stride != expected {
                return false;
            }
            expected *= extent;
        }
        true
    }

    /// Whether the elements fill a run of bytes, each once, in some order of the dimensions.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        let dims = self.shape.iter().zip(&self.strides);
        let mut dims: Vec<_> = dims.filter(|(extent, _)| **extent != 1).collect();
        dims.sort_by_key(|(_, stride)| **stride);
        let mut expected = 1;
        dims.into_iter().all(|(&extent, &stride)| {
            let is_next = stride == expected;
            expected *= extent;
            is_next
        })
    }

    /// The bytes of the storage from the first to after the last that it uses; empty where it has no elements.
    ///
    /// # Errors
    /// `Overflow` if a number passes 2^64.
    pub fn used_bytes(&self) -> Result<ByteRange> {
        let width = self.element.width_bytes();
        let used = || {
            let start = self.offset.checked_mul(width)?;
            let size = self
                .shape
                .iter()
                .try_fold(1u64, |size, &extent| size.checked_mul(extent))?;
            if size == 0 {
                return Some(ByteRange::new(start, start));
            }
            size.checked_mul(width)?;
            let mut last = self.offset;
            for (&extent, &stride) in self.shape.iter().zip(&self.strides) {
                last = last.checked_add((extent - 1).checked_mul(stride)?)?;
            }
            Some(ByteRange::new(
                start,
                last.checked_add(1)?.checked_mul(width)?,
            ))
        };
        used().ok_or_else(overflow)
    }
}

/// The strides of a shape whose elements lie side by side, the last dimension fastest; `None` past 2^64.
pub(crate) fn row_major(shape: &[u64]) -> Option<Vec<u64>> {
    let mut strides = vec![1u64; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].checked_mul(shape[axis].max(1))?;
    }
    Some(strides)
}

fn overflow() -> Error {
    Error::new(ErrorKind::Overflow, "the size of a tensor passes 2^64")
}
