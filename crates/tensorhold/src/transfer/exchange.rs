//! Where workers get parts of buffers to fill, and the consumer gets the buffers that are complete.
//!
//! A buffer is waiting, lent out in parts, ready, or gone. It is lent when the first task that fills a part of it is
//! given out; who brings back its last part makes it ready.

#[cfg(all(test, loom))]
mod model;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use tensorhold_core::{Error, ErrorKind, LoadPlan, Piece, Result, Tasks};
use tensorhold_io::Buffer;

use super::memory::{Memory, Share};
use super::queue::Queue;
use super::sync::{self, Condvar, Mutex, MutexGuard};

#[derive(Debug)]
pub(super) struct Exchange {
    state: Mutex<State>,
    /// Rung when a task may have become possible, or the transfer is over.
    room: Condvar,
    /// Rung when a buffer is ready, or the transfer is over.
    ready: Condvar,
}

/// A task, and what it fills, piece by piece.
#[derive(Debug)]
pub(super) struct Job {
    pub task: usize,
    pub lent: Vec<Lent>,
}

/// What a piece is filled into.
#[derive(Debug)]
pub(super) enum Lent {
    /// A part of a buffer that others fill too.
    Part(Share),
    /// A whole buffer of the host.
    Whole(Buffer),
    /// A whole buffer of this many bytes, which the worker makes.
    New(u64),
}

/// Whether a worker waits until the limit of memory lets it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Wait,
    Leave,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    slots: Vec<Slot>,
    /// The pieces of each buffer, as a range of `order`.
    pieces_of: Vec<Range<usize>>,
    /// The numbers of all pieces, by buffer and place in it.
    order: Vec<usize>,
    sizes: Vec<u64>,
    ready: VecDeque<usize>,
    in_flight_bytes: u64,
    memory_limit: u64,
    /// Buffers that the consumer still has to give.
    n_promised: usize,
    n_running: usize,
    /// Workers that wait for room; without any, none needs to be told of it.
    n_waiting: usize,
    n_ready: usize,
    n_left: usize,
    end: Option<End>,
}

#[derive(Debug)]
enum End {
    Cancelled,
    /// The error, until the consumer was told.
    Failed(Option<Error>),
}

#[derive(Debug)]
enum Slot {
    /// Nothing was read yet, and nothing can be before the consumer gives the memory.
    Promised,
    /// Nothing was read yet, into memory that the consumer gave when it was needed.
    Offered(Memory),
    /// Nothing was read yet; with memory, if it was given.
    Waiting(Option<Memory>),
    /// The parts by piece, as far as no worker has them yet.
    Lent(Vec<(usize, Option<Share>)>),
    Ready(Memory),
    Gone,
}

impl Exchange {
    /// # Errors
    /// `NoMemory`, for an empty buffer.
    ///
    /// # Panics
    /// If a given buffer has another size than the plan says, or a promised one is empty.
    pub fn new(
        plan: &LoadPlan,
        tasks: &Tasks,
        queue: Queue,
        given: Vec<(usize, Memory)>,
        promised: &[usize],
        memory_limit: Option<u64>,
    ) -> Result<Exchange> {
        let sizes = plan.buffers().to_vec();
        let mut slots: Vec<Slot> = Vec::new();
        slots.resize_with(sizes.len(), || Slot::Waiting(None));
        for (number, buffer) in given {
            assert_eq!(buffer.len() as u64, sizes[number], "the buffer's size");
            slots[number] = Slot::Waiting(Some(buffer));
        }
        for &number in promised {
            assert_ne!(sizes[number], 0, "nobody would wait for an empty buffer");
            slots[number] = Slot::Promised;
        }
        let (order, pieces_of) = by_buffer(tasks, sizes.len());
        if memory_limit.is_none() {
            allocate_together(&mut slots, &sizes);
        }
        let mut ready = VecDeque::new();
        for (number, slot) in slots.iter_mut().enumerate() {
            if let (true, Slot::Waiting(given)) = (pieces_of[number].is_empty(), &mut *slot) {
                let buffer = given.take().map_or_else(|| allocate(0), Ok)?;
                *slot = Slot::Ready(buffer);
                ready.push_back(number);
            }
        }
        Ok(Exchange {
            state: Mutex::new(State {
                n_left: sizes.len(),
                n_ready: ready.len(),
                queue,
                slots,
                pieces_of,
                order,
                sizes,
                ready,
                in_flight_bytes: 0,
                memory_limit: memory_limit.unwrap_or(u64::MAX),
                n_promised: promised.len(),
                n_running: 0,
                n_waiting: 0,
                end: None,
            }),
            room: Condvar::new(),
            ready: Condvar::new(),
        })
    }

