//! `tensorhold scan`.

use std::io::Write;
use std::path::PathBuf;

use anstyle::Style;
use clap::Args;
use serde_json::{Value, json};
use tensorhold::{Class, Escaped, Finding, Global, Limits, Scan as Scanned};

use crate::output::{Done, GOOD, WRONG, print_error, print_json, stdout};
use crate::{DIFFERENT, FAILED, FINE};

/// Says what files really are, and what in them is to be feared; nothing in them is run
///
/// Names every function and class that a pickle asks to import, where it is used, and whether it is known to be harmless. The exit
/// code is 0 only if nothing is unknown or dangerous.
#[derive(Args)]
#[command(after_help = "Example:\n  tensorhold scan downloads/*.pt --json")]
pub(crate) struct Scan {
    /// Files of any format
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Scan {
    pub(crate) fn run(&self) -> Done {
        let mut code = FINE;
        let mut described = Vec::new();
        for path in &self.files {
            match tensorhold::scan(path, &Limits::default()) {
                Err(error) => {
                    print_error(&error);
                    code = FAILED;
                }
                Ok(scan) => {
                    if scan.class() > Class::Harmless {
                        code = code.max(DIFFERENT);
                    }
                    match self.json {
                        true => described.push(describe(&scan)),
                        false => show(&scan)?,
                    }
                }
            }
        }
        if self.json {
            print_json(&Value::from(described))?;
        }
        Ok(code)
    }
}

fn style(class: Class) -> Style {
    match class {
        Class::Harmless => GOOD,
        Class::Unknown => Style::new().bold(),
        Class::Dangerous => WRONG,
    }
}

fn show(scan: &Scanned) -> Done<()> {
    let mut out = stdout();
    let (class, style_of) = (scan.class(), style(scan.class()));
    writeln!(
        out,
        "{style_of}{:9}{style_of:#} {}: {}",
        class.name(),
        Escaped(&scan.path.to_string_lossy()),
        scan.format.unwrap_or("no format that is known")
    )?;
    for global in &scan.globals {
        let style = style(global.class);
        let called = if global.is_called { "called" } else { "named" };
        let name = global.dotted();
        write!(
            out,
            "  {style}{:9}{style:#} {called} {}",
            global.class.name(),
            Escaped(&name)
        )?;
        if global.class > Class::Harmless {
            for path in &global.paths {
                write!(out, "\n{:12}at {}", "", Escaped(path))?;
            }
        }
        writeln!(out)?;
    }
    for finding in &scan.findings {
        let style = style(finding.class);
        let message = &finding.message;
        write!(
            out,
            "  {style}{:9}{style:#} {}",
            finding.class.name(),
            Escaped(message)
        )?;
        if let Some(path) = &finding.path {
            write!(out, ", at {}", Escaped(path))?;
        }
        if let Some(bytes) = finding.bytes {
            write!(out, " (bytes {bytes})")?;
        }
        writeln!(out)?;
    }
    Ok(out.flush()?)
}

fn describe(scan: &Scanned) -> Value {
    json!({
        "path": scan.path.to_string_lossy(),
        "format": scan.format,
        "verdict": scan.class().name(),
        "globals": scan.globals.iter().map(describe_global).collect::<Vec<_>>(),
        "findings": scan.findings.iter().map(describe_finding).collect::<Vec<_>>(),
    })
}

fn describe_global(global: &Global) -> Value {
    json!({
        "name": global.dotted(),
        "verdict": global.class.name(),
        "called": global.is_called,
        "mentions": global.n_mentions,
        "position": global.position,
        "paths": global.paths,
        "pickle": global.pickle,
    })
}

fn describe_finding(finding: &Finding) -> Value {
    json!({
        "kind": format!("{:?}", finding.kind),
        "verdict": finding.class.name(),
        "message": finding.message,
        "path": finding.path,
        "bytes": finding.bytes.map(|bytes| [bytes.start, bytes.end]),
    })
}
