//! A parse that is held to three times the memory of its input.

use tensorhold_core::{Header, Rules};

use crate::memory::peak_of;

/// Parses `file` by both sets of rules; panics where that takes too much, or gives a table that contradicts itself.
pub fn check(file: &[u8]) {
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
