//! Where the bytes of a tensor that is saved lie.

use tensorhold_device::DeviceView;

/// The bytes of a tensor to save, as they go into the file.
#[derive(Debug, Clone, Copy)]
pub enum TensorData<'a> {
    /// In host memory.
    Host(&'a [u8]),
    /// In the memory of a device, from where they go through the pinned ring, a slot at a time. They are those that the
    /// streams had written which [`CopyQueue::begin_after`](tensorhold_device::CopyQueue::begin_after) was told of.
    Device(DeviceView<'a>),
}

impl TensorData<'_> {
    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            TensorData::Host(bytes) => bytes.len(),
            TensorData::Device(view) => view.len(),
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn is_on_device(&self) -> bool {
        matches!(self, TensorData::Device(_))
    }
}

impl<'a> From<&'a [u8]> for TensorData<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        TensorData::Host(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for TensorData<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        TensorData::Host(bytes)
    }
}

impl<'a> From<DeviceView<'a>> for TensorData<'a> {
    fn from(view: DeviceView<'a>) -> Self {
        TensorData::Device(view)
    }
}