    /// What `worker` is to do next; `None` when there is nothing left, or, for the impatient, no room now.
    ///
    /// # Errors
    /// `NoMemory`, with the task that there is none for; the worker is to [fail](Exchange::fail) it.
    pub fn job(
        &self,
        worker: usize,
        tasks: &Tasks,
        patience: Patience,
    ) -> Result<Option<Job>, (usize, Error)> {
        let mut state = self.lock();
        loop {
            let next = state.queue.peek(worker).filter(|_| state.end.is_none());
            let Some((task, is_urgent)) = next else {
                return Ok(None);
            };
            let pieces = tasks.pieces(&tasks.tasks()[task]);
            if state.is_possible(pieces) && (is_urgent || state.has_room_for(pieces)) {
                state.queue.pop(worker);
                state.n_running += 1;
                let lent = state.lend(task, tasks);
                return lent.map(Some).map_err(|error| (task, error));
            }
            if patience == Patience::Leave {
                return Ok(None);
            }
            state.n_waiting += 1;
            state = sync::wait(&self.room, state);
            state.n_waiting -= 1;
        }
    }

    /// Takes back what a job filled: the buffers that it completed.
    pub fn finish(&self, complete: Vec<(usize, Memory)>) {
        let mut state = self.lock();
        state.n_running -= 1;
        state.n_ready += complete.len();
        for (number, buffer) in complete {
            state.slots[number] = Slot::Ready(buffer);
            state.ready.push_back(number);
        }
        self.tell_workers(state);
        self.ready.notify_all();
    }

