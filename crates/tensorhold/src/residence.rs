//! Where the bytes of a checkpoint are before they are read.

use tensorhold_core::Result;
use tensorhold_io::{cached_bytes, identity, is_network, open_regular};

use crate::Checkpoint;

/// What reading the files of a checkpoint takes, as far as the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residence {
    /// The size of all files.
    pub size_bytes: u64,
    /// How much of them is in the page cache; `None` where the system does not tell.
    pub cached_bytes: Option<u64>,
    /// Whether any of them is on a network file system.
    pub is_network: bool,
}

impl Checkpoint {
    /// Where the bytes of its files are now.
    ///
    /// # Errors
    /// `NotFound` or `Io` where a file cannot be opened any more.
    pub fn residence(&self) -> Result<Residence> {
        let mut all = Residence {
            cached_bytes: Some(0),
            ..Residence::default()
        };
        for file in self.files() {
            let blame =
                |error: tensorhold_core::Error| error.with_file(file.path().to_string_lossy());
            let opened = open_regular(file.path()).map_err(blame)?;
            let size_bytes = identity(&opened).map_err(blame)?.size_bytes;
            all.size_bytes = all.size_bytes.saturating_add(size_bytes);
            all.cached_bytes = all
                .cached_bytes
                .zip(cached_bytes(&opened, 0, size_bytes))
                .map(|(all, more)| all.saturating_add(more));
            all.is_network |= is_network(&opened);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;

    use crate::{Checkpoint, OpenOptions};

    #[test]
    fn what_was_just_written_is_cached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let header = br#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}   "#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(&[1; 8]);
        fs::write(&path, &bytes).unwrap();
        let checkpoint = Checkpoint::open(&path, &OpenOptions::default()).unwrap();
        let residence = checkpoint.residence().unwrap();
        assert_eq!(residence.size_bytes, bytes.len() as u64);
        // The page cache counts whole pages; some systems do not tell.
        assert!(
            residence
                .cached_bytes
                .is_none_or(|cached| cached >= residence.size_bytes)
        );
        fs::remove_file(&path).unwrap();
        assert!(checkpoint.residence().is_err());
    }
}
