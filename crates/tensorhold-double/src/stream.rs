//! Streams: a queue of work each, and a thread that carries it out.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::call::give;
use crate::copy::Copy;
use crate::error::{Code, Result};
use crate::memory;
use crate::pace::Pace;
use crate::state::{State, state};

/// A stream that the default stream waits for, and that waits for it.
const BLOCKING: u32 = 0;
/// `cudaStreamNonBlocking`, and HIP's.
const NON_BLOCKING: u32 = 1;

/// The work of a stream. It outlives the stream until all is done.
pub(crate) struct Queue {
    pub device: usize,
    is_blocking: bool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    works: VecDeque<(Instant, Task)>,
    n_submitted: u64,
    n_done: u64,
    is_closed: bool,
    has_thread: bool,
}

/// One thing that a stream does.
pub(crate) enum Task {
    Copy(Copy),
    Wait(Moment),
    /// Frees the allocation that begins here.
    Free(usize),
}

/// When a queue has done what it had been given at some time.
#[derive(Clone)]
pub(crate) struct Moment {
    queue: Arc<Queue>,
    position: u64,
}

impl Moment {
    pub(crate) fn is_past(&self) -> bool {
        self.queue.lock().n_done >= self.position
    }

    /// To be called without the lock of the state.
    pub(crate) fn wait(&self) {
        let mut inner = self.queue.lock();
        while inner.n_done < self.position {
            inner = wait(&self.queue.changed, inner);
        }
    }
}

fn wait<'a>(changed: &Condvar, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
    changed.wait(inner).unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn new(device: usize, is_blocking: bool) -> Arc<Queue> {
        Arc::new(Queue {
            device,
            is_blocking,
            inner: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When all that it has been given is done.
    fn tail(self: &Arc<Queue>) -> Moment {
        Moment {
            queue: Arc::clone(self),
            position: self.lock().n_submitted,
        }
    }

    fn push(self: &Arc<Queue>, task: Task) -> Result<Moment> {
        let mut inner = self.lock();
        if !inner.has_thread {
            let queue = Arc::clone(self);
            let thread = thread::Builder::new().name("double-stream".into());
            thread
                .spawn(move || queue.run())
                .map_err(|_| Code::MEMORY)?;
            inner.has_thread = true;
        }
        inner.works.push_back((Instant::now(), task));
        inner.n_submitted += 1;
        self.changed.notify_all();
        Ok(Moment {
            queue: Arc::clone(self),
            position: inner.n_submitted,
        })
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut pace = Pace::new();
        while let Some((submitted, task)) = self.next() {
            pace.ready(submitted);
            match task {
                Task::Copy(copy) => copy.run(&mut pace),
                Task::Wait(moment) => {
                    moment.wait();
                    pace.ready(Instant::now());
                }
                Task::Free(address) => memory::device::free_in_order(address),
            }
            self.lock().n_done += 1;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<(Instant, Task)> {
        let mut inner = self.lock();
        loop {
            match inner.works.pop_front() {
                Some(work) => return Some(work),
                None if inner.is_closed => return None,
                None => inner = wait(&self.changed, inner),
            }
        }
    }
}

impl State {
    /// The queue of a stream's handle: 0 and the two special ones are the default stream of the thread's device.
    pub(crate) fn queue(&mut self, handle: usize) -> Result<Arc<Queue>> {
        if handle <= 2 {
            let device = self.context()?;
            let queue = self.default_streams.entry(device);
            return Ok(Arc::clone(
                queue.or_insert_with(|| Queue::new(device, true)),
            ));
        }
        if let Some(queue) = self.streams.get(&handle) {
            return Ok(Arc::clone(queue));
        }
        let fault = match self.was_handle(handle) {
            true => "was destroyed",
            false => "never was",
        };
        self.violation(format!("use of stream {handle:#x}, which {fault}"));
        Err(Code::INVALID_HANDLE)
    }

    /// Gives a task to a queue; it returns when it is done.
    pub(crate) fn submit(&mut self, queue: &Arc<Queue>, task: Task) -> Result<Moment> {
        self.join_default(queue)?;
        queue.push(task)
    }

    /// When all is done that a queue has been given until now.
    pub(crate) fn moment(&mut self, queue: &Arc<Queue>) -> Result<Moment> {
        self.join_default(queue)?;
        Ok(queue.tail())
    }

    /// Orders the default stream of a device after its blocking streams, and each of these after it.
    fn join_default(&mut self, queue: &Arc<Queue>) -> Result {
        let Some(default) = self.default_streams.get(&queue.device) else {
            return Ok(());
        };
        if !queue.is_blocking {
            return Ok(());
        }
        let before: Vec<Moment> = if Arc::ptr_eq(queue, default) {
            let streams = self.streams.values().chain(&self.draining);
            let of_device = streams.filter(|other| other.device == queue.device);
            of_device
                .filter(|other| other.is_blocking)
                .map(Queue::tail)
                .collect()
        } else {
            vec![default.tail()]
        };
        for moment in before {
            if !moment.is_past() {
                queue.push(Task::Wait(moment))?;
            }
        }
        Ok(())
    }
}

/// Waits for all that was submitted to the streams of a device, those destroyed since included.
pub(crate) fn wait_for_device(device: usize) {
    let tails: Vec<Moment> = {
        let state = state();
        let streams = state.streams.values().chain(state.default_streams.values());
        let all = streams.chain(&state.draining);
        all.filter(|queue| queue.device == device)
            .map(Queue::tail)
            .collect()
    };
    tails.iter().for_each(Moment::wait);
}

pub(crate) fn create(place: *mut usize, flags: u32) -> Result {
    if flags != BLOCKING && flags != NON_BLOCKING {
        return Err(Code::INVALID_VALUE);
    }
    let mut state = state();
    let device = state.context()?;
    let handle = state.new_handle();
    give(place, handle)?;
    state.n_streams += 1;
    state
        .streams
        .insert(handle, Queue::new(device, flags == BLOCKING));
    Ok(())
}

/// What the stream was given is still done.
pub(crate) fn destroy(handle: usize) -> Result {
    let mut state = state();
    if handle <= 2 {
        return Err(Code::INVALID_HANDLE);
    }
    let queue = state.queue(handle)?;
    state.streams.remove(&handle);
    queue.close();
    state.draining.push(queue);
    state.draining.retain(|queue| !queue.tail().is_past());
    Ok(())
}

pub(crate) fn synchronize(handle: usize) -> Result {
    let moment = {
        let mut state = state();
        let queue = state.queue(handle)?;
        state.moment(&queue)?
    };
    moment.wait();
    state().late_fault.map_or(Ok(()), Err)
}

pub(crate) fn query(handle: usize) -> Result {
    let mut state = state();
    let queue = state.queue(handle)?;
    match state.moment(&queue)?.is_past() {
        true => Ok(()),
        false => Err(Code::NOT_READY),
    }
}

/// Lets a stream wait for what an event stands for now.
pub(crate) fn wait_event(handle: usize, event: usize, flags: u32) -> Result {
    let mut state = state();
    let queue = state.queue(handle)?;
    let moment = state.event(event)?.moment.clone();
    if flags > 1 {
        return Err(Code::INVALID_VALUE);
    }
    match moment {
        Some(moment) if !moment.is_past() => state.submit(&queue, Task::Wait(moment)).map(drop),
        _ => Ok(()),
    }
}
