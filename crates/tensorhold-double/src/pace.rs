//! When copies begin and end: what makes the double as slow, and as late, as a test wants it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::copy::Way;
use crate::state::state;

/// No copy begins while it is true.
static IS_HELD: Mutex<bool> = Mutex::new(false);
static RELEASED: Condvar = Condvar::new();

/// Until when the bus of a device is taken, by direction.
static BUSES: Mutex<BTreeMap<(usize, Way), Instant>> = Mutex::new(BTreeMap::new());

/// Holds all copies, or lets them go.
pub(crate) fn hold(is_held: bool) {
    *IS_HELD.lock().unwrap_or_else(PoisonError::into_inner) = is_held;
    RELEASED.notify_all();
}

fn wait_while_held() {
    let held = IS_HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let wait = RELEASED.wait_while(held, |is_held| *is_held);
    drop(wait.unwrap_or_else(PoisonError::into_inner));
}

/// The time of one stream. It runs by what copies should take, so that a thread that is woken late
/// does not make the next copy later.
pub(crate) struct Pace {
    /// When the work before should have ended.
    clock: Instant,
    /// What moving a byte has taken last.
    ns_per_byte: f64,
    n_copies: u64,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace {
            clock: Instant::now(),
            ns_per_byte: 0.0,
            n_copies: 0,
        }
    }

    /// What comes next begins no earlier.
    pub(crate) fn ready(&mut self, at: Instant) {
        self.clock = self.clock.max(at);
    }

    /// Carries out a copy at its time. Its bytes move at the end of that time, so that who looks early sees none.
    pub(crate) fn copy(&mut self, device: usize, way: Way, n_bytes: u64, copy: impl FnOnce()) {
        wait_while_held();
        let (begin, length) = self.delays(n_bytes);
        let end = match length {
            Some(length) => take_bus(device, way, begin, length),
            None => begin,
        };
        let guess = Duration::from_nanos((self.ns_per_byte * n_bytes as f64) as u64);
        sleep_until(end.checked_sub(guess).unwrap_or(end));
        let started = Instant::now();
        copy();
        let now = Instant::now();
        if n_bytes > 0 {
            self.ns_per_byte = (now - started).as_nanos() as f64 / n_bytes as f64;
        }
        sleep_until(end);
        self.clock = end.max(now);
    }

    /// When a copy may begin, and how long it takes the bus, if that has a limit.
    fn delays(&mut self, n_bytes: u64) -> (Instant, Option<Duration>) {
        let (gb_per_s, latency, delay, seed) = {
            let state = state();
            let config = &state.config;
            let latency = Duration::from_micros(config.latency_us);
            (config.gb_per_s, latency, config.delay_us, config.seed)
        };
        self.n_copies += 1;
        let delay = match seed {
            Some(seed) => scramble(seed ^ scramble(self.n_copies)) % (delay + 1),
            None => delay,
        };
        let begin = self.clock + latency + Duration::from_micros(delay);
        let length =
            (gb_per_s > 0.0).then(|| Duration::from_nanos((n_bytes as f64 / gb_per_s) as u64));
        (begin, length)
    }
}

/// Takes the bus for a time after `begin`, and when it is free; returns the end of that time.
fn take_bus(device: usize, way: Way, begin: Instant, length: Duration) -> Instant {
    let mut buses = BUSES.lock().unwrap_or_else(PoisonError::into_inner);
    let free_at = buses.entry((device, way)).or_insert(begin);
    *free_at = begin.max(*free_at) + length;
    *free_at
}

fn sleep_until(end: Instant) {
    let left = end.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        thread::sleep(left);
    }
}

/// Splitmix64: a number that looks random, of any number.
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
