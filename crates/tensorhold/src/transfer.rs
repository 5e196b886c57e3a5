//! The engine that carries a plan out: workers read, the one who asked for it gets each buffer as it is complete.
//!
//! ```text
//! plan ──cut──▶ tasks ──queue──▶ workers ──parts of buffers──▶ exchange ──complete buffers──▶ consumer
//! ```
//!
//! Workers live as long as the transfer. A [`Buffer`] is lent out in parts, each to the one worker that fills it; who brings
//! back the last part completes the buffer. With a limit of memory, no new buffer is begun while those that were not
//! yet taken are too large together, but for one that the consumer waits for.

mod counters;
mod exchange;
mod gds;
mod memory;
mod origin;
mod pitched;
mod queue;
mod staging;
pub(crate) mod sync;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tensorhold_core::{ByteRange, Cut, Error, ErrorKind, LoadPlan, Result, Tasks};
use tensorhold_device::{CopyQueue, Device, RingNeed, Slot};
use tensorhold_io::{Access, Wanted, Way};
use tensorhold_quant::can_cast;

use self::counters::Counters;
use self::exchange::Exchange;
use self::queue::Queue;
use self::worker::{Shared, Worker};
use crate::file::File;

pub(crate) use self::gds::{Gds, GdsFile};
pub(crate) use self::origin::Origin;

pub use self::counters::TransferStats;
pub use self::gds::GdsStats;
pub use self::memory::Memory;

/// How a plan is carried out.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransferOptions {
    /// How many threads read; as many as the files and the machine deserve where it is not said.
    pub n_threads: Option<usize>,
    /// How many of the machine's processors it is to count on, where other processes load beside this one; all that the process
    /// may use where it is not said. Disks and networks, which are to be kept busy whoever loads, get as many threads as ever.
    pub n_cores: Option<usize>,
    /// The most bytes of buffers that were begun and not yet taken. One buffer that is larger is let through alone.
    pub memory_limit: Option<u64>,
}

/// Buffers with their numbers in the plan.
pub type Numbered = Vec<(usize, Memory)>;

/// Buffers whose memory is still to come when a transfer begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Promised<'a> {
    /// Their numbers in the plan.
    pub buffers: &'a [usize],
    /// Whether some of it is that of a device which [has the host's](Device::is_integrated).
    pub is_unified: bool,
}

/// A plan that is being carried out in the background.
///
/// Each buffer is given out once, by [`next`](Transfer::next) as they are complete or by [`take`](Transfer::take), to whichever thread
/// asks. Dropping the transfer ends it: no byte is read after that, and no thread is left.
#[derive(Debug)]
pub struct Transfer {
    shared: Arc<Shared>,
    /// The consumer's own hands, where there are no threads, or for waiting usefully.
    own: Mutex<Worker>,
    threads: Vec<JoinHandle<()>>,
    /// How many pairs of hands the work deserves.
    n_workers: usize,
    /// Whether the consumer works rather than waits.
    helps: bool,
}

impl Transfer {
    /// Begins to carry out `plan`, whose file number `n` is `files[n]`.
    ///
    /// `given` holds memory for buffers by their number in the plan, each as long as the plan says; the others are allocated.
    ///
    /// # Errors
    /// `InvalidArgument` if the plan fills a byte of a buffer twice or never, or asks for a cast that [cannot](can_cast) be.
    ///
    /// # Panics
    /// If there are not as many files as the plan has, or a given buffer has another size.
    pub fn start(
        plan: impl Into<Arc<LoadPlan>>,
        files: &[File],
        given: Numbered,
        options: TransferOptions,
    ) -> Result<Transfer> {
        Transfer::start_promised(plan, files, given, Promised::default(), options)
    }

    /// Begins to carry out `plan` as [`start`](Transfer::start) does, with memory for the `promised` buffers still to
    /// come: whoever asks for buffers gives what is [owed](Transfer::owed) before. So no more of it is needed at a time than the
    /// limit says; what is [demanded](Transfer::demand) comes on top, each with what is read together with it, until that is taken.
    ///
    /// # Errors
    /// As [`start`](Transfer::start).
    ///
    /// # Panics
    /// As [`start`](Transfer::start), and if a promised buffer is empty.
    pub fn start_promised(
        plan: impl Into<Arc<LoadPlan>>,
        files: &[File],
        given: Numbered,
        promised: Promised<'_>,
        options: TransferOptions,
    ) -> Result<Transfer> {
        let mut transfer = Transfer::prepare(plan.into(), files, given, promised, options)?;
        transfer.spawn(transfer.n_workers);
        transfer.helps = transfer.threads.is_empty();
        Ok(transfer)
    }

