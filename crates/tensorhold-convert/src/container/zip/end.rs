//! The record that ends an archive and says where its directory is.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use crate::container::{malformed, u16_at, u32_at, u64_at};

const END: &[u8; 4] = b"PK\x05\x06";
const LOCATOR: &[u8; 4] = b"PK\x06\x07";
const END_64: &[u8; 4] = b"PK\x06\x06";
const END_BYTES: u64 = 22;
const LOCATOR_BYTES: u64 = 20;
const END_64_BYTES: u64 = 56;

/// What the end of an archive says.
pub(super) struct End {
    pub n_entries: u64,
    /// Where the directory lies in the file.
    pub directory: ByteRange,
    /// By how much each position in the archive is less than the position in the file: bytes were put before it.
    pub shift: u64,
    /// The comment, which is nobody's data.
    pub comment: ByteRange,
    /// Positions of earlier records that could be taken for the end.
    pub earlier: Vec<u64>,
}

/// The fields that a small and a large archive have alike.
struct Counts {
    n_entries: u64,
    size_bytes: u64,
    position: u64,
    /// Where the record begins: the directory must end there.
    record: u64,
    shift: Option<u64>,
}

impl End {
    /// The last record of `source` that ends an archive.
    pub fn find(source: &dyn Source) -> Result<End> {
        let (from, tail) = tail_of(source)?;
        let mut places = places_of(END, &tail);
        let last = places.pop().ok_or_else(|| no_end(source.size_bytes()))?;
        let mut end = End::parse(source, from + last as u64)?;
        for place in places {
            let position = from + place as u64;
            if position >= end.directory.end || position < end.directory.start {
                end.earlier
                    .extend(is_plausible(source, position, &tail[place..]).then_some(position));
            }
        }
        Ok(end)
    }

    fn parse(source: &dyn Source, position: u64) -> Result<End> {
        let mut record = [0; END_BYTES as usize];
        source.read_at(position, &mut record)?;
        let here = ByteRange::new(position, position + END_BYTES);
        let comment = ByteRange::new(here.end, here.end + u64::from(u16_at(&record, 20)));
        if comment.end > source.size_bytes() {
            return Err(malformed(
                "zip: the comment runs past the end of the file".to_owned(),
                here,
            ));
        }
        if (u16_at(&record, 4), u16_at(&record, 6)) != (0, 0) {
            return Err(malformed(
                "zip: the archive is split over several files".to_owned(),
                here,
            ));
        }
        let counts = small_counts(&record, position)?;
        let counts = match read_64(source, position, &counts)? {
            Some(large) => large,
            None => counts,
        };
        let (directory, shift) = counts.place_directory()?;
        Ok(End {
            n_entries: counts.n_entries,
            directory,
            shift,
            comment,
            earlier: Vec::new(),
        })
    }
}

/// Where the end of an archive lies in a file of whatever format, if it has one: zip tools look for that, not for a beginning.
///
/// The four bytes of the signature alone come up by chance once in 65 000 files of weights. So the record must
/// also lead to a directory, in one of the ways that zip tools go, or be the end of an empty archive.
///
/// # Errors
/// What the source refuses with.
///
/// # Source
/// APPNOTE 6.3.10, section 4.3.16; Python's `zipfile`, Info-ZIP and miniz, which PyTorch uses.
pub fn find_end(source: &dyn Source) -> Result<Option<ByteRange>> {
    let (from, tail) = tail_of(source)?;
    for place in places_of(END, &tail) {
        let position = from + place as u64;
        if leads_to_directory(source, position, &tail[place..])? {
            return Ok(Some(ByteRange::new(position, position + END_BYTES)));
        }
    }
    Ok(None)
}

