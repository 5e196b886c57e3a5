//! The central directory: what the archive says of its entries.

use tensorhold_core::{ByteRange, Error, Result, Source};

use super::end::End;
use super::{Method, ZipEntry};
use crate::container::{Names, malformed, short, u16_at, u32_at, u64_at};
use crate::cursor::Cursor;
use crate::finding::{Class, Finding, FindingKind};
use crate::limits::Limits;

pub(super) const SIGNATURE: &[u8; 4] = b"PK\x01\x02";
const FIXED_BYTES: u64 = 46;
/// The sizes follow the data (bit 3), the name is UTF-8 (bit 11); bits 1 and 2 only tell how hard deflate tried.
const KNOWN_FLAGS: u16 = DESCRIPTOR | UTF8 | 0b110;
pub(super) const DESCRIPTOR: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// Deflate makes 258 bytes of 2 bits at best.
const HIGHEST_RATIO: u64 = 1032;

/// An entry as the directory describes it.
pub(super) struct Listed {
    pub name: String,
    pub flags: u16,
    pub method: Method,
    pub crc32: u32,
    pub packed_bytes: u64,
    pub size_bytes: u64,
    /// Where its own header lies in the file.
    pub header: u64,
}

/// All entries of the directory, each with a name of its own.
pub(super) fn read(
    source: &dyn Source,
    end: &End,
    limits: &Limits,
    names: Names,
) -> Result<Vec<Listed>> {
    let most = end.directory.len() / FIXED_BYTES;
    if end.n_entries > most || end.n_entries > limits.entries {
        let what = format!(
            "zip: {} entries do not fit a directory of {} bytes and a limit of {}",
            end.n_entries,
            end.directory.len(),
            limits.entries
        );
        return Err(malformed(what, end.directory));
    }
    let mut cursor = Cursor::new(source, end.directory, 64 * 1024);
    let mut entries = Vec::with_capacity(end.n_entries as usize);
    for _ in 0..end.n_entries {
        entries.push(entry(&mut cursor, end.shift, names)?);
    }
    if cursor.remaining() > 0 {
        let left = ByteRange::new(cursor.position(), end.directory.end);
        return Err(malformed(
            "zip: the directory goes on after its last entry".to_owned(),
            left,
        ));
    }
    Ok(entries)
}

fn entry(cursor: &mut Cursor<'_>, shift: u64, names: Names) -> Result<Listed> {
    let start = cursor.position();
    let fixed = cursor.take::<{ FIXED_BYTES as usize }>()?;
    let here = ByteRange::new(start, cursor.position());
    if !fixed.starts_with(SIGNATURE) {
        let what = "zip: no entry stands where the directory has one";
        return Err(malformed(what.to_owned(), here));
    }
    let name = cursor.bytes(u64::from(u16_at(&fixed, 28)))?;
    let extra = cursor.bytes(u64::from(u16_at(&fixed, 30)))?;
    cursor.skip(u64::from(u16_at(&fixed, 32)))?;
    let here = ByteRange::new(start, cursor.position());
    let name = String::from_utf8(name)
        .map_err(|_| malformed("zip: the name of an entry is not UTF-8".to_owned(), here))?;
    let wrong = |what: &str| refusal(&name, what, here);
    if let Some(reason) = names.refuse(&name) {
        return Err(wrong(reason));
    }
    let sizes = Sizes::of_directory(&fixed, &extra).map_err(wrong)?;
    let header = sizes.header.checked_add(shift);
    let header = header.ok_or_else(|| wrong("it lies past the file"))?;
    let listed = Listed {
        flags: flags(u16_at(&fixed, 8)).map_err(wrong)?,
        method: method(u16_at(&fixed, 10)).map_err(|what| refusal(&name, &what, here))?,
        crc32: u32_at(&fixed, 16),
        packed_bytes: sizes.packed,
        size_bytes: sizes.unpacked,
        header,
        name: name.clone(),
    };
    refuse_alias(&name, &extra).map_err(wrong)?;
    listed.check_sizes().map_err(wrong)?;
    Ok(listed)
}

/// An error about one entry.
pub(super) fn refusal(name: &str, what: &str, bytes: ByteRange) -> Error {
    malformed(format!("zip entry {}: {what}", short(name)), bytes)
}

fn flags(flags: u16) -> Result<u16, &'static str> {
    if flags & ENCRYPTED != 0 {
        Err("it is marked as encrypted")
    } else if flags & !KNOWN_FLAGS != 0 {
        Err("it has flags that no writer of checkpoints sets")
    } else {
        Ok(flags)
    }
}

