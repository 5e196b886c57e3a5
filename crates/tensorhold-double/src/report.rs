//! What the double has seen, as JSON.

use std::fmt::Write;

use crate::gds::Storage;
use crate::memory::Usage;
use crate::state::State;

/// The report of a process that has started the runtime, or none has.
pub(crate) fn of(state: &State) -> String {
    let calls = state.calls.iter().map(|(name, n)| (*name, n.to_string()));
    let copied = state.tally.by_way.iter();
    let copied = copied.map(|(way, tally)| (*way, copies(*tally)));
    let devices = (0..state.config.devices).map(|device| {
        let usage = state.device_memory.usage.get(&device);
        memory(usage.copied().unwrap_or_default())
    });
    let contexts = state.contexts.iter().map(usize::to_string);
    let violations = state.violations.iter().map(|text| string(text));
    let host = &state.host_memory;
    object([
        ("version", "1".into()),
        ("calls", object(calls)),
        ("failures", state.n_failures.to_string()),
        ("streams", alive(state.streams.len(), state.n_streams)),
        ("events", alive(state.events.len(), state.n_events)),
        ("devices", array(devices)),
        (
            "pinned",
            object([
                ("bytes", host.bytes().to_string()),
                ("peak_bytes", host.peak_bytes.to_string()),
                ("registered", memory(host.registered)),
                ("allocated", memory(host.allocated)),
            ]),
        ),
        ("contexts", array(contexts)),
        ("copied", object(copied)),
        ("pageable", copies(state.tally.pageable)),
        ("foreign", copies(state.tally.foreign)),
        ("storage", storage(&state.storage)),
        ("under_way", state.flights.len().to_string()),
        ("n_violations", state.n_violations.to_string()),
        ("violations", array(violations)),
    ])
}

/// The report of a child of such a process, which knows nothing but what it did wrong itself.
pub(crate) fn of_child(n_calls: u64) -> String {
    let text = string(&format!("{n_calls} calls after fork"));
    let violations = (n_calls > 0).then_some(text);
    object([
        ("version", "1".into()),
        ("calls_after_fork", n_calls.to_string()),
        ("n_violations", u64::from(n_calls > 0).to_string()),
        ("violations", array(violations.into_iter())),
    ])
}

fn alive(n_live: usize, n_total: u64) -> String {
    object([("live", n_live.to_string()), ("total", n_total.to_string())])
}

fn memory(usage: Usage) -> String {
    object([
        ("bytes", usage.bytes.to_string()),
        ("peak_bytes", usage.peak_bytes.to_string()),
        ("live", usage.n_live.to_string()),
        ("total", usage.n_total.to_string()),
    ])
}

fn storage(storage: &Storage) -> String {
    object([
        ("files", storage.n_files().to_string()),
        ("reads", storage.n_reads.to_string()),
        ("bytes", storage.n_bytes.to_string()),
    ])
}

fn copies((n, n_bytes): (u64, u64)) -> String {
    object([("n", n.to_string()), ("bytes", n_bytes.to_string())])
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let members = members.into_iter();
    let members = members.map(|(key, value)| format!("{}:{value}", string(key)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '.. => quoted.push(character),
            _ => write!(quoted, "\\u{:04x}", character as u32).expect("a string takes all"),
        }
    }
    quoted.push('"');
    quoted
}
