//! Local files: what opens, maps, reads and atomically replaces them, and the memory they are read into.
//!
//! ```
//! use tensorhold_core::{Sink, Source};
//! use tensorhold_io::{AtomicFile, Durability, Map, open_regular};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model.safetensors");
//!
//! let mut file = AtomicFile::create(&path, Some(5), Durability::Data)?;
//! file.write(b"bytes")?;
//! file.commit()?;
//!
//! let map = Map::open(&open_regular(&path)?)?;
//! assert_eq!(map.as_bytes(), b"bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It knows nothing of tensors, headers or JSON, starts no thread, and prints nothing.
//!
//! Linux is the system that the tests run on. What differs elsewhere lies in `platform`, one file for each
//! system: the other Unixes and Windows are compiled but were not run, and do without the early check
//! for space, the recognition of network file systems (macOS has it) and, on Windows, modes and owners.

mod atomic;
mod buffer;
mod error;
mod interrupt;
mod live;
mod map;
mod memory;
mod open;
mod platform;
mod pread;
mod reading;

pub use atomic::{AtomicFile, Durability, Writer, real_target, sync_folder};
pub use buffer::{Buffer, Part, release_pool, set_pool_limit};
pub use error::io_error;
pub use interrupt::{check_interrupt, set_interrupt_check};
pub use map::Map;
pub use memory::available_memory;
pub use open::{FileIdentity, cached_bytes, identity, is_network, open_direct, open_regular};
pub use pread::Pread;
pub use reading::{Access, Reading, Wanted, Way, fetch};
