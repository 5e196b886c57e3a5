//! Any bytes: the parser neither panics nor takes three times the memory of its input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_core::{Header, Rules, sniff};
use tensorhold_fuzz::memory::{Counting, peak_of};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|file: &[u8]| {
    check(file);
    let tail = &file[file.len().saturating_sub(64)..];
    let _ = sniff(file, tail, file.len() as u64);
    if let Some(large) = grown(file) {
        check(&large);
    }
});

fn check(file: &[u8]) {
    for rules in [Rules::Compatible, Rules::Strict] {
        let mut header = None;
        let peak = peak_of(|| header = Header::parse_file(file, rules).ok());
        let allowed = 3 * file.len() + 64 * 1024;
        assert!(peak < allowed, "{peak} bytes for a file of {}", file.len());
        let Some(header) = header else { continue };
        assert_eq!(header.file_size(), file.len() as u64);
        for (index, tensor) in header.tensors().enumerate() {
            assert_eq!(header.index_of(tensor.name), Some(index));
            assert!(tensor.offsets.end <= header.data_size());
        }
    }
}

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
