//! Several threads write one file, for the time of one save.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tensorhold_core::{ByteRange, Error, Layout, Origin, Result, SavePart, SavePlan, Sink};
use tensorhold_device::{RingNeed, SlotFetch};
use tensorhold_io::{AtomicFile, Writer, check_interrupt};

use super::arriving::{Arriving, Patience, for_each_write};
use super::{SaveProgress, TensorData, TensorView};

/// Two threads keep a disk busy while the next bytes are gathered; more than four were never faster.
const WRITERS: std::ops::RangeInclusive<usize> = 2..=4;

/// The thread that saves is told of the progress, and asks whether to go on, about so often.
const BETWEEN_CHECKS: Duration = Duration::from_millis(20);

/// Where the bytes of a file's writes come from.
pub(super) trait Content: Sync {
    /// Hands the parts of a write, all of which lie in host memory, to `put`.
    fn with_parts(&self, write: u64, put: &mut dyn FnMut(&[&[u8]]) -> Result<()>) -> Result<()>;

    /// Begins to fetch the bytes of a write, some of which lie on devices. `None` where none do, or, to who does not wait, where
    /// there is no slot for them.
    fn begin(&self, write: u64, patience: Patience) -> Result<Option<Arriving<'_>>> {
        let _ = (write, patience);
        Ok(None)
    }
}

/// Tensors where the caller has them.
pub(super) struct Live<'a> {
    layout: &'a Layout,
    plan: &'a SavePlan,
    tensors: &'a [TensorView<'a>],
    is_on_devices: bool,
    /// Keeps the ring as small as what is on devices.
    _need: Option<RingNeed>,
}

impl<'a> Live<'a> {
    pub(super) fn new(
        layout: &'a Layout,
        plan: &'a SavePlan,
        tensors: &'a [TensorView<'a>],
    ) -> Live<'a> {
        let on_devices = tensors.iter().filter(|tensor| tensor.data.is_on_device());
        let device_bytes: u64 = on_devices.map(|tensor| tensor.data.len() as u64).sum();
        Live {
            layout,
            plan,
            tensors,
            is_on_devices: device_bytes > 0,
            _need: (device_bytes > 0).then(|| RingNeed::new(device_bytes)),
        }
    }

    /// The bytes of a part, where they are in host memory.
    fn host(&self, part: &SavePart) -> Option<&'a [u8]> {
        let bytes = in_memory(part.bytes);
        match part.origin {
            Origin::Head => Some(&self.layout.head[bytes]),
            Origin::Tensor(index) => match self.tensors[index].data {
                TensorData::Host(all) => Some(&all[bytes]),
                TensorData::Device(_) => None,
            },
        }
    }

    /// What is to be fetched for a part, where it is on a device, to `to` in the slot.
    fn fetch(&self, part: &SavePart, to: usize) -> Option<SlotFetch<'a>> {
        let Origin::Tensor(index) = part.origin else {
            return None;
        };
        match self.tensors[index].data {
            TensorData::Host(_) => None,
            TensorData::Device(view) => Some(SlotFetch {
                view: view.part(in_memory(part.bytes)),
                to,
            }),
        }
    }
}

impl Content for Live<'_> {
    fn with_parts(&self, write: u64, put: &mut dyn FnMut(&[&[u8]]) -> Result<()>) -> Result<()> {
        let host = |part| self.host(&part).expect("what is on a device is fetched");
        let parts: Vec<&[u8]> = self.plan.parts(write).map(host).collect();
        put(&parts)
    }

    fn begin(&self, write: u64, patience: Patience) -> Result<Option<Arriving<'_>>> {
        if !self.is_on_devices {
            return Ok(None);
        }
        let ByteRange { start, end } = self.plan.range(write);
        let place = |part: &SavePart| in_memory(ByteRange::new(start, part.position)).len();
        let fetches = self.plan.parts(write);
        let fetches = fetches.filter_map(|part| self.fetch(&part, place(&part)));
        let len = in_memory(ByteRange::new(start, end)).len();
        Arriving::begin(write, len, fetches.collect(), patience, |slot| {
            for part in self.plan.parts(write) {
                if let Some(bytes) = self.host(&part) {
                    slot[place(&part)..][..bytes.len()].copy_from_slice(bytes);
                }
            }
        })
    }
}

