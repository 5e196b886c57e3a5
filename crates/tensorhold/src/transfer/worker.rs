//! Carries out one task after the other.

use std::sync::Arc;
use std::time::Instant;

use tensorhold_core::{ByteRange, Error, ErrorKind, LoadPlan, Piece, Result, Task, Tasks};
use tensorhold_device::{CopyQueue, DevicePart, RingNeed};
use tensorhold_io::{Buffer, Way, fetch};
use tensorhold_quant::cast;

use super::Numbered;
use super::counters::Counters;
use super::exchange::{Exchange, Job, Lent, Patience};
use super::memory::{Memory, Share};
use super::origin::Origin;
use super::pitched::Pitched;
use super::staging::{self, Hand};

/// What the workers of a transfer, and its consumer, have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub plan: Arc<LoadPlan>,
    pub tasks: Tasks,
    pub origins: Vec<Origin>,
    pub exchange: Exchange,
    pub counters: Counters,
    /// Keeps the ring as small as the transfer is.
    pub _need: Option<RingNeed>,
}

/// One pair of hands.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    number: usize,
    /// For what is read together and then taken apart.
    scratch: Option<Buffer>,
}

/// What a piece is filled into.
enum Place {
    Part(Share),
    Whole(Buffer),
}

/// Where that is.
enum Kind<'a> {
    Host(&'a mut [u8]),
    Device(&'a DevicePart),
}

impl Worker {
    pub fn new(shared: Arc<Shared>, number: usize) -> Worker {
        Worker {
            shared,
            number,
            scratch: None,
        }
    }

    /// Works until nothing is left.
    pub fn work(&mut self) {
        while self.step(Patience::Wait) {}
    }

    /// Carries out one task, if there is one that needs no waiting.
    pub fn work_once(&mut self) -> bool {
        self.step(Patience::Leave)
    }

    fn step(&mut self, patience: Patience) -> bool {
        let shared = Arc::clone(&self.shared);
        let asked = Instant::now();
        let job = shared.exchange.job(self.number, &shared.tasks, patience);
        let Some(job) = job.transpose() else {
            return false;
        };
        shared.counters.count_wait(asked);
        let mut unfinished = Unfinished(Some(&shared.exchange));
        let done = job.and_then(|job| {
            let task = job.task;
            self.carry_out(&shared, job).map_err(|error| (task, error))
        });
        unfinished.0 = None;
        match done.map_err(|(task, error)| blame(&shared, task, error)) {
            Ok(complete) => shared.exchange.finish(complete),
            Err(error) => shared.exchange.fail(error),
        }
        true
    }

    fn carry_out(&mut self, shared: &Shared, job: Job) -> Result<Numbered> {
        let task = &shared.tasks.tasks()[job.task];
        let pieces = shared.tasks.pieces(task);
        let begun = Instant::now();
        let mut places = places(job.lent)?;
        self.fill(shared, task, pieces, &mut places)?;
        shared.counters.count_read(task.extent.range.len(), begun);
        let complete = pieces.iter().zip(places);
        Ok(complete
            .filter_map(|(piece, place)| Some((piece.buffer, place.complete()?)))
            .collect())
    }

    fn fill(
        &mut self,
        shared: &Shared,
        task: &Task,
        pieces: &[Piece],
        places: &mut [Place],
    ) -> Result<()> {
        let origin = &shared.origins[task.extent.file];
        let source = origin.source();
        let range = task.extent.range;
        let hand = self.hand(&shared.exchange);
        if let (
            [
                piece @ Piece {
                    selection: None,
                    cast: None,
                    ..
                },
            ],
            [place],
        ) = (pieces, &mut *places)
        {
            let read = |into: &mut [u8]| source.read_at(range.start, into);
            return match place.by_kind() {
                Kind::Host(into) => read(into),
                Kind::Device(part) => {
                    if origin.read_to_device(range.start, part, hand)? {
                        return Ok(());
                    }
                    staging::send(hand, vec![(piece, part)], &mut |_, into| read(into))
                }
            };
        }
        self.fill_apart(shared, task, pieces, places)
    }

    /// Puts pieces in their places that are not read there.
    fn fill_apart(
        &mut self,
        shared: &Shared,
        task: &Task,
        pieces: &[Piece],
        places: &mut [Place],
    ) -> Result<()> {
        let origin = &shared.origins[task.extent.file];
        let source = origin.source();
        let range = task.extent.range;
        let hand = self.hand(&shared.exchange);
        let take = |bytes: &[u8], places: &mut [Place]| {
            Window::new(&shared.plan, range, bytes).take_apart(hand, pieces, places)
        };
        let mut taken = Ok(());
        if source.with_bytes(range, &mut |bytes| taken = take(bytes, places))? {
            return taken;
        }
        if origin.way() == Way::Direct
            && let Some(pieces) = on_devices(pieces, places)
            && let Some(pitched) = Pitched::of(range, source.size_bytes(), &pieces)
        {
            return pitched.send(hand, source);
        }
        let scratch = self.scratch(range.len())?;
        source.read_at(range.start, scratch)?;
        take(scratch, places)
    }

    /// The streams to devices are shared out among the workers. The first worker is the consumer.
    fn hand<'a>(&self, exchange: &'a Exchange) -> Hand<'a> {
        Hand {
            lane: self.number % CopyQueue::N_LANES,
            is_own_thread: self.number > 0,
            exchange,
        }
    }

    fn scratch(&mut self, size_bytes: u64) -> Result<&mut [u8]> {
        let is_enough = |scratch: &Buffer| scratch.len() as u64 >= size_bytes;
        if !self.scratch.as_ref().is_some_and(is_enough) {
            self.scratch = None;
        }
        let scratch = match &mut self.scratch {
            Some(scratch) => scratch,
            none => none.insert(Buffer::allocate(size_bytes)?),
        };
        let size = usize::try_from(size_bytes).expect("it was allocated");
        Ok(&mut scratch[..size])
    }
}