fn leads_to_directory(source: &dyn Source, position: u64, record: &[u8]) -> Result<bool> {
    let (size, offset) = (u64::from(u32_at(record, 12)), u64::from(u32_at(record, 16)));
    if size == 0 && (u16_at(record, 8), u16_at(record, 10)) == (0, 0) {
        return Ok(true);
    }
    let before = position.checked_sub(size);
    let locator = position.checked_sub(LOCATOR_BYTES);
    Ok(stands(source, before, super::directory::SIGNATURE)?
        || stands(source, Some(offset), super::directory::SIGNATURE)?
        || stands(source, locator, LOCATOR)?)
}

fn stands(source: &dyn Source, position: Option<u64>, signature: &[u8; 4]) -> Result<bool> {
    let Some(position) = position.filter(|at| at.saturating_add(4) <= source.size_bytes()) else {
        return Ok(false);
    };
    let mut bytes = [0; 4];
    source.read_at(position, &mut bytes)?;
    Ok(&bytes == signature)
}

/// The last bytes of a file, in which an archive's end must be, and where they begin.
fn tail_of(source: &dyn Source) -> Result<(u64, Vec<u8>)> {
    let size_bytes = source.size_bytes();
    let tail_bytes = size_bytes.min(END_BYTES + u64::from(u16::MAX));
    let mut tail = vec![0; tail_bytes as usize];
    source.read_at(size_bytes - tail_bytes, &mut tail)?;
    Ok((size_bytes - tail_bytes, tail))
}

/// Every place where `signature` stands, and a whole record after it.
fn places_of(signature: &[u8; 4], tail: &[u8]) -> Vec<usize> {
    memchr::memmem::find_iter(tail, signature)
        .filter(|place| tail.len() - place >= END_BYTES as usize)
        .collect()
}

fn no_end(size_bytes: u64) -> Error {
    let error = Error::new(
        ErrorKind::Truncated,
        format!(
            "zip: no end of the directory in the last bytes of the file, which has {size_bytes}"
        ),
    );
    error.with_hint("the file was probably cut; fetch it again")
}

/// Whether a reader that looks for another end than the last could take this one.
fn is_plausible(source: &dyn Source, position: u64, record: &[u8]) -> bool {
    let n_entries = u16_at(record, 10);
    let size_bytes = u64::from(u32_at(record, 12));
    let directory = position.checked_sub(size_bytes);
    n_entries > 0
        && stands(source, directory, super::directory::SIGNATURE).is_ok_and(|stands| stands)
}

fn small_counts(record: &[u8], position: u64) -> Result<Counts> {
    if u16_at(record, 8) != u16_at(record, 10) {
        let here = ByteRange::new(position, position + END_BYTES);
        return Err(malformed(
            "zip: the two counts of entries differ".to_owned(),
            here,
        ));
    }
    Ok(Counts {
        n_entries: u64::from(u16_at(record, 10)),
        size_bytes: u64::from(u32_at(record, 12)),
        position: u64::from(u32_at(record, 16)),
        record: position,
        shift: None,
    })
}

/// The record of a large archive, where its locator stands right before the end; what `small` says too must agree.
fn read_64(source: &dyn Source, end: u64, small: &Counts) -> Result<Option<Counts>> {
    let Some(locator_at) = end.checked_sub(LOCATOR_BYTES) else {
        return Ok(None);
    };
    let mut locator = [0; LOCATOR_BYTES as usize];
    source.read_at(locator_at, &mut locator)?;
    if !locator.starts_with(LOCATOR) {
        return Ok(None);
    }
    let here = ByteRange::new(locator_at, end);
    let wrong = |what: &str| malformed(format!("zip: {what}"), here);
    let record_at = locator_at
        .checked_sub(END_64_BYTES)
        .ok_or_else(|| wrong("the zip64 end record lies before the file"))?;
    let shift = record_at
        .checked_sub(u64_at(&locator, 8))
        .ok_or_else(|| wrong("the zip64 end record does not end at its locator"))?;
    if u32_at(&locator, 4) != 0 || u32_at(&locator, 16) > 1 {
        return Err(wrong("the archive is split over several files"));
    }
    let mut record = [0; END_64_BYTES as usize];
    source.read_at(record_at, &mut record)?;
    let counts = parse_64(&record, record_at, shift)?;
    counts.must_agree(small)?;
    Ok(Some(counts))
}

