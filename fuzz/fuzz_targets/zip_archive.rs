//! Any bytes as an archive: entries lie apart from each other in the file, what is unpacked has the checksum that the
//! headers give, and neither takes much memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensorhold_convert::Limits;
use tensorhold_convert::container::{Tar, Zip};
use tensorhold_fuzz::memory::{Counting, peak_of};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_UNPACKED: u64 = 1 << 18;

fuzz_target!(|file: &[u8]| {
    let mut limits = Limits::default();
    limits.inflated_bytes = MOST_UNPACKED;
    let mut opened = (None, None);
    let peak = peak_of(|| {
        opened = (
            Zip::open(&file, &limits).ok(),
            Tar::open(&file, &limits).ok(),
        )
    });
    let allowed = 16 * file.len() + 512 * 1024;
    assert!(peak < allowed, "{peak} bytes for a file of {}", file.len());
    if let Some(tar) = opened.1 {
        let is_inside = |end: u64| end <= file.len() as u64;
        assert!(tar.entries().iter().all(|entry| is_inside(entry.data.end)));
    }
    if let Some(zip) = opened.0 {
        check(&zip, file, &limits);
    }
});

fn check(zip: &Zip, file: &[u8], limits: &Limits) {
    let mut ranges: Vec<_> = zip.entries().iter().map(|entry| entry.data).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    for entry in zip.entries() {
        assert!(entry.data.end <= file.len() as u64);
        assert_eq!(zip.entry(&entry.name), Some(entry));
        if let Ok(bytes) = entry.bytes(&file, limits) {
            assert_eq!(bytes.len() as u64, entry.size_bytes);
            assert_eq!(crc32fast::hash(&bytes), entry.crc32);
        }
    }
}