fn in_memory(bytes: ByteRange) -> Range<usize> {
    let place = |offset| usize::try_from(offset).expect("it lies in memory");
    place(bytes.start)..place(bytes.end)
}

pub(super) fn plan(layout: &Layout) -> SavePlan {
    SavePlan::new(layout, Writer::WRITE_BYTES as u64)
}

/// How many threads work on what has `n_parts` parts.
pub(super) fn n_workers(n_parts: u64) -> u64 {
    let n_cores = thread::available_parallelism().map_or(1, usize::from);
    n_parts.min(n_cores.clamp(*WRITERS.start(), *WRITERS.end()) as u64)
}

/// Carries out some writes of `plan`. `progress` is told in this thread how many bytes were written; what it returns as an error
/// ends the save.
pub(super) fn write(
    file: &mut AtomicFile,
    plan: &SavePlan,
    writes: Range<u64>,
    content: &dyn Content,
    progress: &mut SaveProgress<'_>,
) -> Result<()> {
    if !file.takes_positions() {
        return write_in_order(file, plan, writes, content, progress);
    }
    let n_helpers = match file.deserves_threads() {
        true => n_workers(writes.end - writes.start).saturating_sub(1),
        false => 0,
    };
    let job = Job {
        file,
        content,
        plan,
        next: AtomicU64::new(writes.start),
        end: writes.end,
        n_done: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let own = thread::scope(|scope| {
        for _ in 0..n_helpers {
            // Where no thread can be had, those that are there do the work.
            let _ = thread::Builder::new().spawn_scoped(scope, || job.help());
        }
        job.lead(progress)
    });
    let failure = job.failure.into_inner();
    match failure.unwrap_or_else(PoisonError::into_inner) {
        Some(error) if own.is_ok() => Err(error),
        _ => own,
    }
}

/// What the threads of one save share.
struct Job<'a> {
    file: &'a AtomicFile,
    content: &'a dyn Content,
    plan: &'a SavePlan,
    /// The next write that nobody has taken yet.
    next: AtomicU64,
    end: u64,
    n_done: AtomicU64,
    is_over: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Job<'_> {
    fn help(&self) {
        if let Err(error) = self.run(&mut || Ok(())) {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
        }
    }

    fn lead(&self, progress: &mut SaveProgress<'_>) -> Result<()> {
        let mut last = Instant::now();
        self.run(&mut || {
            if last.elapsed() < BETWEEN_CHECKS {
                return Ok(());
            }
            check_interrupt()?;
            progress(self.n_done.load(Ordering::Relaxed))?;
            last = Instant::now();
            Ok(())
        })
    }

    /// Takes one write after the other until none is left, and calls `after` after each.
    fn run(&self, after: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let written = self.file.writer().and_then(|mut writer| {
            for_each_write(
                self.content,
                || self.take(),
                |write, parts| {
                    let range = self.plan.range(write);
                    writer.write(range.start, parts)?;
                    self.n_done.fetch_add(range.len(), Ordering::Relaxed);
                    after()
                },
            )
        });
        if written.is_err() {
            self.is_over.store(true, Ordering::Relaxed);
        }
        written
    }

    fn take(&self) -> Option<u64> {
        let write = self.next.fetch_add(1, Ordering::Relaxed);
        (write < self.end && !self.is_over.load(Ordering::Relaxed)).then_some(write)
    }
}

/// For what takes bytes only one after the other.
fn write_in_order(
    file: &mut AtomicFile,
    plan: &SavePlan,
    writes: Range<u64>,
    content: &dyn Content,
    progress: &mut SaveProgress<'_>,
) -> Result<()> {
    let mut n_done = 0;
    let mut writes = writes;
    for_each_write(
        content,
        || writes.next(),
        |write, parts| {
            parts.iter().try_for_each(|part| file.write(part))?;
            n_done += plan.range(write).len();
            progress(n_done)
        },
    )
}