fn parse_64(record: &[u8], position: u64, shift: u64) -> Result<Counts> {
    let here = ByteRange::new(position, position + END_64_BYTES);
    let wrong = |what: &str| malformed(format!("zip: {what}"), here);
    if !record.starts_with(END_64) || u64_at(record, 4) != END_64_BYTES - 12 {
        return Err(wrong("the zip64 end record is not where its locator says"));
    }
    if (u32_at(record, 16), u32_at(record, 20)) != (0, 0) {
        return Err(wrong("the archive is split over several files"));
    }
    if u64_at(record, 24) != u64_at(record, 32) {
        return Err(wrong("the two counts of entries differ"));
    }
    Ok(Counts {
        n_entries: u64_at(record, 32),
        size_bytes: u64_at(record, 40),
        position: u64_at(record, 48),
        record: position,
        shift: Some(shift),
    })
}

impl Counts {
    /// A field of the small record is all ones, or says what the large one says.
    fn must_agree(&self, small: &Counts) -> Result<()> {
        let is_same = |large: u64, small: u64, ones: u64| small == ones || small == large;
        let agrees = is_same(self.n_entries, small.n_entries, u64::from(u16::MAX))
            && is_same(self.size_bytes, small.size_bytes, u64::from(u32::MAX))
            && is_same(self.position, small.position, u64::from(u32::MAX));
        if agrees {
            return Ok(());
        }
        let here = ByteRange::new(self.record, small.record + END_BYTES);
        Err(malformed(
            "zip: the end record and its zip64 record disagree".to_owned(),
            here,
        ))
    }

    fn place_directory(&self) -> Result<(ByteRange, u64)> {
        let here = ByteRange::new(self.record, self.record + END_BYTES);
        let end = self.position.checked_add(self.size_bytes);
        let shift = end
            .and_then(|end| self.record.checked_sub(end))
            .ok_or_else(|| {
                malformed(
                    "zip: the directory does not end where its end record begins".to_owned(),
                    here,
                )
            })?;
        if self.shift.is_some_and(|of_locator| of_locator != shift) {
            let what =
                "zip: the end record and its locator disagree about where the archive begins";
            return Err(malformed(what.to_owned(), here));
        }
        Ok((
            ByteRange::new(self.record - self.size_bytes, self.record),
            shift,
        ))
    }
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

    fn directory() -> Vec<u8> {
        [&super::super::directory::SIGNATURE[..], &[0; 42]].concat()
    }

    fn check(parts: &[&[u8]], expected: Option<u64>) {
        let file = parts.concat();
        let found = find_end(&file.as_slice()).unwrap();
        assert_eq!(found.map(|range| range.start), expected);
    }

    #[test]
    fn an_end_that_leads_to_a_directory_is_found() {
        let directory = directory();
        let data = [7; 100];
        let last = end(u16::MAX, u32::MAX, u32::MAX);
        check(&[&data, &directory, &end(1, 46, 9999)], Some(146));
        check(&[&data, &directory, &data, &end(1, 5, 100)], Some(246));
        let comment = [0; 65_535];
        check(&[&data, &directory, &end(1, 46, 0), &comment], Some(146));
        check(&[&data, LOCATOR, &[0; 16], &last], Some(120));
        check(&[&data, &end(0, 0, 0)], Some(100));
    }

    #[test]
    fn a_signature_that_leads_nowhere_is_chance() {
        check(&[&[7; 100], END, &[7; 100]], None);
        check(&[&[7; 100], &end(1, 46, 0)], None);
        check(&[&directory(), &end(1, 46, 0)[..21]], None);
        check(&[END], None);
        check(&[], None);
    }

    #[test]
    fn zip_tools_look_no_further_than_the_longest_comment() {
        check(&[&directory(), &end(1, 46, 0), &[0; 65_536]], None);
    }
}