    /// Ends the transfer with what happened to a job, unless it had ended before.
    pub fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.n_running -= 1;
        self.end(state, End::Failed(Some(error)));
    }

    /// Ends the transfer: no job is given out any more.
    pub fn cancel(&self) {
        self.end(self.lock(), End::Cancelled);
    }

    /// Asks whether the transfer goes on.
    ///
    /// # Errors
    /// `Closed` if it has ended.
    pub fn check(&self) -> Result<()> {
        match self.lock().end {
            None => Ok(()),
            Some(_) => Err(ended()),
        }
    }

    /// A buffer that is ready, if there is one now.
    pub fn poll(&self) -> Result<Option<(usize, Memory)>> {
        let mut state = self.lock();
        let ready = state.next_ready()?;
        self.tell_workers(state);
        Ok(ready)
    }

    /// Adds all buffers that are ready now to `complete`; whether there were any.
    pub fn poll_all(&self, complete: &mut Vec<(usize, Memory)>) -> Result<bool> {
        let mut state = self.lock();
        let n_before = complete.len();
        while let Some(ready) = state.next_ready()? {
            complete.push(ready);
        }
        self.tell_workers(state);
        Ok(complete.len() > n_before)
    }

    /// The next buffer that is ready, waiting for it; `None` when all were given out.
    pub fn next(&self) -> Result<Option<(usize, Memory)>> {
        let mut state = self.lock();
        loop {
            let ready = state.next_ready()?;
            if ready.is_some() || state.n_left == 0 {
                self.tell_workers(state);
                return Ok(ready);
            }
            state = self.wait_for_ready(state)?;
        }
    }

    /// Puts what `buffer` still needs before everything else.
    pub fn demand(&self, buffer: usize, tasks: &Tasks) {
        let mut state = self.lock();
        let State {
            queue,
            pieces_of,
            order,
            slots,
            ..
        } = &mut *state;
        if matches!(slots[buffer], Slot::Ready(_) | Slot::Gone) {
            return;
        }
        let task_of = |&piece: &usize| {
            let tasks = tasks.tasks();
            tasks.partition_point(|task| task.pieces.end <= piece)
        };
        queue.hurry(order[pieces_of[buffer].clone()].iter().map(task_of));
        self.tell_workers(state);
    }

    /// Which promised buffers are needed now, and how large they are: those of what was demanded, and of as many coming tasks as the
    /// limit of memory allows.
    pub fn owed(&self, tasks: &Tasks) -> Vec<(usize, u64)> {
        let state = self.lock();
        match state.n_promised {
            0 => Vec::new(),
            _ => state.owed(tasks),
        }
    }

    /// Takes memory for promised buffers; what was given already is dropped.
    ///
    /// # Panics
    /// If a buffer has another size than the plan says.
    pub fn offer(&self, memory: Vec<(usize, Memory)>) {
        let mut state = self.lock();
        for (number, memory) in memory {
            assert_eq!(
                memory.len() as u64,
                state.sizes[number],
                "the buffer's size"
            );
            if matches!(state.slots[number], Slot::Promised) {
                state.in_flight_bytes += memory.len() as u64;
                state.n_promised -= 1;
                state.slots[number] = Slot::Offered(memory);
            }
        }
        self.tell_workers(state);
    }

    /// Whether [`take`](Exchange::take) would not wait.
    pub fn is_ready(&self, buffer: usize) -> bool {
        let state = self.lock();
        matches!(state.slots[buffer], Slot::Ready(_) | Slot::Gone) || state.end.is_some()
    }

    /// This buffer, waiting for it; `None` if it was given out before.
    pub fn take(&self, buffer: usize) -> Result<Option<Memory>> {
        let mut state = self.lock();
        loop {
            state.check()?;
            match state.give_out(buffer) {
                None if !matches!(state.slots[buffer], Slot::Gone) => {
                    state = self.wait_for_ready(state)?;
                }
                given => {
                    self.tell_workers(state);
                    return Ok(given);
                }
            }
        }
    }

    fn wait_for_ready<'a>(&'a self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        let state = sync::wait(&self.ready, state);
        if let Err(error) = sync::check_interrupt() {
            self.end(state, End::Failed(None));
            return Err(error);
        }
        Ok(state)
    }

    /// Wakes the workers that wait for room; a wake-up of nobody would be a system call for each buffer.
    fn tell_workers(&self, state: MutexGuard<'_, State>) {
        let is_awaited = state.n_waiting > 0;
        drop(state);
        if is_awaited {
            self.room.notify_all();
        }
    }

    fn end(&self, mut state: MutexGuard<'_, State>, end: End) {
        state.end.get_or_insert(end);
        drop(state);
        self.ready.notify_all();
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

impl State {
    /// Whether there is memory for all that the pieces fill, or it can be made.
    fn is_possible(&self, pieces: &[Piece]) -> bool {
        let is_promised = |piece: &Piece| matches!(self.slots[piece.buffer], Slot::Promised);
        self.n_promised == 0 || !pieces.iter().any(is_promised)
    }

    /// See [`Exchange::owed`].
    fn owed(&self, tasks: &Tasks) -> Vec<(usize, u64)> {
        let mut owed: Vec<(usize, u64)> = Vec::new();
        let mut in_flight = self.in_flight_bytes;
        for (nth, task) in self.queue.coming().enumerate() {
            if owed.len() == self.n_promised {
                break;
            }
            let mut new: Vec<usize> = tasks
                .pieces(&tasks.tasks()[task])
                .iter()
                .map(|piece| piece.buffer)
                .filter(|&buffer| matches!(self.slots[buffer], Slot::Promised))
                .filter(|&buffer| owed.iter().all(|&(other, _)| other != buffer))
                .collect();
            new.dedup();
            let new_bytes: u64 = new.iter().map(|&buffer| self.sizes[buffer]).sum();
            in_flight = in_flight.saturating_add(new_bytes);
            let is_first = in_flight == new_bytes;
            if nth >= self.queue.n_urgent() && in_flight > self.memory_limit && !is_first {
                break;
            }
            owed.extend(new.into_iter().map(|buffer| (buffer, self.sizes[buffer])));
        }
        owed
    }

    fn has_room_for(&self, pieces: &[Piece]) -> bool {
        if self.memory_limit == u64::MAX || (self.n_running == 0 && self.n_ready == 0) {
            return true;
        }
        let new: BTreeSet<usize> = pieces
            .iter()
            .map(|piece| piece.buffer)
            .filter(|&buffer| matches!(self.slots[buffer], Slot::Waiting(None)))
            .collect();
        let new_bytes: u64 = new.into_iter().map(|buffer| self.sizes[buffer]).sum();
        new_bytes == 0 || self.in_flight_bytes.saturating_add(new_bytes) <= self.memory_limit
    }

    fn lend(&mut self, task: usize, tasks: &Tasks) -> Result<Job> {
        let numbers = tasks.tasks()[task].pieces.clone();
        let mut lent = Vec::with_capacity(numbers.len());
        for number in numbers {
            lent.push(self.lend_piece(number, tasks)?);
        }
        Ok(Job { task, lent })
    }

    fn lend_piece(&mut self, number: usize, tasks: &Tasks) -> Result<Lent> {
        let buffer = tasks.all_pieces()[number].buffer;
        let size_bytes = self.sizes[buffer];
        let slot = &mut self.slots[buffer];
        let given = match std::mem::replace(slot, Slot::Gone) {
            Slot::Waiting(given) => {
                self.in_flight_bytes += size_bytes;
                Some(given)
            }
            Slot::Offered(given) => Some(Some(given)),
            lent => {
                *slot = lent;
                None
            }
        };
        if let Some(given) = given {
            let pieces = &self.order[self.pieces_of[buffer].clone()];
            let whole = match (given, pieces.len()) {
                (None, 1) => {
                    *slot = Slot::Lent(Vec::new());
                    return Ok(Lent::New(size_bytes));
                }
                (Some(Memory::Host(whole)), 1) => {
                    *slot = Slot::Lent(Vec::new());
                    return Ok(Lent::Whole(whole));
                }
                (Some(given), _) => given,
                (None, _) => allocate(size_bytes)?,
            };
            *slot = Slot::Lent(split(whole, pieces, tasks));
        }
        let Slot::Lent(parts) = slot else {
            unreachable!("a piece is lent once, and a buffer is complete when all its pieces were");
        };
        let at = parts.binary_search_by_key(&number, |(piece, _)| *piece);
        let part = at.ok().and_then(|at| parts[at].1.take());
        Ok(Lent::Part(part.expect("a piece is lent once")))
    }

    fn next_ready(&mut self) -> Result<Option<(usize, Memory)>> {
        self.check()?;
        while let Some(number) = self.ready.pop_front() {
            if let Some(buffer) = self.give_out(number) {
                return Ok(Some((number, buffer)));
            }
        }
        Ok(None)
    }

    fn give_out(&mut self, number: usize) -> Option<Memory> {
        let slot = &mut self.slots[number];
        if !matches!(slot, Slot::Ready(_)) {
            return None;
        }
        let Slot::Ready(buffer) = std::mem::replace(slot, Slot::Gone) else {
            return None;
        };
        self.n_left -= 1;
        // An empty buffer never was in flight, and takes nothing.
        self.in_flight_bytes -= buffer.len() as u64;
        self.n_ready -= 1;
        Some(buffer)
    }

    fn check(&mut self) -> Result<()> {
        match &mut self.end {
            None => Ok(()),
            Some(End::Failed(error)) => Err(error.take().unwrap_or_else(ended)),
            Some(End::Cancelled) => Err(ended()),
        }
    }
}

/// Makes all buffers that were not given. In one go they share huge pages, and nothing of them is touched yet. Should there be no
/// room for all, each is made when its turn comes, so that the error can name its tensor.
fn allocate_together(slots: &mut [Slot], sizes: &[u64]) {
    let is_missing = |slot: &Slot| matches!(slot, Slot::Waiting(None));
    let missing = slots.iter().zip(sizes);
    let missing: Vec<u64> = missing
        .filter(|(slot, _)| is_missing(slot))
        .map(|(_, &size_bytes)| size_bytes)
        .collect();
    let Ok(made) = Buffer::allocate_many(&missing) else {
        return;
    };
    let slots = slots.iter_mut().filter(|slot| is_missing(slot));
    for (slot, buffer) in slots.zip(made) {
        *slot = Slot::Waiting(Some(buffer.into()));
    }
}

fn allocate(size_bytes: u64) -> Result<Memory> {
    Buffer::allocate(size_bytes).map(Memory::Host)
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the load has ended")
}

/// The parts of `whole` for `pieces`, which lie in the order of their places, by piece.
fn split(whole: Memory, pieces: &[usize], tasks: &Tasks) -> Vec<(usize, Option<Share>)> {
    let in_memory = |bytes: u64| usize::try_from(bytes).expect("the buffer is in memory");
    let places: Vec<Range<usize>> = pieces
        .iter()
        .map(|&number| tasks.all_pieces()[number].place)
        .map(|place| in_memory(place.start)..in_memory(place.end))
        .collect();
    let parts = whole.split(&places).into_iter().map(Some);
    let mut parts: Vec<(usize, Option<Share>)> = pieces.iter().copied().zip(parts).collect();
    parts.sort_unstable_by_key(|(piece, _)| *piece);
    parts
}

/// The numbers of all pieces by buffer and place, and which of them each buffer has.
fn by_buffer(tasks: &Tasks, n_buffers: usize) -> (Vec<usize>, Vec<Range<usize>>) {
    let pieces = tasks.all_pieces();
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    let by_place = |&number: &usize| (pieces[number].buffer, pieces[number].place.start);
    if !order.is_sorted_by_key(by_place) {
        order.sort_unstable_by_key(by_place);
    }
    let mut pieces_of = vec![0..0; n_buffers];
    for (at, &number) in order.iter().enumerate() {
        let range = &mut pieces_of[pieces[number].buffer];
        if range.start == range.end {
            *range = at..at + 1;
        } else {
            range.end = at + 1;
        }
    }
    (order, pieces_of)
}