fn method(number: u16) -> Result<Method, String> {
    match number {
        0 => Ok(Method::Stored),
        8 => Ok(Method::Deflated),
        _ => Err(format!(
            "it is packed by method {number}; only stored and deflated ones are read"
        )),
    }
}

impl Listed {
    fn check_sizes(&self) -> Result<(), &'static str> {
        let most = self.packed_bytes.saturating_mul(HIGHEST_RATIO);
        match self.method {
            _ if self.name.ends_with('/') && self.size_bytes > 0 => Err("a folder has no bytes"),
            Method::Stored if self.packed_bytes != self.size_bytes => {
                Err("it is stored, but its two sizes differ")
            }
            Method::Deflated if self.size_bytes > most => {
                Err("no deflated data of its size can become as large as it says")
            }
            _ => Ok(()),
        }
    }

    /// A name beyond ASCII that is not marked as UTF-8 is read as code page 437 by some.
    pub fn unmarked_name(&self, bytes: ByteRange) -> Option<Finding> {
        let is_plain = self.name.is_ascii() || self.flags & UTF8 != 0;
        let what = || {
            format!(
                "the name of the entry {} is not marked as UTF-8",
                short(&self.name)
            )
        };
        (!is_plain).then(|| {
            Finding::new(FindingKind::Container, Class::Harmless, what()).with_bytes(bytes)
        })
    }

    /// The entry, whose packed bytes lie at `data`.
    pub fn into_entry(self, data: ByteRange) -> ZipEntry {
        ZipEntry {
            name: self.name,
            method: self.method,
            crc32: self.crc32,
            size_bytes: self.size_bytes,
            data,
        }
    }
}

/// The numbers of an entry that stand in its zip64 field where they are too large for their own.
struct Sizes {
    unpacked: u64,
    packed: u64,
    header: u64,
}

impl Sizes {
    fn of_directory(fixed: &[u8], extra: &[u8]) -> Result<Sizes, &'static str> {
        if u16_at(fixed, 34) != 0 {
            return Err("it lies in another file of a split archive");
        }
        let mut sizes = Sizes {
            unpacked: u64::from(u32_at(fixed, 24)),
            packed: u64::from(u32_at(fixed, 20)),
            header: u64::from(u32_at(fixed, 42)),
        };
        let large = zip64(extra)?.unwrap_or(&[]);
        let mut large = large.chunks_exact(8);
        for number in [&mut sizes.unpacked, &mut sizes.packed, &mut sizes.header] {
            if *number == u64::from(u32::MAX) {
                let eight = large.next().ok_or("its zip64 field is too short")?;
                *number = u64_at(eight, 0);
            }
        }
        Ok(sizes)
    }
}

/// The zip64 field among the extra fields.
pub(super) fn zip64(extra: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let mut found = None;
    for field in fields(extra) {
        let (id, body) = field?;
        if id == 1 && found.replace(body).is_some() {
            return Err("it has two zip64 fields");
        }
    }
    Ok(found)
}

/// The extra fields of an entry, each with its number.
fn fields(mut extra: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), &'static str>> {
    std::iter::from_fn(move || {
        if extra.is_empty() {
            return None;
        }
        let field = extra.split_at_checked(4).and_then(|(head, rest)| {
            let (body, rest) = rest.split_at_checked(usize::from(u16_at(head, 2)))?;
            Some((u16_at(head, 0), body, rest))
        });
        let Some((id, body, rest)) = field else {
            extra = &[];
            return Some(Err("its extra fields run past their end"));
        };
        extra = rest;
        Some(Ok((id, body)))
    })
}

/// Refuses an extra field that gives the entry another name: some readers go by it.
pub(super) fn refuse_alias(name: &str, extra: &[u8]) -> Result<(), &'static str> {
    const UNICODE_PATH: u16 = 0x7075;
    for field in fields(extra) {
        let (id, body) = field?;
        if id == UNICODE_PATH && body.get(5..) != Some(name.as_bytes()) {
            return Err("it has a second name");
        }
    }
    Ok(())
}

/// The numbers of the entries in the order of their names, of which none may stand twice.
pub(super) fn by_name(entries: &[ZipEntry], end: &End) -> Result<Vec<u32>> {
    let name = |index: u32| entries[index as usize].name.as_str();
    let mut order: Vec<u32> = (0..entries.len())
        .map_while(|index| u32::try_from(index).ok())
        .collect();
    order.sort_unstable_by_key(|&index| name(index));
    match order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(refusal(
            name(pair[0]),
            "its name stands twice",
            end.directory,
        )),
        None => Ok(order),
    }
}
