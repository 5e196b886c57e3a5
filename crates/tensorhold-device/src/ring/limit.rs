//! How much memory the ring may have.

use std::env;

use tensorhold_core::{Error, ErrorKind, Result};

use crate::device::Device;
use crate::slot::Slot;

/// The variable that says it, in MiB.
const VARIABLE: &str = "TENSORHOLD_PINNED_MB";

/// Without a word from anybody.
pub(super) const DEFAULT_BYTES: u64 = 256 << 20;

/// The same where the device's memory is the host's: copies are over soon, and the ring takes what the tensors could have.
const INTEGRATED_BYTES: u64 = 64 << 20;

/// The slots of a segment: 64 MiB are pinned in a moment, and keep a device busy.
pub(super) const SEGMENT_SLOTS: usize = 8;

/// What the limit is for `device` unless somebody says another.
pub(super) fn default_bytes(device: Device) -> u64 {
    match device.is_integrated() {
        Ok(true) => INTEGRATED_BYTES,
        _ => DEFAULT_BYTES,
    }
}

/// The limit in bytes: what `set_ring_limit` was told, what the variable says, or `default_bytes`.
///
/// # Errors
/// `InvalidArgument` if the variable is no number of MiB.
pub(super) fn limit_bytes(set: Option<u64>, default_bytes: u64) -> Result<u64> {
    if let Some(bytes) = set {
        return Ok(bytes);
    }
    match env::var_os(VARIABLE) {
        None => Ok(default_bytes),
        Some(text) => parse(&text.to_string_lossy()),
    }
}

fn parse(text: &str) -> Result<u64> {
    let bytes = |mib: u64| mib.checked_mul(1 << 20);
    let parsed = text.trim().parse().ok().and_then(bytes);
    parsed.ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            format!("`{VARIABLE}` is `{text}`, which is no number of MiB"),
        )
        .with_hint("set it to a number such as 256, or unset it")
    })
}

/// How many slots fit; one always does.
pub(super) fn n_slots(limit_bytes: u64) -> usize {
    let n_slots = limit_bytes / Slot::BYTES as u64;
    usize::try_from(n_slots).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_of_mib() {
        assert_eq!(parse("256").unwrap(), 256 << 20);
        assert_eq!(parse(" 8 ").unwrap(), 8 << 20);
        for text in ["", "many", "-1", "1.5", "99999999999999999"] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(
                error
                    .message()
                    .starts_with(&format!("`TENSORHOLD_PINNED_MB` is `{text}`"))
            );
        }
    }

    #[test]
    fn there_is_always_room_for_one_slot() {
        assert_eq!(n_slots(0), 1);
        assert_eq!(n_slots((16 << 20) - 1), 1);
        assert_eq!(n_slots(16 << 20), 2);
    }
}
