//! Files read at positions.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};

use proptest::prelude::*;
use tensorhold_core::{ByteRange, ErrorKind, Source};
use tensorhold_io::Pread;

fn source_with(bytes: &[u8]) -> (tempfile::TempDir, Pread) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, bytes).unwrap();
    let source = Pread::new(File::open(path).unwrap()).unwrap();
    (folder, source)
}

proptest! {
    #[test]
    fn any_range_reads_as_from_memory(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        position in 0_u64..400,
        wanted in 0_usize..400,
    ) {
        let (_folder, source) = source_with(&bytes);
        let (mut ours, mut theirs) = (vec![0; wanted], vec![0; wanted]);
        let result = source.read_at(position, &mut ours);
        match bytes[..].read_at(position, &mut theirs) {
            Ok(()) => {
                prop_assert!(result.is_ok());
                prop_assert_eq!(ours, theirs);
            }
            // The memory is stricter about no bytes from beyond the end.
            Err(_) if wanted == 0 => prop_assert!(result.is_ok()),
            Err(error) => prop_assert_eq!(result.unwrap_err().to_string(), error.to_string()),
        }
    }
}

#[test]
fn a_file_that_shrank_says_so() {
    let (folder, source) = source_with(&[7; 100]);
    File::options()
        .write(true)
        .open(folder.path().join("a"))
        .unwrap()
        .set_len(40)
        .unwrap();
    let error = source.read_at(30, &mut [0; 50]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    assert_eq!(error.message(), "file ends at byte 40, 40 bytes short");
    assert_eq!(error.bytes(), Some(ByteRange::new(30, 80)));
    assert_eq!(
        error.hint(),
        Some(
            "the file shrank from 100 to 40 bytes since it was opened; open it again once it is whole"
        )
    );
    assert_eq!(source.size_bytes(), 100);
}

#[cfg(target_os = "linux")]
#[test]
fn an_error_of_the_device_keeps_its_number_and_place() {
    let source = Pread::new(File::open("/proc/self/mem").unwrap()).unwrap();
    let error = source.read_at(8, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.os_error(), Some(5));
    assert_eq!(
        error.to_string(),
        "cannot read: Input/output error (bytes 8..16)"
    );
}

#[test]
fn positions_past_every_file_are_errors() {
    let (_folder, source) = source_with(b"hello");
    assert!(source.read_at(u64::MAX, &mut [0; 8]).is_err());
    assert!(source.read_at(1 << 62, &mut [0; 8]).is_err());
}
