//! Ways of doing the same, of which the fastest is found by trying each.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How often each is tried before the fastest is kept.
const N_TRIALS: usize = 3;

/// The best time of each of `N` ways so far.
#[derive(Debug)]
pub(super) struct Speeds<const N: usize> {
    /// Only the first ones are tried.
    n_ways: usize,
    n_begun: AtomicUsize,
    ps_per_byte: [AtomicU64; N],
}

/// What is to be done next, by the way of this number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    index: usize,
    is_recorded: bool,
}

impl Trial {
    pub(super) fn index(self) -> usize {
        self.index
    }
}

impl<const N: usize> Default for Speeds<N> {
    fn default() -> Speeds<N> {
        Speeds {
            n_ways: N,
            n_begun: AtomicUsize::new(0),
            ps_per_byte: [const { AtomicU64::new(u64::MAX) }; N],
        }
    }
}

impl<const N: usize> Speeds<N> {
    /// The same of the first `n_ways` only.
    pub(super) fn of_first(n_ways: usize) -> Speeds<N> {
        Speeds {
            n_ways,
            ..Speeds::default()
        }
    }

    /// Each in turn, and then the fastest; the first of those that are.
    pub(super) fn next(&self) -> Trial {
        let number = self.n_begun.fetch_add(1, Ordering::Relaxed);
        if number < self.n_ways * N_TRIALS {
            return Trial {
                index: number % self.n_ways,
                is_recorded: true,
            };
        }
        let best =
            (0..self.n_ways).min_by_key(|index| self.ps_per_byte[*index].load(Ordering::Relaxed));
        Trial {
            index: best.unwrap_or(0),
            is_recorded: false,
        }
    }

    /// The best time counts, as whatever disturbs makes it only slower.
    pub(super) fn record(&self, trial: Trial, len: usize, took: Duration) {
        if trial.is_recorded && len > 0 {
            let ps_per_byte = took.as_nanos() * 1000 / len as u128;
            let ps_per_byte = u64::try_from(ps_per_byte).unwrap_or(u64::MAX);
            self.ps_per_byte[trial.index].fetch_min(ps_per_byte, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_is_kept_after_each_was_tried() {
        let speeds = Speeds::<3>::default();
        for _ in 0..N_TRIALS {
            for (expected, took_ms) in [5, 7, 3].into_iter().enumerate() {
                let trial = speeds.next();
                assert_eq!(trial.index(), expected);
                speeds.record(trial, 1 << 20, Duration::from_millis(took_ms));
            }
        }
        for _ in 0..100 {
            assert_eq!(speeds.next().index(), 2);
        }
    }

    #[test]
    fn what_is_not_to_be_tried_never_is() {
        let speeds = Speeds::<3>::of_first(2);
        let tried = std::iter::repeat_with(|| speeds.next().index());
        assert!(tried.take(100).all(|index| index < 2));
    }

    #[test]
    fn with_no_time_known_the_first_is_kept() {
        let speeds = Speeds::<3>::default();
        let last = (0..=3 * N_TRIALS).map(|_| speeds.next()).last();
        assert_eq!(last.unwrap().index(), 0);
    }
}
