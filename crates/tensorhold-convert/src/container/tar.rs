//! Tar archives: names and places of regular files, and nothing that leads elsewhere.
//!
//! # Source
//! The ustar and pax formats of POSIX.1-2017 (`pax`), and GNU tar's long names and large numbers.

use std::collections::HashSet;

use tensorhold_core::{ByteRange, Error, Result, Source};

use super::{Names, malformed, short};
use crate::finding::{Class, Finding, FindingKind};
use crate::limits::Limits;

const BLOCK_BYTES: u64 = 512;
/// No path is longer.
const LONGEST_RECORD_BYTES: u64 = 64 * 1024;

/// The entries of a tar archive.
#[derive(Debug, Clone)]
pub struct Tar {
    entries: Vec<TarEntry>,
    findings: Vec<Finding>,
}

/// A regular file in a tar archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The path in the archive.
    pub name: String,
    /// Where its bytes lie in the file.
    pub data: ByteRange,
}

impl Tar {
    /// The regular files of the archive in `source`; folders are passed over.
    ///
    /// # Errors
    /// `ForeignFormat` for an archive that is malformed, has links, devices or sparse files, or names an entry twice or
    /// absurdly; `Truncated` where it ends early. The message names the entry.
    pub fn open(source: &dyn Source, limits: &Limits) -> Result<Tar> {
        let mut walk = Walk {
            source,
            position: 0,
            said: Said::default(),
        };
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        let mut n_headers = 0;
        while let Some(entry) = walk.next_entry(&mut n_headers, limits)? {
            if !names.insert(entry.name.clone()) {
                return Err(refusal(&entry.name, "its name stands twice", entry.data));
            }
            entries.push(entry);
        }
        let findings = after_end(source, walk.position)?.into_iter().collect();
        Ok(Tar { entries, findings })
    }

    /// The entries, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[TarEntry] {
        &self.entries
    }

    /// The entry of this name; names are compared byte for byte.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&TarEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// What is strange about the archive.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

fn refusal(name: &str, what: &str, bytes: ByteRange) -> Error {
    malformed(format!("tar entry {}: {what}", short(name)), bytes)
}

/// What the records before an entry say of it.
#[derive(Default)]
struct Said {
    name: Option<String>,
    size_bytes: Option<u64>,
}

struct Walk<'a> {
    source: &'a dyn Source,
    /// The position of the next header.
    position: u64,
    said: Said,
}

/// One header, whose checksum is right.
struct Head {
    kind: u8,
    name: Vec<u8>,
    size_bytes: u64,
    bytes: ByteRange,
}

