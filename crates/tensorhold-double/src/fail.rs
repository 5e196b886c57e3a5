//! Failures that a test asked for.

use crate::{exports, gds};

/// The n-th call of a function, which fails.
#[derive(Clone)]
pub(crate) struct Failure {
    name: &'static str,
    /// Counted from 1; 0 is every call.
    nth: u64,
    code: i32,
    is_late: bool,
    n_seen: u64,
}

/// How a call fails.
pub(crate) enum Fault {
    /// It returns the code, and does nothing.
    Now(i32),
    /// It returns success, and does nothing; calls after it return the code.
    Later(i32),
}

impl Failure {
    /// From `NAME:N:CODE` or `NAME:N:CODE:async`.
    pub(crate) fn parse(text: &str) -> Option<Failure> {
        let parts: Vec<&str> = text.split(':').collect();
        let (name, nth, code, is_late) = match parts[..] {
            [name, nth, code] => (name, nth, code, false),
            [name @ ("MemcpyAsync" | "Memcpy2DAsync"), nth, code, "async"] => {
                (name, nth, code, true)
            }
            _ => return None,
        };
        let mut names = exports::NAMES.iter().chain(gds::NAMES);
        let code = code.parse().ok().filter(|code| *code != 0)?;
        Some(Failure {
            name: names.find(|known| **known == name)?,
            nth: nth.parse().ok()?,
            code,
            is_late,
            n_seen: 0,
        })
    }

    /// Counts a call; how it fails, if it is the one.
    pub(crate) fn see(&mut self, name: &str) -> Option<Fault> {
        if self.name != name {
            return None;
        }
        self.n_seen += 1;
        if self.nth != 0 && self.nth != self.n_seen {
            return None;
        }
        Some(match self.is_late {
            true => Fault::Later(self.code),
            false => Fault::Now(self.code),
        })
    }
}
