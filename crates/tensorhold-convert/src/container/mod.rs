//! Archives: which entries a file holds, and where their bytes lie in it.
//!
//! Nothing is ever unpacked to a disk. What two readers could read differently is refused, or reported as a
//! [`Finding`](crate::Finding): an archive must not show one thing to who checks it and another to who loads it.

mod tar;
mod zip;

pub use tar::{Tar, TarEntry};
pub use zip::{EntryReader, Method, Zip, ZipEntry, find_end as find_zip_end};

use tensorhold_core::{ByteRange, Error, ErrorKind};

/// What names an archive may give its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Paths that stay in a folder, as an archive of files has them.
    Paths,
    /// Keys: anything that every reader takes for the same text.
    Keys,
}

impl Names {
    /// Why `name` is refused, if it is.
    pub(crate) fn refuse(self, name: &str) -> Option<&'static str> {
        if name.is_empty() {
            return Some("its name is empty");
        }
        if name.chars().any(char::is_control) {
            return Some("its name has a control character");
        }
        if self == Names::Keys {
            return None;
        }
        if name.starts_with('/') || name.as_bytes().get(1) == Some(&b':') {
            return Some("its name is an absolute path");
        }
        if name.contains('\\') {
            return Some("its name has a backslash");
        }
        let is_odd = |part: &str| matches!(part, "" | "." | "..");
        let folder = name.strip_suffix('/').unwrap_or(name);
        let is_strange = folder.split('/').any(is_odd);
        is_strange.then_some("its name leads out of the archive or nowhere")
    }
}

/// An archive that is not as its format asks.
pub(crate) fn malformed(message: String, bytes: ByteRange) -> Error {
    Error::new(ErrorKind::ForeignFormat, message).with_bytes(bytes)
}

/// A name for the middle of a message, cut where it is longer than a line.
pub(crate) fn short(name: &str) -> String {
    match name.char_indices().nth(160) {
        None => format!("`{name}`"),
        Some((end, _)) => format!("`{}…`", &name[..end]),
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(chunk(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(chunk(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(chunk(bytes, at))
}

/// Bytes of a record whose length is fixed.
fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("the record has its fixed length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for name in [
            "/a", "C:/a", "..", "a/../b", "a//b", "./a", "a\\b", "", "a\0b", "a\nb", "/",
        ] {
            assert!(Names::Paths.refuse(name).is_some(), "{name:?}");
        }
        for name in [
            "a",
            "a/",
            "archive/data/0",
            ".data/serialization_id",
            "...",
            "é",
        ] {
            assert_eq!(Names::Paths.refuse(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_key_may_look_like_any_path() {
        for name in ["/params/w.npy", "../w.npy", "a\\b.npy"] {
            assert_eq!(Names::Keys.refuse(name), None, "{name:?}");
        }
        assert!(Names::Keys.refuse("a\0.npy").is_some());
    }
}
