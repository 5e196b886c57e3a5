//! Events: names for moments of streams.

use crate::call::give;
use crate::error::{Code, Result};
use crate::state::{State, state};
use crate::stream::Moment;

/// The flags that events may have: blocking synchronization, no timing, for other processes.
const FLAGS: u32 = 0b111;

/// An event, which stands for a moment once it was recorded, and for a later one when it is recorded again.
pub(crate) struct Event {
    device: usize,
    pub moment: Option<Moment>,
}

impl State {
    pub(crate) fn event(&mut self, handle: usize) -> Result<&mut Event> {
        if !self.events.contains_key(&handle) {
            let fault = match self.was_handle(handle) {
                true => "was destroyed",
                false => "never was",
            };
            self.violation(format!("use of event {handle:#x}, which {fault}"));
        }
        self.events.get_mut(&handle).ok_or(Code::INVALID_HANDLE)
    }
}

pub(crate) fn create(place: *mut usize, flags: u32) -> Result {
    // HIP has flags of its own in the highest bits.
    if flags & !FLAGS & 0xFFFF != 0 {
        return Err(Code::INVALID_VALUE);
    }
    let mut state = state();
    let device = state.context()?;
    let handle = state.new_handle();
    give(place, handle)?;
    state.n_events += 1;
    let event = Event {
        device,
        moment: None,
    };
    state.events.insert(handle, event);
    Ok(())
}

pub(crate) fn record(handle: usize, stream: usize) -> Result {
    let mut state = state();
    let queue = state.queue(stream)?;
    let device = state.event(handle)?.device;
    if device != queue.device {
        state.violation(format!(
            "event {handle:#x} of device {device} recorded in a stream of device {}",
            queue.device
        ));
        return Err(Code::INVALID_HANDLE);
    }
    let moment = state.moment(&queue)?;
    state.event(handle)?.moment = Some(moment);
    Ok(())
}

pub(crate) fn query(handle: usize) -> Result {
    let mut state = state();
    match &state.event(handle)?.moment {
        Some(moment) if !moment.is_past() => Err(Code::NOT_READY),
        _ => Ok(()),
    }
}

pub(crate) fn synchronize(handle: usize) -> Result {
    let moment = state().event(handle)?.moment.clone();
    if let Some(moment) = moment {
        moment.wait();
    }
    state().late_fault.map_or(Ok(()), Err)
}

/// Who waits for it already goes on waiting.
pub(crate) fn destroy(handle: usize) -> Result {
    let mut state = state();
    state.event(handle)?;
    state.events.remove(&handle);
    Ok(())
}
