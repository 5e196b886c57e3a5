//! The header before an entry's bytes, which must say what the directory says.

use tensorhold_core::{ByteRange, Error, Result, Source};

use super::directory::{DESCRIPTOR, Listed, refusal, refuse_alias, zip64};
use crate::container::{u16_at, u32_at, u64_at};
use crate::cursor::Cursor;

pub(super) const SIGNATURE: &[u8; 4] = b"PK\x03\x04";
const FIXED_BYTES: usize = 30;

/// Where the packed bytes of `entry` lie, and all that belongs to it: from its header to the end of its descriptor.
/// Nothing of it may lie past `end`.
pub(super) fn check(
    source: &dyn Source,
    entry: &Listed,
    end: u64,
) -> Result<(ByteRange, ByteRange)> {
    if entry.header >= end {
        let here = ByteRange::new(end, end);
        return Err(refusal(&entry.name, "it lies past the entries", here));
    }
    let all = ByteRange::new(entry.header, end);
    let mut cursor = Cursor::new(source, all, FIXED_BYTES + entry.name.len() + 128);
    header(&mut cursor, entry).map_err(|error| ends_early(error, entry))?;
    let data = cursor
        .skip(entry.packed_bytes)
        .map_err(|error| ends_early(error, entry))?;
    if entry.flags & DESCRIPTOR != 0 {
        descriptor(source, entry, &mut cursor, end)?;
    }
    Ok((data, ByteRange::new(entry.header, cursor.position())))
}

fn ends_early(error: Error, entry: &Listed) -> Error {
    use tensorhold_core::ErrorKind::Truncated;
    match (error.kind(), error.bytes()) {
        (Truncated, Some(bytes)) => refusal(
            &entry.name,
            "its bytes reach into the directory or past it",
            bytes,
        ),
        _ => error,
    }
}

fn header(cursor: &mut Cursor<'_>, entry: &Listed) -> Result<()> {
    let start = cursor.position();
    let fixed = cursor.take::<FIXED_BYTES>()?;
    let here = ByteRange::new(start, cursor.position());
    let wrong = |what: &str| refusal(&entry.name, what, here);
    if !fixed.starts_with(SIGNATURE) {
        return Err(wrong("no header stands where the directory says"));
    }
    let method = u16_at(&fixed, 8);
    if u16_at(&fixed, 6) != entry.flags || method != entry.method.number() {
        return Err(wrong(
            "its header and the directory differ in flags or method",
        ));
    }
    let name_bytes = u64::from(u16_at(&fixed, 26));
    if name_bytes != entry.name.len() as u64 || cursor.bytes(name_bytes)? != entry.name.as_bytes() {
        return Err(wrong("its header has another name than the directory"));
    }
    let extra = cursor.bytes(u64::from(u16_at(&fixed, 28)))?;
    refuse_alias(&entry.name, &extra).map_err(wrong)?;
    sizes(&fixed, &extra, entry).map_err(wrong)
}

/// Checksum and sizes must be those of the directory; where a descriptor follows the data they may be zero.
fn sizes(fixed: &[u8], extra: &[u8], entry: &Listed) -> Result<(), &'static str> {
    const ONES: u32 = u32::MAX;
    let (packed, unpacked) = (u32_at(fixed, 18), u32_at(fixed, 22));
    let (mut packed_bytes, mut size_bytes) = (u64::from(packed), u64::from(unpacked));
    if let Some(large) = zip64(extra)?
        && (packed == ONES || unpacked == ONES)
    {
        let mut large = large.chunks_exact(8);
        for (small, number) in [(unpacked, &mut size_bytes), (packed, &mut packed_bytes)] {
            if small == ONES {
                *number = u64_at(large.next().ok_or("its zip64 field is too short")?, 0);
            }
        }
    }
    let found = (u32_at(fixed, 14), packed_bytes, size_bytes);
    let is_later = entry.flags & DESCRIPTOR != 0;
    let is_same = found == (entry.crc32, entry.packed_bytes, entry.size_bytes);
    let is_unknown = is_later && found.0 == 0 && matches!((found.1, found.2), (0, 0));
    // Writers to a stream that can take large entries say that the sizes are large before they know them.
    let is_promised = is_later && found.0 == 0 && packed == ONES && unpacked == ONES;
    if is_same || is_unknown || (is_promised && (packed_bytes, size_bytes) == (0, 0)) {
        Ok(())
    } else {
        Err("its header and the directory differ in checksum or sizes")
    }
}

/// The record after the data: a signature or none, the checksum, and two sizes of four or eight bytes.
fn descriptor(
    source: &dyn Source,
    entry: &Listed,
    cursor: &mut Cursor<'_>,
    end: u64,
) -> Result<()> {
    let start = cursor.position();
    let mut bytes = [0; 24];
    let n_bytes = (end - start).min(24) as usize;
    source.read_at(start, &mut bytes[..n_bytes])?;
    let bytes = &bytes[..n_bytes];
    let found = variants(entry)
        .into_iter()
        .find(|variant| bytes.starts_with(variant));
    let here = ByteRange::new(start, start + n_bytes as u64);
    let found = found.ok_or_else(|| {
        refusal(
            &entry.name,
            "what follows its bytes and the directory differ in checksum or sizes",
            here,
        )
    })?;
    cursor.skip(found.len() as u64)?;
    Ok(())
}

/// The descriptors that agree with the directory, longest first.
fn variants(entry: &Listed) -> Vec<Vec<u8>> {
    let crc32 = &entry.crc32.to_le_bytes()[..];
    let sizes = [entry.packed_bytes, entry.size_bytes];
    let large: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
    let small = sizes.map(u32::try_from);
    let small: Option<Vec<u8>> = match small {
        [Ok(packed), Ok(unpacked)] => Some([packed.to_le_bytes(), unpacked.to_le_bytes()].concat()),
        _ => None,
    };
    let mut variants = Vec::new();
    for signature in [&b"PK\x07\x08"[..], b""] {
        for sizes in [Some(&large), small.as_ref()].into_iter().flatten() {
            variants.push([signature, crc32, sizes].concat());
        }
    }
    variants
}