impl Place {
    fn by_kind(&mut self) -> Kind<'_> {
        match self {
            Place::Part(Share::Host(part)) => Kind::Host(part),
            Place::Part(Share::Device(part)) => Kind::Device(part),
            Place::Whole(buffer) => Kind::Host(buffer),
        }
    }

    /// The buffer, if this was the last part of it.
    fn complete(self) -> Option<Memory> {
        match self {
            Place::Part(part) => part.join(),
            Place::Whole(buffer) => Some(buffer.into()),
        }
    }
}

/// The pieces with where they go, if that is on devices for all of them.
fn on_devices<'a>(
    pieces: &'a [Piece],
    places: &'a [Place],
) -> Option<Vec<(&'a Piece, &'a DevicePart)>> {
    let on_device = |(piece, place): (&'a Piece, &'a Place)| match place {
        Place::Part(Share::Device(part)) => Some((piece, part)),
        _ => None,
    };
    pieces.iter().zip(places).map(on_device).collect()
}

/// Makes the buffers that are still to be made, all at once.
fn places(lent: Vec<Lent>) -> Result<Vec<Place>> {
    let size_of = |lent: &Lent| match lent {
        Lent::New(size_bytes) => Some(*size_bytes),
        _ => None,
    };
    let sizes: Vec<u64> = lent.iter().filter_map(size_of).collect();
    let mut new = Buffer::allocate_many(&sizes)?.into_iter();
    let place = |lent| match lent {
        Lent::Part(part) => Place::Part(part),
        Lent::Whole(buffer) => Place::Whole(buffer),
        Lent::New(_) => Place::Whole(new.next().expect("one was made for each")),
    };
    Ok(lent.into_iter().map(place).collect())
}

/// Bytes of a file that pieces are taken out of.
struct Window<'a> {
    plan: &'a LoadPlan,
    range: ByteRange,
    bytes: &'a [u8],
    /// What is gathered before it is cast.
    gathered: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(plan: &'a LoadPlan, range: ByteRange, bytes: &'a [u8]) -> Window<'a> {
        Window {
            plan,
            range,
            bytes,
            gathered: Vec::new(),
        }
    }

    /// Puts the pieces in their places.
    fn take_apart(&mut self, hand: Hand<'_>, pieces: &[Piece], places: &mut [Place]) -> Result<()> {
        let mut to_devices: Vec<(&Piece, &DevicePart)> = Vec::new();
        for (piece, place) in pieces.iter().zip(places) {
            match place.by_kind() {
                Kind::Host(into) => self.take(piece, into)?,
                Kind::Device(part) => to_devices.push((piece, part)),
            }
        }
        staging::send(hand, to_devices, &mut |piece, into| self.take(piece, into))
    }

    fn take(&mut self, piece: &Piece, into: &mut [u8]) -> Result<()> {
        let within = |position: u64| {
            let offset = usize::try_from(position - self.range.start);
            offset.expect("a piece lies in the bytes of its task")
        };
        let span = &self.bytes[within(piece.range.start)..within(piece.range.end)];
        let from = || self.plan.tensor(&self.plan.requests()[piece.request]).dtype;
        match (&piece.selection, piece.cast) {
            (None, None) => into.copy_from_slice(span),
            (Some(selection), None) => selection.gather_span_announced(span, into, fetch),
            (None, Some(to)) => cast(from(), span, to, into)?,
            (Some(selection), Some(to)) => {
                let size = usize::try_from(selection.size_bytes());
                let size = size.expect("it is no larger than its span");
                self.gathered.resize(size, 0);
                selection.gather_span_announced(span, &mut self.gathered, fetch);
                cast(from(), &self.gathered, to, into)?;
            }
        }
        Ok(())
    }
}

/// Names the file, and the tensor that the bytes of the error belong to.
fn blame(shared: &Shared, task: usize, error: Error) -> Error {
    let Shared { plan, tasks, .. } = shared;
    let task = &tasks.tasks()[task];
    let at = error.bytes().map(|bytes| bytes.start);
    let hit = |piece: &&Piece| at.is_some_and(|at| at < piece.range.end);
    let pieces = tasks.pieces(task);
    let error = error.with_file(plan.file_name(task.extent.file));
    match pieces.iter().find(hit).or(pieces.first()) {
        Some(piece) => error.with_tensor(plan.tensor(&plan.requests()[piece.request]).name),
        None => error,
    }
}

/// Ends the transfer where a worker does not come back from a task.
struct Unfinished<'a>(Option<&'a Exchange>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = self.0 {
            exchange.fail(Error::new(
                ErrorKind::Io,
                "a thread that was reading came to a sudden end",
            ));
        }
    }
}
