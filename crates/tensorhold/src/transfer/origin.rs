//! Where the bytes of one file come from.

use std::sync::Arc;

use tensorhold_core::{Result, Source};
use tensorhold_device::DevicePart;
use tensorhold_io::{Map, Reading, Way};

use super::gds::{GdsFile, GdsStats};
use super::staging::Hand;

/// A file as one transfer reads it.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The file, read in the way that was found best.
    Reading(Reading),
    /// The same, but for what goes whole to a device.
    Gds(Reading, GdsFile),
    /// Its map, which is all that the caller wanted to keep open.
    Map(Arc<Map>),
}

impl Origin {
    /// The same for memory that is copied from at once.
    pub fn passed_on(self) -> Origin {
        match self {
            Origin::Reading(reading) => Origin::Reading(reading.passed_on()),
            Origin::Gds(reading, file) => Origin::Gds(reading.passed_on(), file),
            map @ Origin::Map(_) => map,
        }
    }

    pub fn source(&self) -> &dyn Source {
        match self {
            Origin::Reading(reading) | Origin::Gds(reading, _) => reading,
            Origin::Map(map) => &**map,
        }
    }

    pub fn way(&self) -> Way {
        match self {
            Origin::Reading(reading) | Origin::Gds(reading, _) => reading.way(),
            Origin::Map(_) => Way::Mapped,
        }
    }

    /// Whether what is read comes to memory by way of the processor's caches.
    pub fn uses_caches(&self) -> bool {
        !matches!(self, Origin::Gds(..)) && self.way() != Way::Direct
    }

    /// How many threads should read it at once on a machine of `n_cores`.
    pub fn n_readers(&self, n_cores: usize) -> usize {
        match self {
            Origin::Reading(reading) | Origin::Gds(reading, _) => reading.n_readers(n_cores),
            Origin::Map(_) => n_cores,
        }
    }

    /// Whether each thread should read one contiguous stretch.
    pub fn wants_contiguous(&self) -> bool {
        match self {
            Origin::Reading(reading) | Origin::Gds(reading, _) => reading.wants_contiguous(),
            Origin::Map(_) => false,
        }
    }

    /// Fills `part` with the bytes from `position` on, past the host's memory; `false` where they are to be read and sent.
    ///
    /// # Errors
    /// `Interrupted` where the process is to end; `Device` as the runtime says.
    pub(super) fn read_to_device(
        &self,
        position: u64,
        part: &DevicePart,
        hand: Hand<'_>,
    ) -> Result<bool> {
        let Origin::Gds(_, file) = self else {
            return Ok(false);
        };
        if hand.is_own_thread {
            part.queue().device().select()?;
        }
        file.read(position, part)
    }

    /// What became of the wish to do so, if there was one.
    pub fn gds(&self) -> Option<GdsStats> {
        match self {
            Origin::Gds(_, file) => Some(file.stats()),
            Origin::Reading(_) | Origin::Map(_) => None,
        }
    }
}
