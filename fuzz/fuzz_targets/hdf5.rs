//! Any bytes as an HDF5 file: every dataset lies in the file, whatever its records point to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_convert::{Limits, hdf5};
use tensorhold_fuzz::foreign::check;
use tensorhold_fuzz::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|file: &[u8]| {
    check(file, 16 * 1024 * 1024, &mut || {
        hdf5::read(&file, &Limits::default())
    });
});