impl Walk<'_> {
    /// The next regular file; `None` at the end of the archive.
    fn next_entry(&mut self, n_headers: &mut u64, limits: &Limits) -> Result<Option<TarEntry>> {
        while let Some(head) = self.head()? {
            *n_headers += 1;
            if *n_headers > limits.entries {
                let what = format!("tar: more than {} entries", limits.entries);
                return Err(malformed(what, head.bytes));
            }
            match head.kind {
                b'x' => self.read_pax(&head)?,
                b'g' => self.refuse_global(&head)?,
                b'L' => self.read_long_name(&head)?,
                _ => {
                    let entry = self.entry(&head)?;
                    if let Some(entry) = entry {
                        return Ok(Some(entry));
                    }
                }
            }
        }
        if self.said.name.is_some() || self.said.size_bytes.is_some() {
            let here = ByteRange::new(self.position, self.position);
            return Err(malformed(
                "tar: it ends after a record that names an entry".to_owned(),
                here,
            ));
        }
        Ok(None)
    }

    /// The next header; `None` where a block of zeros stands, or the file ends.
    fn head(&mut self) -> Result<Option<Head>> {
        if self.position == self.source.size_bytes() && self.position > 0 {
            return Ok(None);
        }
        let mut block = [0; BLOCK_BYTES as usize];
        self.source.read_at(self.position, &mut block)?;
        let bytes = ByteRange::new(self.position, self.position + BLOCK_BYTES);
        if block == [0; BLOCK_BYTES as usize] {
            return Ok(None);
        }
        let head = Head::parse(&block).map_err(|what| malformed(format!("tar: {what}"), bytes))?;
        self.position = bytes.end;
        Ok(Some(Head { bytes, ..head }))
    }

    /// Passes over the bytes of an entry and what fills their last block.
    fn skip(&mut self, size_bytes: u64) -> Result<ByteRange> {
        let end = self.position.checked_add(size_bytes);
        let size_of_file = self.source.size_bytes();
        let end = end
            .filter(|end| *end <= size_of_file)
            .ok_or_else(|| Error::truncated(self.position, size_bytes, size_of_file))?;
        let data = ByteRange::new(self.position, end);
        self.position = end.next_multiple_of(BLOCK_BYTES).min(size_of_file);
        Ok(data)
    }

    fn record(&mut self, head: &Head) -> Result<Vec<u8>> {
        if head.size_bytes > LONGEST_RECORD_BYTES {
            let what = format!("tar: a record about an entry has {} bytes", head.size_bytes);
            return Err(malformed(what, head.bytes));
        }
        let data = self.skip(head.size_bytes)?;
        let mut record = vec![0; data.len() as usize];
        self.source.read_at(data.start, &mut record)?;
        Ok(record)
    }

    fn read_pax(&mut self, head: &Head) -> Result<()> {
        let record = self.record(head)?;
        for (key, value) in pax(&record).map_err(|what| malformed(what, head.bytes))? {
            match key {
                "path" => self.say_name(value.to_owned(), head)?,
                "size" => {
                    let size = value.parse().map_err(|_| {
                        malformed(
                            "tar: a pax record gives a size that is no number".to_owned(),
                            head.bytes,
                        )
                    })?;
                    if self.said.size_bytes.replace(size).is_some() {
                        return Err(malformed(
                            "tar: two records give an entry a size".to_owned(),
                            head.bytes,
                        ));
                    }
                }
                key if key == "linkpath" || key.starts_with("GNU.sparse") => {
                    return Err(malformed(
                        "tar: it has links or sparse files".to_owned(),
                        head.bytes,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A record about all entries that follow may say nothing of their names and sizes.
    fn refuse_global(&mut self, head: &Head) -> Result<()> {
        let record = self.record(head)?;
        let pairs = pax(&record).map_err(|what| malformed(what, head.bytes))?;
        if pairs
            .iter()
            .any(|(key, _)| matches!(*key, "path" | "size" | "linkpath"))
        {
            let what = "tar: a global record gives a name or a size to all entries";
            return Err(malformed(what.to_owned(), head.bytes));
        }
        Ok(())
    }

    fn read_long_name(&mut self, head: &Head) -> Result<()> {
        let mut record = self.record(head)?;
        if record.pop_if(|byte| *byte == 0).is_none() {
            return Err(malformed(
                "tar: a long name does not end".to_owned(),
                head.bytes,
            ));
        }
        let name = text(record, head)?;
        self.say_name(name, head)
    }

    fn say_name(&mut self, name: String, head: &Head) -> Result<()> {
        match self.said.name.replace(name) {
            None => Ok(()),
            Some(_) => Err(malformed(
                "tar: two records give an entry a name".to_owned(),
                head.bytes,
            )),
        }
    }

    /// The entry that a header begins; `None` for a folder.
    fn entry(&mut self, head: &Head) -> Result<Option<TarEntry>> {
        let said = std::mem::take(&mut self.said);
        let name = match said.name {
            Some(name) => name,
            None => text(head.name.clone(), head)?,
        };
        let wrong = |what: &str| refusal(&name, what, head.bytes);
        if let Some(reason) = Names::Paths.refuse(&name) {
            return Err(wrong(reason));
        }
        let size_bytes = said.size_bytes.unwrap_or(head.size_bytes);
        match head.kind {
            b'0' | 0 | b'7' if !name.ends_with('/') => {}
            b'5' | 0 if size_bytes == 0 => return Ok(None),
            b'0' | 0 | b'5' | b'7' => return Err(wrong("a folder has no bytes")),
            b'1' | b'2' | b'K' => return Err(wrong("it is a link")),
            b'3' | b'4' | b'6' => return Err(wrong("it is a device")),
            b'S' => return Err(wrong("it is a sparse file")),
            kind => return Err(wrong(&format!("it is of no known kind ({kind})"))),
        }
        let data = self.skip(size_bytes)?;
        Ok(Some(TarEntry { name, data }))
    }
}

fn text(bytes: Vec<u8>, head: &Head) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| {
        malformed(
            "tar: the name of an entry is not UTF-8".to_owned(),
            head.bytes,
        )
    })
}

impl Head {
    fn parse(block: &[u8; BLOCK_BYTES as usize]) -> Result<Head, &'static str> {
        let stated = number(&block[148..156]).ok_or("a header's checksum is no number")?;
        let sum = |range: std::ops::Range<usize>| -> u64 {
            block[range].iter().map(|byte| u64::from(*byte)).sum()
        };
        // The checksum counts itself as eight spaces.
        if sum(0..148) + 8 * 32 + sum(156..512) != stated {
            return Err("a header has a wrong checksum");
        }
        let mut name = until_zero(&block[..100]).to_vec();
        let prefix = until_zero(&block[345..500]);
        if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let size_bytes = number(&block[124..136]).ok_or("an entry's size is no number")?;
        let bytes = ByteRange::default();
        Ok(Head {
            kind: block[156],
            name,
            size_bytes,
            bytes,
        })
    }
}

fn until_zero(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A number in octal digits, or, after a byte of 128, in binary.
fn number(field: &[u8]) -> Option<u64> {
    if let [128, binary @ ..] = field {
        let (high, low) = binary.split_at_checked(binary.len().checked_sub(8)?)?;
        let low = u64::from_be_bytes(low.try_into().ok()?);
        return high.iter().all(|byte| *byte == 0).then_some(low);
    }
    let digits = until_zero(field).trim_ascii();
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The pairs of a pax record: `length key=value\n`, where the length counts all of it.
fn pax(record: &[u8]) -> Result<Vec<(&str, &str)>, String> {
    let broken = || "tar: a pax record is broken".to_owned();
    let mut rest = std::str::from_utf8(record).map_err(|_| broken())?;
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (length, _) = rest.split_once(' ').ok_or_else(broken)?;
        let n_bytes: usize = length.parse().map_err(|_| broken())?;
        let (pair, after) = rest.split_at_checked(n_bytes).ok_or_else(broken)?;
        let pair = pair
            .get(length.len() + 1..)
            .and_then(|pair| pair.strip_suffix('\n'));
        pairs.push(
            pair.and_then(|pair| pair.split_once('='))
                .ok_or_else(broken)?,
        );
        rest = after;
    }
    Ok(pairs)
}

/// Bytes after the end that are not zero.
fn after_end(source: &dyn Source, end: u64) -> Result<Option<Finding>> {
    let mut window = vec![0; 64 * 1024];
    let mut position = end;
    while position < source.size_bytes() {
        let n_bytes = (source.size_bytes() - position).min(window.len() as u64);
        let bytes = &mut window[..n_bytes as usize];
        source.read_at(position, bytes)?;
        if let Some(first) = bytes.iter().position(|byte| *byte != 0) {
            let range = ByteRange::new(position + first as u64, source.size_bytes());
            let what = format!("{} bytes follow the end of the archive", range.len());
            let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, what);
            return Ok(Some(finding.with_bytes(range)));
        }
        position += n_bytes;
    }
    Ok(None)
}
