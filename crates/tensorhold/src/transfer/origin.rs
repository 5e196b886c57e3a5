//! Where the bytes of one file come from.

use std::sync::Arc;

use tensorhold_core::Source;
use tensorhold_io::{Map, Reading, Way};

/// A file as one transfer reads it.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The file, read in the way that was found best.
    Reading(Reading),
    /// Its map, which is all that the caller wanted to keep open.
    Map(Arc<Map>),
}

impl Origin {
    pub fn source(&self) -> &dyn Source {
        match self {
            Origin::Reading(reading) => reading,
            Origin::Map(map) => &**map,
        }
    }

    pub fn way(&self) -> Way {
        match self {
            Origin::Reading(reading) => reading.way(),
            Origin::Map(_) => Way::Mapped,
        }
    }

    /// How many threads should read it at once on a machine of `n_cores`.
    pub fn n_readers(&self, n_cores: usize) -> usize {
        match self {
            Origin::Reading(reading) => reading.n_readers(n_cores),
            Origin::Map(_) => n_cores,
        }
    }

    /// Whether each thread should read one contiguous stretch.
    pub fn wants_contiguous(&self) -> bool {
        match self {
            Origin::Reading(reading) => reading.wants_contiguous(),
            Origin::Map(_) => false,
        }
    }
}
