//! Any bytes: the parser neither panics nor takes three times the memory of its input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_core::sniff;
use tensorhold_fuzz::bounded::check;
use tensorhold_fuzz::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|file: &[u8]| {
    check(file);
    let tail = &file[file.len().saturating_sub(64)..];
    let _ = sniff(file, tail, file.len() as u64);
});
