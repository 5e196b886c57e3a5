//! Systems without rings.

use std::fs::File;
use std::io;

pub(crate) const MAX_RING_READS: usize = 8;

pub(crate) type RingResults = [io::Result<usize>; MAX_RING_READS];

/// There is none.
pub(crate) enum Ring {}

impl Ring {
    /// # Errors
    /// Always.
    pub(crate) fn set_up() -> io::Result<Ring> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_usable(&self) -> bool {
        match *self {}
    }

    pub(crate) fn enter(&self, _n_wanted: usize) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn read(
        &mut self,
        _file: &File,
        _position: u64,
        _into: &mut [u8],
        _piece_bytes: usize,
        _enter: fn(&Ring, usize) -> io::Result<()>,
    ) -> (RingResults, io::Result<()>) {
        match *self {}
    }
}