    /// Carries out `plan` with the calling thread among the workers, and gives all buffers by their number.
    ///
    /// `progress` is told now and then how many bytes are in place; what it returns as an error ends the transfer.
    ///
    /// # Errors
    /// Those of [`start`](Transfer::start) and of [`next`](Transfer::next).
    pub fn run(
        plan: impl Into<Arc<LoadPlan>>,
        files: &[File],
        given: Numbered,
        options: TransferOptions,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<(Vec<Memory>, TransferStats)> {
        let plan = plan.into();
        let mut buffers: Vec<Option<Memory>> = Vec::new();
        buffers.resize_with(plan.buffers().len(), || None);
        let mut take = |complete: &mut Numbered, done| {
            for (number, buffer) in complete.drain(..) {
                buffers[number] = Some(buffer);
            }
            progress(done)
        };
        let (_, stats) = Transfer::run_each(plan, files, given, options, &mut take)?;
        let buffers: Option<Vec<Memory>> = buffers.into_iter().collect();
        let buffers = buffers.expect("the transfer gives every buffer once before it ends");
        Ok((buffers, stats))
    }

    /// Carries out `plan` with the calling thread among the workers, and shows `take` the buffers that are complete, with their
    /// numbers, and how many bytes are in place. What `take` leaves it is shown again with the next ones, and given at the
    /// end; what it returns as an error ends the transfer.
    ///
    /// # Errors
    /// Those of [`start`](Transfer::start), of [`next`](Transfer::next), and of `take`.
    pub fn run_each(
        plan: impl Into<Arc<LoadPlan>>,
        files: &[File],
        given: Numbered,
        options: TransferOptions,
        take: &mut dyn FnMut(&mut Numbered, u64) -> Result<()>,
    ) -> Result<(Numbered, TransferStats)> {
        let mut transfer =
            Transfer::prepare(plan.into(), files, given, Promised::default(), options)?;
        transfer.spawn(transfer.n_workers - 1);
        transfer.helps = true;
        let mut complete = Vec::new();
        let (mut n_left, mut done) = (0, 0);
        while transfer.next_few(&mut complete)? {
            let new = complete[n_left..].iter();
            done += new.map(|(_, buffer)| buffer.len() as u64).sum::<u64>();
            take(&mut complete, done)?;
            n_left = complete.len();
        }
        Ok((complete, transfer.stats()))
    }

    fn prepare(
        plan: Arc<LoadPlan>,
        files: &[File],
        given: Numbered,
        promised: Promised<'_>,
        options: TransferOptions,
    ) -> Result<Transfer> {
        assert_eq!(plan.n_files(), files.len(), "a file for each of the plan");
        refuse_casts(&plan)?;
        let wanted = wanted(&plan);
        let staged_bytes = staged_bytes(&plan, &given, promised);
        let is_passed_on = staged_bytes > plan.size_bytes() / 2;
        let gds = Arc::default();
        let choice = choice(&given, promised);
        let origins: Vec<Origin> = files
            .iter()
            .zip(&wanted)
            .map(|(file, &wanted)| match file.origin(wanted, choice, &gds) {
                origin if is_passed_on => origin.passed_on(),
                origin => origin,
            })
            .collect();
        let tasks = plan.tasks(|file| match &origins[file] {
            origin if staged_bytes > 0 => cut_for_slots(origin),
            origin => cut_for(origin.way()),
        })?;
        let n_workers = n_workers(&origins, &wanted, &tasks, options);
        let n_stretches = match origins.iter().any(Origin::wants_contiguous) {
            true => n_workers,
            false => 1,
        };
        let queue = Queue::of(tasks.stretches(n_stretches));
        let exchange = Exchange::new(
            &plan,
            &tasks,
            queue,
            given,
            promised.buffers,
            options.memory_limit,
        )?;
        let shared = Arc::new(Shared {
            plan,
            tasks,
            origins,
            exchange,
            counters: Counters::start(),
            _need: need(staged_bytes, n_workers),
        });
        Ok(Transfer {
            own: Mutex::new(Worker::new(Arc::clone(&shared), 0)),
            shared,
            threads: Vec::new(),
            n_workers,
            helps: true,
        })
    }

    /// Starts up to `n` threads; where the system gives fewer, the consumer works itself.
    fn spawn(&mut self, n: usize) {
        if self.shared.tasks.read_bytes() < INLINE_BYTES {
            return;
        }
        for number in 1..=n {
            let mut worker = Worker::new(Arc::clone(&self.shared), number);
            let thread = thread::Builder::new().name("tensorhold".to_owned());
            match thread.spawn(move || worker.work()) {
                Ok(thread) => self.threads.push(thread),
                Err(_) => break,
            }
        }
    }

    /// The next buffer that is complete, with its number in the plan; `None` once all were given out.
    ///
    /// # Errors
    /// `Truncated`, `Io` or `NoMemory` with the file, tensor and bytes, once, for whatever happened first; `Interrupted`
    /// where the process is to end. The transfer is over then.
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator's items could not tell the end from an error"
    )]
    pub fn next(&self) -> Result<Option<(usize, Memory)>> {
        loop {
            if let Some(ready) = self.shared.exchange.poll()? {
                return Ok(Some(ready));
            }
            if !(self.helps && self.work_once()) {
                return self.shared.exchange.next();
            }
        }
    }

    /// Adds the buffers that are complete to `complete`, waiting for one; whether there was any left.
    fn next_few(&self, complete: &mut Numbered) -> Result<bool> {
        loop {
            if self.shared.exchange.poll_all(complete)? {
                return Ok(true);
            }
            if !(self.helps && self.work_once()) {
                let next = self.shared.exchange.next()?;
                let is_any = next.is_some();
                complete.extend(next);
                return Ok(is_any);
            }
        }
    }

    /// Buffer number `buffer`, before any other; `None` if it was given out before.
    ///
    /// # Errors
    /// As [`next`](Transfer::next).
    pub fn take(&self, buffer: usize) -> Result<Option<Memory>> {
        self.demand(buffer);
        while self.helps && !self.shared.exchange.is_ready(buffer) && self.work_once() {}
        self.shared.exchange.take(buffer)
    }

    /// Reads buffer number `buffer` before any other.
    pub fn demand(&self, buffer: usize) {
        self.shared.exchange.demand(buffer, &self.shared.tasks);
    }

    /// The promised buffers that are to be [offered](Transfer::offer) now, and their sizes: before each [`next`](Transfer::next), and
    /// between [`demand`](Transfer::demand) and [`take`](Transfer::take), which else wait for ever.
    #[must_use]
    pub fn owed(&self) -> Vec<(usize, u64)> {
        self.shared.exchange.owed(&self.shared.tasks)
    }

    /// Gives memory for promised buffers.
    ///
    /// # Panics
    /// If a buffer has another size than the plan says.
    pub fn offer(&self, memory: Numbered) {
        self.shared.exchange.offer(memory);
    }

    /// Ends the transfer: buffers that were not given out go, and whoever waits for one gets an error.
    pub fn cancel(&self) {
        self.shared.exchange.cancel();
    }

    /// Lends a hand; `false` where there is nothing to do now.
    fn work_once(&self) -> bool {
        // A worker that panicked left its error in the exchange.
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.work_once()
    }

    /// The plan that is carried out.
    #[must_use]
    pub fn plan(&self) -> &LoadPlan {
        &self.shared.plan
    }

    /// What was done so far, and how.
    #[must_use]
    pub fn stats(&self) -> TransferStats {
        let Shared {
            counters,
            origins,
            plan,
            ..
        } = &*self.shared;
        let ways = origins.iter().map(Origin::way).collect();
        let gds = origins.iter().find_map(Origin::gds);
        counters.stats(plan.size_bytes(), ways, gds, self.threads.len())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.shared.exchange.cancel();
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so, and left its error in the exchange.
            let _ = thread.join();
        }
    }
}

