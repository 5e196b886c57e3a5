//! The superblock: which version the file has, and where its root group is.

use tensorhold_core::{ByteRange, Error, Result, Source};

use super::{MAGIC, address_at, wrong};

/// The address of the header of the root group.
pub(super) fn root(source: &dyn Source) -> Result<u64> {
    let here = ByteRange::new(0, 96.min(source.size_bytes()));
    let mut bytes = [0; 96];
    source.read_at(0, &mut bytes[..here.len() as usize])?;
    if !bytes.starts_with(MAGIC) {
        return Err(wrong("no such file begins here", here));
    }
    // Where the sizes, the first address of the file, and that of the root group stand.
    let (sizes, base, root) = match bytes[8] {
        0 => (13, 24, 64),
        1 => (13, 28, 68),
        2 | 3 => (9, 12, 36),
        version => {
            return Err(wrong(
                format!("superblock version {version} is not known"),
                here,
            ));
        }
    };
    if root as u64 + 8 > here.end {
        return Err(Error::truncated(0, root as u64 + 8, here.end));
    }
    if bytes[sizes..sizes + 2] != [8, 8] {
        return Err(wrong("addresses and lengths have not 8 bytes", here));
    }
    if address_at(&bytes, base) != Some(0) {
        return Err(wrong("the file begins behind its first byte", here));
    }
    address_at(&bytes, root).ok_or_else(|| wrong("it has no root group", here))
}
