//! Several threads write one file, for the time of one save.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tensorhold_core::{Error, Layout, Origin, Result, SavePlan, Sink};
use tensorhold_io::{AtomicFile, Writer, check_interrupt};

/// Two threads keep a disk busy while the next bytes are gathered; more than four were never faster.
const WRITERS: std::ops::RangeInclusive<usize> = 2..=4;

/// The thread that saves is told of the progress, and asks whether to go on, about so often.
const BETWEEN_CHECKS: Duration = Duration::from_millis(20);

/// Writes the whole of `layout`, whose tensors are `tensors`. `progress` is told in this thread how many bytes of tensors were written;
/// what it returns as an error ends the save.
pub(super) fn write(
    file: &mut AtomicFile,
    layout: &Layout,
    tensors: &[&[u8]],
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    if !file.takes_positions() {
        return write_in_order(file, layout, tensors, progress);
    }
    let plan = SavePlan::new(layout, Writer::WRITE_BYTES as u64);
    let job = Job {
        file,
        head: &layout.head,
        tensors,
        plan,
        next: AtomicU64::new(0),
        n_done: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let n_writers = thread::available_parallelism()
        .map_or(1, usize::from)
        .clamp(*WRITERS.start(), *WRITERS.end());
    let n_helpers = job
        .plan
        .n_writes()
        .saturating_sub(1)
        .min(n_writers as u64 - 1);
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
    head: &'a [u8],
    tensors: &'a [&'a [u8]],
    plan: SavePlan,
    /// The next write that nobody has taken yet.
    next: AtomicU64,
    /// Bytes of tensors.
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

    fn lead(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
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
            while let Some(write) = self.take() {
                self.carry_out(write, &mut writer)?;
                after()?;
            }
            Ok(())
        });
        if written.is_err() {
            self.is_over.store(true, Ordering::Relaxed);
        }
        written
    }

    fn take(&self) -> Option<u64> {
        let write = self.next.fetch_add(1, Ordering::Relaxed);
        (write < self.plan.n_writes() && !self.is_over.load(Ordering::Relaxed)).then_some(write)
    }

    fn carry_out(&self, write: u64, writer: &mut Writer<'_>) -> Result<()> {
        let mut of_tensors = 0;
        let mut parts = Vec::new();
        for part in self.plan.parts(write) {
            let whole = match part.origin {
                Origin::Head => self.head,
                Origin::Tensor(index) => {
                    of_tensors += part.bytes.len();
                    self.tensors[index]
                }
            };
            let place = |position| usize::try_from(position).expect("it lies in memory");
            parts.push(&whole[place(part.bytes.start)..place(part.bytes.end)]);
        }
        writer.write(self.plan.range(write).start, &parts)?;
        self.n_done.fetch_add(of_tensors, Ordering::Relaxed);
        Ok(())
    }
}

/// For what takes bytes only one after the other.
fn write_in_order(
    file: &mut AtomicFile,
    layout: &Layout,
    tensors: &[&[u8]],
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    file.write(&layout.head)?;
    let mut n_done = 0;
    for &index in &layout.order {
        file.write(tensors[index])?;
        n_done += tensors[index].len() as u64;
        progress(n_done)?;
    }
    Ok(())
}