/// Less than this is read before a thread would have started.
const INLINE_BYTES: u64 = 1 << 20;

const PIECE_BYTES: u64 = 8 << 20;

const _: () = assert!(PIECE_BYTES <= Slot::BYTES as u64);

/// What is cast becomes at most so many times as large.
const MOST_GROWTH: u64 = 8;

/// What is copied on from the processor's caches: as many pieces of this size as are under way have room in them.
const PASSED_ON_BYTES: u64 = 2 << 20;

/// How what goes to devices is best cut: what is cast, which comes by way of a window, fits into a slot afterwards.
fn cut_for_slots(origin: &Origin) -> Cut {
    let cut = cut_for(origin.way());
    Cut {
        window_bytes: cut.window_bytes.min(Slot::BYTES as u64 / MOST_GROWTH),
        piece_bytes: match origin.uses_caches() {
            true => cut.piece_bytes.min(PASSED_ON_BYTES),
            false => cut.piece_bytes,
        },
        ..cut
    }
}

/// Copies that keep a device busy: on each stream one under way, and one behind it.
const N_FLYING: usize = 2 * CopyQueue::N_LANES;

/// Keeps the ring as small as is enough for what goes to devices: more slots would take the caches from each other.
fn need(staged_bytes: u64, n_workers: usize) -> Option<RingNeed> {
    let enough_bytes = (n_workers + N_FLYING) as u64 * Slot::BYTES as u64;
    (staged_bytes > 0).then(|| RingNeed::new(staged_bytes.min(enough_bytes)))
}

