//! The system calls of a reading, replaceable so that their refusals can be tested.

use std::fs::File;
use std::io;

use crate::platform::{self, Ring};

#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub read_at: fn(&File, &mut [u8], u64) -> io::Result<usize>,
    pub open_exact: fn(&File) -> io::Result<File>,
    pub open_direct: fn(&File) -> io::Result<File>,
    pub direct_alignment: fn(&File) -> Option<(usize, usize)>,
    pub read_direct: fn(&File, &mut [u8], u64) -> io::Result<usize>,
    pub set_up_ring: fn() -> io::Result<Ring>,
    pub enter_ring: fn(&Ring, usize) -> io::Result<()>,
    /// What became of a read of a ring, with the bytes that it was to fill.
    pub ring_result: fn(&mut [u8], io::Result<usize>) -> io::Result<usize>,
    pub cached_bytes: fn(&File, u64, u64) -> Option<u64>,
    pub counted_bytes: fn(&File, u64, u64) -> Option<u64>,
    pub free_memory_bytes: fn() -> Option<u64>,
    pub reopen: fn(&File) -> io::Result<File>,
    pub take_lease: fn(&File) -> io::Result<()>,
    pub has_lease: fn(&File) -> bool,
    pub release_lease: fn(&File),
    pub populate: fn(&[u8]) -> io::Result<()>,
    pub give_back: fn(&File, u64, u64),
}

pub(super) static SYSTEM: Calls = Calls {
    read_at: platform::read_at,
    open_exact: platform::open_exact,
    open_direct: platform::open_direct,
    direct_alignment: platform::direct_alignment,
    read_direct: platform::read_at,
    set_up_ring: Ring::set_up,
    enter_ring: Ring::enter,
    ring_result: |_, result| result,
    cached_bytes: platform::cached_bytes,
    counted_bytes: platform::counted_bytes,
    free_memory_bytes: platform::free_memory_bytes,
    reopen: platform::reopen,
    take_lease: platform::take_lease,
    has_lease: platform::has_lease,
    release_lease: platform::release_lease,
    populate: platform::populate,
    give_back: platform::give_back,
};
