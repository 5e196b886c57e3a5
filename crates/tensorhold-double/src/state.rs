//! Everything that the calls of a process share, under one lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::copy::{Flight, Tally};
use crate::error::{Code, Result};
use crate::event::Event;
use crate::gds::Storage;
use crate::memory::device::DeviceMemory;
use crate::memory::host::HostMemory;
use crate::stream::Queue;

/// How many violations are kept in words; those beyond are counted.
const VIOLATIONS_KEPT: usize = 100;

/// The state of the runtime.
pub(crate) struct State {
    pub config: Config,
    pub calls: BTreeMap<&'static str, u64>,
    pub n_failures: u64,
    pub violations: Vec<String>,
    pub n_violations: u64,
    /// Devices that a call has made a context on.
    pub contexts: BTreeSet<usize>,
    /// What every call that waits, asks or submits returns, once a copy has failed late.
    pub late_fault: Option<Code>,
    pub streams: HashMap<usize, Arc<Queue>>,
    pub default_streams: BTreeMap<usize, Arc<Queue>>,
    /// Destroyed ones that may have work left.
    pub draining: Vec<Arc<Queue>>,
    pub n_streams: u64,
    pub events: HashMap<usize, Event>,
    pub n_events: u64,
    next_handle: usize,
    pub device_memory: DeviceMemory,
    pub host_memory: HostMemory,
    /// Copies that were asked for and have not happened.
    pub flights: BTreeMap<u64, Flight>,
    pub n_flights: u64,
    pub tally: Tally,
    pub storage: Storage,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// The state, under its lock.
pub(crate) struct Locked(MutexGuard<'static, Option<State>>);

/// Locks the state. A thread that holds it may lock a queue, never the other way round.
pub(crate) fn state() -> Locked {
    let mut guard = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    guard.get_or_insert_with(State::new);
    Locked(guard)
}

impl std::ops::Deref for Locked {
    type Target = State;

    fn deref(&self) -> &State {
        self.0.as_ref().expect("it is made when it is locked")
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("it is made when it is locked")
    }
}

impl State {
    fn new() -> State {
        let config = Config::from_environment();
        crate::pace::hold(config.is_held);
        State {
            config,
            calls: BTreeMap::new(),
            n_failures: 0,
            violations: Vec::new(),
            n_violations: 0,
            contexts: BTreeSet::new(),
            late_fault: None,
            streams: HashMap::new(),
            default_streams: BTreeMap::new(),
            draining: Vec::new(),
            n_streams: 0,
            events: HashMap::new(),
            n_events: 0,
            // Far from any address, so that a mistaken pointer is no handle by chance.
            next_handle: 0x10_000,
            device_memory: DeviceMemory::new(),
            host_memory: HostMemory::new(),
            flights: BTreeMap::new(),
            n_flights: 0,
            tally: Tally::default(),
            storage: Storage::new(),
        }
    }

    pub(crate) fn new_handle(&mut self) -> usize {
        self.next_handle += 16;
        self.next_handle
    }

    /// Whether a number was a handle once.
    pub(crate) fn was_handle(&self, handle: usize) -> bool {
        handle > 0x10_000 && handle <= self.next_handle
    }

    pub(crate) fn violation(&mut self, text: String) {
        self.n_violations += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(text);
        }
    }

    /// The calling thread's device, which from now on has a context.
    pub(crate) fn context(&mut self) -> Result<usize> {
        let device = crate::device::current();
        if device >= self.config.devices {
            return Err(Code::INVALID_DEVICE);
        }
        self.contexts.insert(device);
        Ok(device)
    }

    /// The ends of the copies under way that touch a range.
    pub(crate) fn flights_over(&self, range: &Range<usize>) -> Vec<crate::stream::Moment> {
        let touching = self.flights.values().filter(|flight| flight.touches(range));
        touching.map(|flight| flight.moment.clone()).collect()
    }

    /// Changes the settings; those of a wrong text are not taken.
    pub(crate) fn configure(&mut self, text: &str) -> std::result::Result<(), String> {
        self.config = self.config.with(text)?;
        crate::pace::hold(self.config.is_held);
        Ok(())
    }

    /// Forgets what was counted, and goes back to the settings of the environment.
    pub(crate) fn reset(&mut self) {
        self.config = Config::from_environment();
        crate::pace::hold(self.config.is_held);
        self.calls.clear();
        self.n_failures = 0;
        self.violations.clear();
        self.n_violations = 0;
        self.contexts.clear();
        self.late_fault = None;
        self.n_streams = self.streams.len() as u64;
        self.n_events = self.events.len() as u64;
        self.tally = Tally::default();
        self.storage.forget_counts();
        self.device_memory.forget_peaks();
        self.host_memory.forget_peaks();
    }
}