/// How what is read in this way is best cut.
pub(crate) fn cut_for(way: Way) -> Cut {
    match way {
        // What is passed over in place costs nothing.
        Way::Mapped | Way::Copied => Cut {
            piece_bytes: PIECE_BYTES,
            window_bytes: PIECE_BYTES,
            max_gap_bytes: u64::MAX,
        },
        // A second system call costs as much as reading 16 KiB; what is copied once more should stay in the cache.
        Way::Buffered => Cut {
            piece_bytes: PIECE_BYTES,
            window_bytes: 1 << 20,
            max_gap_bytes: 16 << 10,
        },
        Way::Direct => Cut {
            piece_bytes: PIECE_BYTES,
            window_bytes: PIECE_BYTES,
            max_gap_bytes: 64 << 10,
        },
    }
}

/// How many bytes go to devices.
fn staged_bytes(plan: &LoadPlan, given: &Numbered, promised: Promised<'_>) -> u64 {
    let given = given.iter().filter(|(_, memory)| memory.is_device());
    let given = given.map(|(_, memory)| memory.len() as u64);
    let promised = promised
        .buffers
        .iter()
        .map(|&number| plan.buffers()[number]);
    given.chain(promised).sum()
}

/// How files are read of which nobody said it. Where the page cache has the memory that the tensors are to have, it is not to
/// hold them as well.
fn choice(given: &Numbered, promised: Promised<'_>) -> Access {
    let devices = given.iter().filter_map(|(_, memory)| memory.device());
    let mut devices: Vec<Device> = devices.collect();
    // Most are of the same one as those before.
    devices.dedup();
    let is_integrated = |device: Device| device.is_integrated().unwrap_or(false);
    match promised.is_unified || devices.into_iter().any(is_integrated) {
        true => Access::Sparing,
        false => Access::Auto,
    }
}

fn refuse_casts(plan: &LoadPlan) -> Result<()> {
    for request in plan.requests() {
        let Some(dtype) = request.dtype else {
            continue;
        };
        let info = plan.tensor(request);
        if dtype != info.dtype && !can_cast(info.dtype, dtype) {
            let message = format!("{} cannot be cast to {dtype}", info.dtype);
            let error = Error::new(ErrorKind::InvalidArgument, message);
            return Err(error
                .with_file(plan.file_name(request.file))
                .with_tensor(info.name));
        }
    }
    Ok(())
}

/// What is wanted of each file.
fn wanted(plan: &LoadPlan) -> Vec<Wanted> {
    let nothing = Wanted {
        n_bytes: 0,
        span: ByteRange::default(),
    };
    let mut all = vec![nothing; plan.n_files()];
    for request in plan.requests() {
        let wanted = &mut all[request.file];
        let span = plan.span(request);
        wanted.span = match wanted.n_bytes {
            0 => span,
            _ => ByteRange::new(
                wanted.span.start.min(span.start),
                wanted.span.end.max(span.end),
            ),
        };
        wanted.n_bytes += plan.size_of(request);
    }
    all
}

/// As many as the most demanding file that is read deserves, but no more than there are tasks; never none.
fn n_workers(
    origins: &[Origin],
    wanted: &[Wanted],
    tasks: &Tasks,
    options: TransferOptions,
) -> usize {
    // The system is asked once: it opens files of its own to answer.
    let n_usable = thread::available_parallelism().map_or(1, usize::from);
    let n_cores = options.n_cores.map_or(n_usable, |n| n.clamp(1, n_usable));
    let deserved = origins
        .iter()
        .zip(wanted)
        .filter(|(_, wanted)| wanted.n_bytes > 0)
        .map(|(origin, _)| origin.n_readers(n_cores))
        .max();
    let asked = options.n_threads.or(deserved).unwrap_or(1);
    asked.min(tasks.tasks().len()).max(1)
}
