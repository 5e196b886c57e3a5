//! Any bytes as an array, or an archive of arrays: every element lies in a storage, and every storage in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_convert::{Limits, npy, npz};
use tensorhold_fuzz::foreign::check;
use tensorhold_fuzz::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|file: &[u8]| {
    let mut limits = Limits::default();
    limits.inflated_bytes = 1 << 18;
    check(file, 1024 * 1024, &mut || npy::read(&file, &limits));
    check(file, 1024 * 1024, &mut || npz::read(&file, &limits));
});
