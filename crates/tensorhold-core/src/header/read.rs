//! From a source of bytes to its header.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::error::{Error, ErrorKind, Result};
use crate::extent::ByteRange;
use crate::sniff::{Foreign, sniff};
use crate::storage::Source;

use super::{Header, LENGTH_BYTES, MAX_HEADER_BYTES, Rules};

/// The magic number of a zip archive's first entry, read as a header length.
pub(super) const ZIP_MAGIC: u64 = 0x0403_4B50;

/// How much of each end of a file is looked at to tell what it is.
const SNIFFED_BYTES: u64 = 4096;

const LENGTH_RANGE: ByteRange = ByteRange {
    start: 0,
    end: LENGTH_BYTES,
};

/// The length of the header of a file of `file_size` bytes that begins with `prefix`.
///
/// # Errors
/// `HeaderTooSmall` without 8 bytes, `HeaderTooLarge` over [`MAX_HEADER_BYTES`], `HeaderLength` if
/// it passes the end of the file.
pub fn header_length(prefix: &[u8], file_size: u64) -> Result<usize> {
    let Some(length) = prefix.first_chunk::<8>() else {
        let message = format!(
            "the file has {} bytes, fewer than the {LENGTH_BYTES} of the header length",
            prefix.len()
        );
        return Err(Error::new(ErrorKind::HeaderTooSmall, message));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(too_large(length));
    }
    if LENGTH_BYTES + length > file_size {
        let message =
            format!("the header of {length} bytes passes the end of the file at byte {file_size}");
        return Err(Error::new(ErrorKind::HeaderLength, message).with_bytes(LENGTH_RANGE));
    }
    usize::try_from(length).map_err(|_| too_large(length))
}

/// The header of the file behind `source`; where it has none, what the file is instead.
pub(super) fn header<S: Source + ?Sized>(source: &S, rules: Rules) -> Result<Header> {
    try_header(source, rules).map_err(|error| {
        if !is_about_content(error.kind()) {
            return error;
        }
        let Some((head, tail)) = ends(source) else { return error };
        match sniff(&head, &tail, source.size_bytes()) {
            Some(foreign) => not_safetensors(error, foreign),
            None if error.kind() == ErrorKind::HeaderLength && head.get(8) == Some(&b'{') => error
                .with_hint("the file ends inside its header, as after a download or copy that broke off; fetch it again"),
            None => error,
        }
    })
}

/// Whether the fault is in what the file holds, and not in reading it.
fn is_about_content(kind: ErrorKind) -> bool {
    use ErrorKind::*;
    !matches!(
        kind,
        Truncated | NotFound | PermissionDenied | NotRegularFile | Closed | Io
    )
}

/// The first and the last bytes of a file.
fn ends<S: Source + ?Sized>(source: &S) -> Option<(Vec<u8>, Vec<u8>)> {
    let file_size = source.size_bytes();
    let n_bytes = file_size.min(SNIFFED_BYTES);
    let (mut head, mut tail) = (vec![0; n_bytes as usize], vec![0; n_bytes as usize]);
    source.read_at(0, &mut head).ok()?;
    source.read_at(file_size - n_bytes, &mut tail).ok()?;
    Some((head, tail))
}

fn not_safetensors(error: Error, foreign: Foreign) -> Error {
    let message = format!(
        "{} and no safetensors file: {}",
        foreign.name,
        error.message()
    );
    let bytes = error.bytes();
    let known = Error::new(ErrorKind::ForeignFormat, message)
        .with_hint(foreign.hint)
        .with_source(error);
    bytes.into_iter().fold(known, Error::with_bytes)
}

fn try_header<S: Source + ?Sized>(source: &S, rules: Rules) -> Result<Header> {
    let file_size = source.size_bytes();
    let mut prefix = [0; LENGTH_BYTES as usize];
    let prefix_bytes = file_size.min(LENGTH_BYTES) as usize;
    source.read_at(0, &mut prefix[..prefix_bytes])?;
    let length = header_length(&prefix[..prefix_bytes], file_size)?;
    let mut text = vec![0; length];
    source.read_at(LENGTH_BYTES, &mut text)?;
    Header::parse(text, file_size, rules)
}

#[cold]
pub(super) fn too_large(length: u64) -> Error {
    let message = format!("header length {length} is over the limit of {MAX_HEADER_BYTES}");
    Error::new(ErrorKind::HeaderTooLarge, message).with_bytes(LENGTH_RANGE)
}

pub(super) fn refuse_zip_magic(header_bytes: u64) -> Result<()> {
    if header_bytes != ZIP_MAGIC {
        return Ok(());
    }
    let message = format!(
        "header length {ZIP_MAGIC} is the magic number of a zip archive, so the file can pass for both"
    );
    Err(Error::new(ErrorKind::Forbidden, message).with_bytes(LENGTH_RANGE))
}
