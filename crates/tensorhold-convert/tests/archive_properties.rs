//! Zip and tar archives of any entries, and such with any bytes changed.

use proptest::prelude::*;
use tensorhold_convert::Limits;
use tensorhold_convert::container::{Tar, Zip};

/// One entry as the writer below lays it down.
#[derive(Debug, Clone)]
struct Entry {
    name: String,
    data: Vec<u8>,
    is_deflated: bool,
    has_descriptor: bool,
    is_zip64: bool,
}

fn entry() -> impl Strategy<Value = Entry> {
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (any::<u8>(), 0usize..5000).prop_map(|(byte, n_bytes)| vec![byte; n_bytes]),
    ];
    let kind = (any::<bool>(), any::<bool>(), any::<bool>());
    ("[a-z]{1,4}(/[a-z0-9.]{2,6}x)?", data, kind).prop_map(|(name, data, kind)| Entry {
        name,
        data,
        is_deflated: kind.0,
        has_descriptor: kind.1,
        is_zip64: kind.2,
    })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(entry(), 0..6).prop_map(|mut entries| {
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        entries.dedup_by(|left, right| left.name == right.name);
        entries
    })
}

/// An archive, and where the packed bytes of each entry begin.
fn zip_of(entries: &[Entry]) -> (Vec<u8>, Vec<u64>) {
    let (mut file, mut directory, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let header = file.len() as u32;
        let crc32 = crc32fast::hash(&entry.data);
        let packed = match entry.is_deflated {
            true => miniz_oxide::deflate::compress_to_vec(&entry.data, 6),
            false => entry.data.clone(),
        };
        let sizes = [packed.len() as u64, entry.data.len() as u64];
        let local = match entry.has_descriptor {
            true => (0, [0, 0]),
            false => (crc32, sizes),
        };
        file.extend(b"PK\x03\x04\x2d\0");
        file.extend(head(entry, local.0, local.1));
        starts.push(file.len() as u64);
        file.extend(&packed);
        if entry.has_descriptor {
            file.extend(b"PK\x07\x08");
            file.extend(crc32.to_le_bytes());
            for size in sizes {
                let width = if entry.is_zip64 { 8 } else { 4 };
                file.extend(&size.to_le_bytes()[..width]);
            }
        }
        directory.extend(b"PK\x01\x02\x2d\0\x2d\0");
        let mut head = head(entry, crc32, sizes);
        let place = [&[0; 10][..], &header.to_le_bytes()].concat();
        head.splice(24..24, place);
        directory.extend(head);
    }
    let position = file.len() as u32;
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([entries.len() as u16; 2].map(u16::to_le_bytes).concat());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(position.to_le_bytes());
    file.extend([0, 0]);
    (file, starts)
}

/// What both headers of an entry have alike, from the flags to the end of the extra fields.
fn head(entry: &Entry, crc32: u32, sizes: [u64; 2]) -> Vec<u8> {
    let [packed, unpacked] = sizes;
    let mut extra = Vec::new();
    let mut small = [packed as u32, unpacked as u32];
    if entry.is_zip64 {
        extra.extend([1, 0, 16, 0]);
        extra.extend(unpacked.to_le_bytes());
        extra.extend(packed.to_le_bytes());
        small = [u32::MAX; 2];
    }
    let mut head = Vec::new();
    head.extend((u16::from(entry.has_descriptor) << 3).to_le_bytes());
    head.extend((u16::from(entry.is_deflated) << 3).to_le_bytes());
    head.extend([0; 4]);
    head.extend(crc32.to_le_bytes());
    head.extend(small.map(u32::to_le_bytes).concat());
    head.extend((entry.name.len() as u16).to_le_bytes());
    head.extend((extra.len() as u16).to_le_bytes());
    head.extend(entry.name.as_bytes());
    head.extend(extra);
    head
}

fn read_whatever_is_there(file: &[u8]) {
    let limits = Limits::default();
    if let Ok(tar) = Tar::open(&file, &limits) {
        assert!(
            tar.entries()
                .iter()
                .all(|entry| entry.data.end <= file.len() as u64)
        );
    }
    let Ok(zip) = Zip::open(&file, &limits) else {
        return;
    };
    let mut ranges: Vec<_> = zip.entries().iter().map(|entry| entry.data).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    for entry in zip.entries() {
        assert!(entry.data.end <= file.len() as u64);
        if let Ok(bytes) = entry.bytes(&file, &limits) {
            assert_eq!(crc32fast::hash(&bytes), entry.crc32);
        }
    }
}

proptest! {
    #[test]
    fn every_archive_is_read_as_it_was_written(entries in entries()) {
        let (file, starts) = zip_of(&entries);
        let limits = Limits::default();
        let zip = Zip::open(&&file[..], &limits).unwrap();
        prop_assert_eq!(zip.findings(), &[]);
        prop_assert_eq!(zip.entries().len(), entries.len());
        for ((found, entry), start) in zip.entries().iter().zip(&entries).zip(starts) {
            prop_assert_eq!(&found.name, &entry.name);
            prop_assert_eq!(found.data.start, start);
            prop_assert_eq!(&found.bytes(&&file[..], &limits).unwrap(), &entry.data);
        }
    }

    #[test]
    fn changed_archives_are_read_without_harm(
        entries in entries(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let (mut file, _) = zip_of(&entries);
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        read_whatever_is_there(&file);
    }

    #[test]
    fn any_bytes_are_read_without_harm(file in prop::collection::vec(any::<u8>(), 0..2000)) {
        read_whatever_is_there(&file);
        read_whatever_is_there(&[&file[..], b"PK\x05\x06", &[0; 18]].concat());
    }
}
