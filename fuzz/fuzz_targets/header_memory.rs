//! Large headers that repeat one thing: the parser takes less than three times the memory of its input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_fuzz::bounded::check;
use tensorhold_fuzz::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|seed: &[u8]| {
    if let Some(large) = grown(seed) {
        check(&large);
    }
});

/// `start|unit|end` as a header in which the unit stands thousands of times, each `#` in it another
/// number: what grows with the number of things shows only in large files.
fn grown(file: &[u8]) -> Option<Vec<u8>> {
    let mut parts = file.split(|byte| *byte == b'|');
    let (start, unit, end) = (parts.next()?, parts.next()?, parts.next()?);
    if unit.is_empty() || unit.len() > 256 || parts.next().is_some() {
        return None;
    }
    let mut text = start.to_vec();
    for number in 0.. {
        if text.len() > 128 * 1024 {
            break;
        }
        for byte in unit {
            match byte {
                b'#' => text.extend(format!("{number:x}").bytes()),
                byte => text.push(*byte),
            }
        }
    }
    text.extend(end);
    Some([&(text.len() as u64).to_le_bytes()[..], &text].concat())
}
