//! Which way is fastest, from what is known of the file and the machine.

use super::Way;

/// What the choice goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub is_network: bool,
    pub is_in_memory: bool,
    /// From 0 to 1; `None` where the system does not tell.
    pub cached_share: Option<f64>,
    pub wanted_bytes: u64,
    pub free_bytes: Option<u64>,
}

/// Below this, what a lease, a map or a direct descriptor costs is more than it saves.
const SMALL_BYTES: u64 = 256 << 10;

/// Below this, a cold file is as well read ahead by the page cache, which the next reader then finds warm.
const DIRECT_BYTES: u64 = 32 << 20;

/// With more than this of a file cached, what direct reads save on the rest is less than they lose.
const PARTLY_CACHED: f64 = 0.2;

/// With less than this of a file cached, its pages are not worth mapping.
const MOSTLY_CACHED: f64 = 0.95;

/// With more than this of the free memory wanted, the page cache has no room to hold the same bytes again.
const LARGE_SHARE: f64 = 0.8;

pub(super) fn preferred(facts: &Facts) -> Way {
    let is_large = facts
        .free_bytes
        .is_some_and(|free_bytes| facts.wanted_bytes as f64 > free_bytes as f64 * LARGE_SHARE);
    let cached_share = match facts.is_in_memory {
        true => Some(1.0),
        false => facts.cached_share,
    };
    match cached_share {
        _ if facts.is_network || facts.wanted_bytes < SMALL_BYTES => Way::Buffered,
        Some(share) if share >= MOSTLY_CACHED => Way::Copied,
        _ if is_large => Way::Direct,
        Some(share) if share < PARTLY_CACHED && facts.wanted_bytes >= DIRECT_BYTES => Way::Direct,
        _ => Way::Buffered,
    }
}

/// The same where none of the bytes are to stay in the page cache: those that are not there go past it.
pub(super) fn sparing(facts: &Facts) -> Way {
    let may_pass = !facts.is_network && !facts.is_in_memory && facts.wanted_bytes >= SMALL_BYTES;
    match preferred(facts) {
        Way::Buffered if may_pass => Way::Direct,
        way => way,
    }
}

/// The same where others read the same bytes at the same time, and find in the page cache what was read.
pub(super) fn shared(facts: &Facts) -> Way {
    match preferred(facts) {
        Way::Direct => Way::Buffered,
        way => way,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLD: Facts = Facts {
        is_network: false,
        is_in_memory: false,
        cached_share: Some(0.0),
        wanted_bytes: 1 << 30,
        free_bytes: Some(1 << 34),
    };

    fn check(expected: Way, change: impl FnOnce(&mut Facts)) {
        let mut facts = COLD;
        change(&mut facts);
        assert_eq!(preferred(&facts), expected, "{facts:?}");
    }

    #[test]
    fn cold_bytes_go_past_the_page_cache_if_they_are_many() {
        check(Way::Direct, |_| {});
        check(Way::Buffered, |facts| facts.wanted_bytes = 31 << 20);
        check(Way::Direct, |facts| facts.cached_share = Some(0.1));
        check(Way::Buffered, |facts| facts.cached_share = Some(0.5));
        check(Way::Buffered, |facts| facts.cached_share = None);
    }

    #[test]
    fn what_others_read_as_well_goes_through_the_page_cache() {
        assert_eq!(shared(&COLD), Way::Buffered);
        let warm = Facts {
            cached_share: Some(1.0),
            ..COLD
        };
        assert_eq!(shared(&warm), Way::Copied);
    }

    #[test]
    fn warm_bytes_are_copied() {
        check(Way::Copied, |facts| facts.cached_share = Some(1.0));
        check(Way::Copied, |facts| facts.is_in_memory = true);
        check(Way::Buffered, |facts| {
            facts.is_in_memory = true;
            facts.wanted_bytes = 100_000;
        });
    }

    #[test]
    fn network_files_are_never_mapped_nor_read_directly() {
        check(Way::Buffered, |facts| facts.is_network = true);
        check(Way::Buffered, |facts| {
            facts.is_network = true;
            facts.cached_share = Some(1.0);
        });
    }

    #[test]
    fn what_is_to_be_spared_goes_past_the_page_cache_unless_it_is_there() {
        let check = |expected: Way, change: fn(&mut Facts)| {
            let mut facts = COLD;
            change(&mut facts);
            assert_eq!(sparing(&facts), expected, "{facts:?}");
        };
        check(Way::Direct, |_| {});
        check(Way::Direct, |facts| facts.wanted_bytes = 1 << 20);
        check(Way::Direct, |facts| facts.cached_share = Some(0.5));
        check(Way::Direct, |facts| facts.cached_share = None);
        check(Way::Copied, |facts| facts.cached_share = Some(1.0));
        check(Way::Copied, |facts| facts.is_in_memory = true);
        check(Way::Buffered, |facts| facts.wanted_bytes = 100_000);
        check(Way::Buffered, |facts| facts.is_network = true);
    }

    #[test]
    fn what_hardly_fits_memory_is_not_cached_as_well() {
        for cached_share in [None, Some(0.5)] {
            check(Way::Direct, |facts| {
                facts.cached_share = cached_share;
                facts.wanted_bytes = 15 << 30;
            });
        }
    }
}
