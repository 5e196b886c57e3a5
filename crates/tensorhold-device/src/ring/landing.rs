//! How a slot is waited for whose copies are under way.

use std::thread;
use std::time::{Duration, Instant};

use tensorhold_core::{Error, Result};

use super::{BETWEEN_QUESTIONS, Memory, Patience, fly_first, lose};
use crate::stream::Event;

/// Between two looks at an event: first, and at most. A bus moves a slot in a few of the first.
const PAUSES: [Duration; 2] = [Duration::from_micros(20), Duration::from_micros(500)];

/// The memory, when its copies have happened. Who is not patient to the end gives it back as it is.
pub(super) fn landed(memory: Memory, patience: Option<Patience<'_>>) -> Result<Memory> {
    let Some(event) = &memory.event else {
        return Ok(memory);
    };
    let watched = patience.map_or(Ok(Watched::Unknown), |patience| watch(event, patience));
    let waited = match watched {
        Ok(Watched::Happened) => return Ok(memory),
        Ok(Watched::Unknown) => event.wait(),
        Err(impatience) => {
            fly_first(memory);
            return Err(impatience);
        }
    };
    or_lost(memory, waited)
}

/// The memory, if nothing can happen to it any more.
fn or_lost(memory: Memory, waited: Result<(), Error>) -> Result<Memory> {
    match waited {
        Ok(()) => Ok(memory),
        Err(error) => {
            lose(memory);
            Err(error)
        }
    }
}

enum Watched {
    Happened,
    /// The runtime does not say.
    Unknown,
}

/// Looks at the event until it has happened.
///
/// # Errors
/// Those of `patience`.
fn watch(event: &Event, patience: Patience<'_>) -> Result<Watched> {
    let mut asked = Instant::now();
    let mut pause = PAUSES[0];
    loop {
        match event.query() {
            Ok(true) => return Ok(Watched::Happened),
            Ok(false) => {}
            Err(_) => return Ok(Watched::Unknown),
        }
        if asked.elapsed() >= BETWEEN_QUESTIONS {
            patience()?;
            asked = Instant::now();
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSES[1]);
    }
}
