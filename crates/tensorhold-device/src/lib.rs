//! Devices: the CUDA or HIP runtime found at run time, and pinned memory that copies to and from devices go through.
//!
//! ```no_run
//! use tensorhold_device::{CopyQueue, Runtime, Slot, SlotCopy};
//!
//! let device = Runtime::find()?.device(0)?;
//! let queue = CopyQueue::new(device)?;
//! let buffer = queue.allocate(1000)?;
//! let parts = buffer.split(&[0..1000]);
//!
//! let mut slot = Slot::take(device)?;
//! slot[..1000].fill(7);
//! slot.send(&queue, 0, &[SlotCopy { from: 0..1000, part: &parts[0], at: 0 }])?;
//!
//! // What the default stream is given from now on sees the bytes; the host waits for nothing.
//! queue.signal(0)?;
//! let buffer = parts.into_iter().find_map(|part| part.join());
//! # Ok::<(), tensorhold_core::Error>(())
//! ```
//!
//! It links no vendor's library, knows no dtypes and opens no checkpoints. The levels, from below: `sys` is the table of
//! the runtime's functions, `result` makes errors of what they return, and everything else is safe but for
//! [`DeviceBuffer::from_raw`] and [`DeviceView::from_raw`].
//!
//! Devices are for Linux; elsewhere [`Runtime::find`] says so. They do not survive a fork: in a child of a process
//! that has used one, every call is refused, and nothing of the parent's is touched.

mod buffer;
mod copies;
mod device;
mod fetch;
mod fork;
mod gds;
mod pinned;
mod platform;
mod queue;
mod result;
mod ring;
mod rows;
mod runtime;
mod slot;
mod stream;
mod sys;

pub use buffer::{DeviceBuffer, DevicePart};
pub use copies::SlotCopy;
pub use device::Device;
pub use fetch::{DeviceView, Fetching, SlotFetch};
pub use gds::{Storage, StorageFile};
pub use queue::{CopyQueue, RawStream};
pub use ring::{RingNeed, RingUsage, release_ring, ring_usage, set_ring_limit};
pub use rows::SlotRows;
pub use runtime::{Runtime, Vendor};
pub use slot::Slot;
