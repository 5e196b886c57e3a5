//! Any bytes as a message pack: every element of every array lies in the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_convert::{Limits, flax};
use tensorhold_fuzz::foreign::check;
use tensorhold_fuzz::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|file: &[u8]| {
    check(file, 256 * 1024, &mut || {
        flax::read(&file, &Limits::default())
    });
});
