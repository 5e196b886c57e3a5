//! Archives that Python's zipfile and tarfile wrote, and bent ones, against what is said of them.

#![allow(clippy::unwrap_used)]

mod common;

use common::{check_findings, check_refusal};
use serde_json::Value;
use tensorhold_convert::Limits;
use tensorhold_convert::container::{Tar, Zip};

fn cases(suffix: &str) -> std::collections::BTreeMap<String, (Vec<u8>, Value)> {
    common::cases("archives", suffix)
}

fn adler32(bytes: &[u8]) -> u64 {
    let (low, high) = bytes.iter().fold((1u64, 0u64), |(low, high), byte| {
        let low = (low + u64::from(*byte)) % 65521;
        (low, (high + low) % 65521)
    });
    high << 16 | low
}

fn check_zip(name: &str, file: &[u8], case: &Value) {
    let limits = Limits::default();
    let zip = Zip::open(&file, &limits).unwrap_or_else(|error| panic!("{name}: {error}"));
    check_findings(name, zip.findings(), case);
    let expected = case["entries"].as_array().unwrap();
    assert_eq!(zip.entries().len(), expected.len(), "{name}");
    for (entry, expected) in zip.entries().iter().zip(expected) {
        assert_eq!(entry.name, expected["name"].as_str().unwrap(), "{name}");
        assert_eq!(
            format!("{:?}", entry.method),
            expected["method"].as_str().unwrap()
        );
        assert_eq!(entry.size_bytes, expected["size"], "{name}");
        assert_eq!(entry.data.start, expected["start"], "{name}");
        assert_eq!(entry.data.end, expected["end"], "{name}");
        assert_eq!(entry.crc32, expected["crc32"], "{name}");
        let bytes = entry.bytes(&file, &limits).unwrap();
        assert_eq!(adler32(&bytes), expected["adler32"], "{name}");
        assert_eq!(zip.entry(&entry.name), Some(entry));
    }
    assert_eq!(zip.entry("no such name"), None);
}

#[test]
fn zip_archives_have_what_python_finds_in_them() {
    for (name, (file, case)) in cases(".zip") {
        if case["entries"].is_array() {
            check_zip(&name, &file, &case);
        }
    }
}

#[test]
fn zip_archives_that_could_be_read_in_two_ways_are_refused() {
    for (name, (file, case)) in cases(".zip") {
        if case["kind"].is_string() {
            check_refusal(&name, Zip::open(&&file[..], &Limits::default()), &case);
        }
    }
}

#[test]
fn zip_entries_whose_bytes_are_not_what_their_headers_say_are_refused() {
    let limits = Limits::default();
    for (name, (file, case)) in cases(".zip") {
        if let Some(broken) = case["broken"].as_str() {
            let zip = Zip::open(&&file[..], &limits).unwrap();
            let entry = zip.entry(broken).unwrap();
            check_refusal(&name, entry.bytes(&&file[..], &limits), &case);
        }
    }
}

#[test]
fn every_cut_of_a_zip_archive_is_refused() {
    for (name, (file, case)) in cases(".zip") {
        let is_plain = case["findings"].as_array().is_some_and(Vec::is_empty);
        // The end of an archive that is stored in another would end the cut one.
        if is_plain && name != "zip_in_zip.zip" && file.len() < 10_000 {
            for end in 0..file.len() {
                assert!(
                    Zip::open(&&file[..end], &Limits::default()).is_err(),
                    "{name} at {end}"
                );
            }
        }
    }
}

#[test]
fn an_entry_is_read_in_pieces_of_any_size() {
    let (file, _) = &cases(".zip")["noise_deflated.zip"];
    let limits = Limits::default();
    let zip = Zip::open(&&file[..], &limits).unwrap();
    let whole = zip.entries()[0].bytes(&&file[..], &limits).unwrap();
    for piece_bytes in [1, 7, 4096, 70_000] {
        let source = &file[..];
        let mut reader = zip.entries()[0].reader(&source);
        let (mut read, mut piece) = (Vec::<u8>::new(), vec![0; piece_bytes]);
        loop {
            let n_bytes = reader.read(&mut piece).unwrap();
            if n_bytes == 0 {
                break;
            }
            read.extend(&piece[..n_bytes]);
        }
        assert!(read == whole, "in pieces of {piece_bytes} bytes");
        reader.finish().unwrap();
    }
}

#[test]
fn limits_on_unpacked_bytes_are_kept() {
    let (file, _) = &cases(".zip")["mixed.zip"];
    let zip = Zip::open(&&file[..], &Limits::default()).unwrap();
    let mut limits = Limits::default();
    limits.inflate_ratio = 2;
    let error = zip.entries()[0].bytes(&&file[..], &limits).unwrap_err();
    assert!(
        error.message().contains("over the limit of 2 times"),
        "{error}"
    );
    limits.inflated_bytes = 100;
    let error = zip.entries()[1].bytes(&&file[..], &limits).unwrap_err();
    assert!(
        error
            .message()
            .contains("768 bytes are over the limit of 100"),
        "{error}"
    );
    limits.entries = 2;
    let error = Zip::open(&&file[..], &limits).unwrap_err();
    assert!(error.message().contains("a limit of 2"), "{error}");
}

#[test]
fn tar_archives_have_what_python_finds_in_them() {
    for (name, (file, case)) in cases(".tar") {
        let tar = Tar::open(&&file[..], &Limits::default());
        let Some(expected) = case["entries"].as_array() else {
            check_refusal(&name, tar, &case);
            continue;
        };
        let tar = tar.unwrap_or_else(|error| panic!("{name}: {error}"));
        check_findings(&name, tar.findings(), &case);
        assert_eq!(tar.entries().len(), expected.len(), "{name}");
        for (entry, expected) in tar.entries().iter().zip(expected) {
            assert_eq!(entry.name, expected["name"].as_str().unwrap(), "{name}");
            assert_eq!(entry.data.start, expected["start"], "{name}");
            assert_eq!(entry.data.end, expected["end"], "{name}");
            assert_eq!(tar.entry(&entry.name), Some(entry));
        }
    }
}
