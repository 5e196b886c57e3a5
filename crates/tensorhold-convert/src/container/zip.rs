//! Zip archives, read by their central directory and held to it.
//!
//! A zip says everything twice: in the header before each entry and in the directory at the end. Readers that go by
//! one and scanners that go by the other see different archives. Here both must agree, entries must neither overlap nor
//! share a name, and bytes that belong to nothing are reported.
//!
//! # Source
//! PKWARE's APPNOTE 6.3.10, sections 4.3 to 4.5. Entries are stored or deflated, zip64 or not; everything else (other
//! methods, encryption, archives in several files) is refused by name.

mod directory;
mod end;
mod layout;
mod local;
mod read;

use tensorhold_core::{ByteRange, Result, Source};

use super::Names;
use crate::finding::Finding;
use crate::limits::Limits;

pub use end::find_end;
pub use read::EntryReader;

/// The entries of a zip archive.
#[derive(Debug, Clone)]
pub struct Zip {
    entries: Vec<ZipEntry>,
    /// The numbers of the entries, by name.
    by_name: Vec<u32>,
    findings: Vec<Finding>,
}

/// One entry of a zip archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZipEntry {
    /// The path in the archive.
    pub name: String,
    /// How its bytes are packed.
    pub method: Method,
    /// The checksum of its bytes, as both headers give it.
    pub crc32: u32,
    /// The size of its bytes when they are unpacked.
    pub size_bytes: u64,
    /// Where its packed bytes lie in the file; where it is stored, these are its bytes.
    pub data: ByteRange,
}

/// How the bytes of an entry are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// As they are.
    Stored,
    /// By deflate (RFC 1951).
    Deflated,
}

impl Zip {
    /// The entries of the archive in `source`, all of them checked but for the checksums of their bytes, which
    /// [`ZipEntry::reader`] looks at.
    ///
    /// # Errors
    /// `ForeignFormat` for an archive that is malformed, encrypted, packed by another method, or that two readers
    /// could read differently; `Truncated` where it ends early. The message names the entry.
    pub fn open(source: &dyn Source, limits: &Limits) -> Result<Zip> {
        Zip::open_named(source, limits, Names::Paths)
    }

    pub(crate) fn open_named(source: &dyn Source, limits: &Limits, names: Names) -> Result<Zip> {
        let end = end::End::find(source)?;
        let listed = directory::read(source, &end, limits, names)?;
        let mut entries = Vec::with_capacity(listed.len());
        let mut extents = Vec::with_capacity(listed.len());
        let mut findings = Vec::new();
        for entry in listed {
            let (data, extent) = local::check(source, &entry, end.directory.start)?;
            findings.extend(entry.unmarked_name(extent));
            extents.push(extent);
            entries.push(entry.into_entry(data));
        }
        let by_name = directory::by_name(&entries, &end)?;
        findings.extend(layout::check(source, &entries, &extents, &end)?);
        Ok(Zip {
            entries,
            by_name,
            findings,
        })
    }

    /// The entries, in the order of the directory.
    #[must_use]
    pub fn entries(&self) -> &[ZipEntry] {
        &self.entries
    }

    /// The entry of this name; names are compared byte for byte.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&ZipEntry> {
        let name_of = |&index: &u32| self.entries[index as usize].name.as_str();
        let place = self.by_name.binary_search_by_key(&name, name_of).ok()?;
        Some(&self.entries[self.by_name[place] as usize])
    }

    /// What is strange about the archive.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}
