//! Says what a file really is, and what in it is to be feared.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tensorhold_convert::{Class, Finding, FindingKind, Format, Global, Limits};
use tensorhold_core::{Error, ErrorKind, Result, Rules};

use crate::checkpoint::Checkpoint;
use crate::file::{Backend, OpenOptions};
use crate::foreign::{ForeignFile, TREE_KEY};
use crate::verify::{TWO_THINGS, verify_file};

/// What was found out about a file.
#[derive(Debug)]
pub struct Scan {
    /// The file.
    pub path: PathBuf,
    /// What it is; nothing where that could not be found out.
    pub format: Option<&'static str>,
    /// The names that its pickles ask to import, the most dangerous first.
    pub globals: Vec<Global>,
    /// What is odd about it, the most dangerous first.
    pub findings: Vec<Finding>,
}

impl Scan {
    /// The worst that was found.
    #[must_use]
    pub fn class(&self) -> Class {
        let globals = self.globals.iter().map(|global| global.class);
        let findings = self.findings.iter().map(|finding| finding.class);
        globals.chain(findings).max().unwrap_or(Class::Harmless)
    }
}

/// Looks into the file at `path`, of whatever format; nothing in it is run. A file that is of no known format, or not as its format
/// asks, is a finding of class [`Unknown`](Class::Unknown).
///
/// # Errors
/// `NotFound`, `PermissionDenied`, `NotRegularFile` or `Io` if it cannot be read.
pub fn scan(path: impl AsRef<Path>, limits: &Limits) -> Result<Scan> {
    let path = path.as_ref();
    let mut scan = match safetensors(path, limits) {
        Ok(scan) => scan,
        Err(error) if is_unreadable(&error) => return Err(error),
        Err(error) => foreign(path, limits, error)?,
    };
    scan.globals
        .sort_by_key(|global| std::cmp::Reverse(global.class));
    scan.findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.class));
    Ok(scan)
}

/// What is in a safetensors file.
fn safetensors(path: &Path, limits: &Limits) -> Result<Scan> {
    let options = |rules| OpenOptions {
        rules,
        backend: Backend::Pread,
    };
    let checkpoint = Checkpoint::open_files(&[path], &options(Rules::Compatible))?;
    let mut findings = opaque_values(&checkpoint);
    let mut globals = Vec::new();
    if let Err(error) = verify_file(path, Rules::Strict, &mut |_| {}) {
        if is_unreadable(&error) {
            return Err(error);
        }
        let (kind, class) = match error.hint() == Some(TWO_THINGS) {
            true => (FindingKind::Polyglot, Class::Dangerous),
            false => (FindingKind::Container, Class::Unknown),
        };
        findings.push(of_error(kind, class, &error));
        // What other programs may take it for.
        globals = match ForeignFile::open(path, limits.clone()) {
            Ok(file) => file.into_foreign().globals,
            Err(_) => ForeignFile::shown(path, limits).0,
        };
    }
    Ok(Scan {
        path: path.to_owned(),
        format: Some("safetensors"),
        globals,
        findings,
    })
}

/// What is in a file that is no safetensors file, for which `refusal` was given.
fn foreign(path: &Path, limits: &Limits, refusal: Error) -> Result<Scan> {
    let (format, globals, findings) = match ForeignFile::open(path, limits.clone()) {
        Ok(file) => {
            let found = file.into_foreign();
            (Some(name_of(found.format)), found.globals, found.findings)
        }
        Err(error) if is_unreadable(&error) => return Err(error),
        Err(error) => {
            let error = if ForeignFile::is_certain(path) {
                error
            } else {
                refusal
            };
            let (globals, mut findings) = ForeignFile::shown(path, limits);
            findings.push(of_error(FindingKind::Container, Class::Unknown, &error));
            (None, globals, findings)
        }
    };
    Ok(Scan {
        path: path.to_owned(),
        format,
        globals,
        findings,
    })
}

/// The values of a tree that came out of a pickle and of which only the name is known.
fn opaque_values(checkpoint: &Checkpoint) -> Vec<Finding> {
    let metadata = checkpoint.metadata();
    let tree = metadata
        .get(TREE_KEY)
        .and_then(|text| serde_json::from_str(text).ok());
    let mut names = BTreeSet::new();
    let mut left: Vec<&serde_json::Value> = tree.iter().collect();
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Array(items) => left.extend(items),
            serde_json::Value::Object(members) => {
                names.extend(members.get("$opaque").and_then(serde_json::Value::as_str));
                left.extend(members.values());
            }
            _ => {}
        }
    }
    let finding = |name: &str| {
        let message =
            format!("a value that a pickle made with `{name}` is kept, which is never called");
        Finding::new(FindingKind::Opaque, Class::Harmless, message)
    };
    names.into_iter().map(finding).collect()
}

fn of_error(kind: FindingKind, class: Class, error: &Error) -> Finding {
    let finding = Finding::new(kind, class, error.message().to_owned());
    error.bytes().into_iter().fold(finding, Finding::with_bytes)
}

fn is_unreadable(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotRegularFile
            | ErrorKind::Io
            | ErrorKind::Interrupted
    )
}

fn name_of(format: Format) -> &'static str {
    match format {
        Format::TorchZip => "PyTorch checkpoint (zip archive)",
        Format::TorchLegacy => "PyTorch checkpoint of the time before 1.6",
        Format::TorchTar => "PyTorch checkpoint of the time before 0.1.10 (tar archive)",
        Format::TorchScript => "TorchScript program",
        Format::Pickle => "pickle",
        Format::Npy => "NumPy array",
        Format::Npz => "NumPy archive",
        Format::Gguf => "GGUF",
        Format::Flax => "Flax message pack",
        Format::Hdf5 => "HDF5 weights",
        Format::Keras => "Keras archive",
        _ => "another format",
    }
}
