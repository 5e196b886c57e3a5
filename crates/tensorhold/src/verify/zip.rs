//! Whether a file can be taken for a zip archive: zip tools look for the archive's end, not its beginning.

use tensorhold_core::{ByteRange, Result, Source};

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: u64 = 22;
/// The end record and the longest comment behind it.
const TAIL_BYTES: u64 = END_BYTES + 65_535;
const DIRECTORY: [u8; 4] = *b"PK\x01\x02";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_64_BYTES: u64 = 20;

/// Where the end of a zip archive lies in `source`, if it has one.
///
/// The four bytes of the signature alone come up by chance once in 65 000 files of weights. So the record must
/// also lead to a directory, in one of the ways that zip tools go, or be the end of an empty archive.
///
/// # Source
/// APPNOTE 6.3.10 §4.3.16; Python's `zipfile`, Info-ZIP and miniz, which PyTorch uses.
pub(super) fn find_end<S: Source + ?Sized>(source: &S) -> Result<Option<ByteRange>> {
    let file_bytes = source.size_bytes();
    let start = file_bytes.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0; usize::try_from(file_bytes - start).expect("65 557 bytes at most")];
    source.read_at(start, &mut tail)?;
    for (at, record) in tail.windows(END_BYTES as usize).enumerate() {
        let position = start + at as u64;
        if record.starts_with(END) && leads_to_directory(source, record, position)? {
            return Ok(Some(ByteRange::new(position, position + END_BYTES)));
        }
    }
    Ok(None)
}

fn leads_to_directory<S: Source + ?Sized>(
    source: &S,
    record: &[u8],
    position: u64,
) -> Result<bool> {
    let number = |at: usize| {
        let bytes = [record[at], record[at + 1], record[at + 2], record[at + 3]];
        u64::from(u32::from_le_bytes(bytes))
    };
    let (size, offset) = (number(12), number(16));
    if size == 0 && record[8..12] == [0; 4] {
        return Ok(true);
    }
    let before = position.checked_sub(size);
    let locator = position.checked_sub(LOCATOR_64_BYTES);
    Ok(has(source, before, DIRECTORY)?
        || has(source, Some(offset), DIRECTORY)?
        || has(source, locator, LOCATOR_64)?)
}

fn has<S: Source + ?Sized>(source: &S, position: Option<u64>, signature: [u8; 4]) -> Result<bool> {
    let Some(position) = position.filter(|at| at.saturating_add(4) <= source.size_bytes()) else {
        return Ok(false);
    };
    let mut bytes = [0; 4];
    source.read_at(position, &mut bytes)?;
    Ok(bytes == signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(n_entries: u16, size: u32, offset: u32) -> Vec<u8> {
        let mut record = END.to_vec();
        record.extend([0; 4]);
        record.extend([n_entries.to_le_bytes(), n_entries.to_le_bytes()].concat());
        record.extend([size.to_le_bytes(), offset.to_le_bytes()].concat());
        record.extend([0; 2]);
        record
    }

    fn check(parts: &[&[u8]], expected: Option<u64>) {
        let file = parts.concat();
        let found = find_end(&file[..]).unwrap();
        assert_eq!(found.map(|range| range.start), expected);
    }

    #[test]
    fn an_end_that_leads_to_a_directory_is_found() {
        let directory = [&DIRECTORY[..], &[0; 42]].concat();
        let data = [7; 100];
        check(&[&data, &directory, &end(1, 46, 9999)], Some(146));
        check(&[&data, &directory, &data, &end(1, 5, 100)], Some(246));
        check(
            &[&data, &directory, &end(1, 46, 0), &[0; 65_535]],
            Some(146),
        );
        check(
            &[
                &data,
                &LOCATOR_64,
                &[0; 16],
                &end(u16::MAX, u32::MAX, u32::MAX),
            ],
            Some(120),
        );
        check(&[&data, &end(0, 0, 0)], Some(100));
    }

    #[test]
    fn a_signature_that_leads_nowhere_is_chance() {
        check(&[&[7; 100], END, &[7; 100]], None);
        check(&[&[7; 100], &end(1, 46, 0)], None);
        check(&[&DIRECTORY, &[7; 42], &end(1, 46, 0)[..21]], None);
        check(&[END], None);
        check(&[], None);
    }

    #[test]
    fn zip_tools_look_no_further_than_the_longest_comment() {
        let directory = [&DIRECTORY[..], &[0; 42]].concat();
        check(&[&directory, &end(1, 46, 0), &[0; 65_536]], None);
    }
}
