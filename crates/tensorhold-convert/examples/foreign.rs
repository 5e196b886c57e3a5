//! Prints what a checkpoint of another format has, as JSON: `cargo run --example foreign FILE`.

use std::fmt::Write as _;
use std::process::ExitCode;

use tensorhold_convert::{Foreign, Lie, Limits, Place, Storage};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: foreign FILE");
        return ExitCode::from(2);
    };
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let told = read.and_then(|bytes| tell(&bytes).map_err(|error| error.to_string()));
    match told {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn tell(bytes: &[u8]) -> tensorhold_core::Result<String> {
    let limits = Limits::default();
    let mut foreign = Foreign::read(&bytes, &limits)?;
    let root = foreign.tree.root();
    let root = foreign.state_dict(root, &limits)?.unwrap_or(root);
    let laid = foreign.lay_out(root, Lie::Written)?;
    let mut out = format!(
        "{{\"format\":\"{:?}\",\"tree\":{}",
        foreign.format, laid.text
    );
    let stored = laid.stored.iter().map(|stored| {
        let view = &stored.view;
        format!(
            "{{\"name\":{},\"dtype\":\"{}\",\"shape\":{:?},\"storage\":{},\"element\":\"{}\",\"offset\":{},\
             \"view\":{:?},\"strides\":{:?}}}",
            quoted(&stored.name),
            stored.dtype,
            stored.shape,
            view.storage().0,
            view.element().name(),
            view.offset(),
            view.shape(),
            view.strides()
        )
    });
    let _ = write!(out, ",\"stored\":[{}]", joined(stored));
    let _ = write!(
        out,
        ",\"storages\":[{}]",
        joined(foreign.storages.iter().map(storage))
    );
    let tied = laid
        .tied
        .iter()
        .map(|(other, name)| format!("[{},{}]", quoted(other), quoted(name)));
    let _ = write!(out, ",\"tied\":[{}]", joined(tied));
    let globals = foreign.globals.iter().map(|global| {
        let paths = joined(global.paths.iter().map(|path| quoted(path)));
        format!(
            "{{\"name\":{},\"class\":\"{}\",\"called\":{},\"paths\":[{paths}],\"pickle\":{}}}",
            quoted(&global.dotted()),
            global.class.name(),
            global.is_called,
            quoted(global.pickle.as_deref().unwrap_or(""))
        )
    });
    let _ = write!(out, ",\"globals\":[{}]", joined(globals));
    let findings = foreign.findings.iter().map(|finding| {
        format!(
            "{{\"kind\":\"{:?}\",\"class\":\"{}\",\"message\":{},\"path\":{}}}",
            finding.kind,
            finding.class.name(),
            quoted(&finding.message),
            quoted(finding.path.as_deref().unwrap_or(""))
        )
    });
    let _ = write!(out, ",\"findings\":[{}]}}", joined(findings));
    Ok(out)
}

fn storage(storage: &Storage) -> String {
    let place = match &storage.place {
        Place::InFile(range) => format!("[{},{}]", range.start, range.end),
        Place::Memory(bytes) => format!(
            "\"{}\"",
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        ),
        Place::Missing => "null".into(),
        _ => "\"elsewhere\"".into(),
    };
    format!(
        "{{\"name\":{},\"size\":{},\"swap\":{},\"place\":{place}}}",
        quoted(&storage.name),
        storage.size_bytes,
        storage.swap_width_bytes
    )
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
