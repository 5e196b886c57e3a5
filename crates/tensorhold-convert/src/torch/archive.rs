//! Zip archives of PyTorch: `torch.save` since 1.6, and `torch.jit.save`.
//!
//! # Source
//! `torch.serialization._load` and `torch/csrc/jit/serialization` of PyTorch 2.15.

use tensorhold_core::{ByteRange, Error, ErrorKind, Result, Source};

use super::storages::Storages;
use crate::builder::Builder;
use crate::container::{Method, Zip, ZipEntry};
use crate::finding::{Class, Finding, FindingKind};
use crate::foreign::Format;
use crate::nested;
use crate::pickle::{Machine, Stream, follow_rest};
use crate::storage::{Place, Storage};
use crate::tree::{Node, NodeId};

/// The archive's folder, which every entry is in, with its slash; `None` where it is no archive of PyTorch's.
pub(crate) fn folder(zip: &Zip) -> Option<String> {
    let names = zip.entries().iter().map(|entry| entry.name.as_str());
    let is_folder = |folder: &&str| match folder.strip_suffix('/') {
        Some(folder) => !folder.contains('/'),
        None => folder.is_empty(),
    };
    let mut folders = names
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(is_folder);
    let folder = folders.next()?;
    Some(folder.to_owned())
}

/// The value of an archive whose entries are in `folder`.
///
/// # Errors
/// `ForeignFormat` if it is not as it should be, `Truncated` if a pickle ends early, `Overflow` past a limit.
pub(crate) fn read(builder: &mut Builder<'_>, zip: &Zip, folder: &str) -> Result<(Format, NodeId)> {
    let archive = Archive {
        zip,
        folder,
        is_big_endian: is_big_endian(builder, zip, folder)?,
    };
    for finding in zip.findings() {
        builder.note(finding.clone());
    }
    let root = archive.pickle(builder, "data.pkl", "data/")?;
    let is_script = archive.entry("constants.pkl").is_some();
    if !is_script {
        archive.tell_others(builder)?;
        return Ok((Format::TorchZip, root));
    }
    let constants = archive.pickle(builder, "constants.pkl", "constants/")?;
    archive.tell_code(builder);
    let has_constants = !builder.tree.items(constants).unwrap_or_default().is_empty();
    let root = if has_constants {
        both(builder, root, constants)?
    } else {
        root
    };
    Ok((Format::TorchScript, root))
}

/// A module and the constants of its code, as a dict.
fn both(builder: &mut Builder<'_>, module: NodeId, constants: NodeId) -> Result<NodeId> {
    let names = [("module", module), ("constants", constants)];
    let mut pairs = Vec::new();
    for (name, value) in names {
        pairs.push((builder.push(Node::Str(name.into()))?, value));
    }
    builder.push(Node::Dict(pairs))
}

fn is_big_endian(builder: &Builder<'_>, zip: &Zip, folder: &str) -> Result<bool> {
    let Some(entry) = zip.entry(&format!("{folder}byteorder")) else {
        return Ok(false);
    };
    let order = contents(builder, entry)?;
    match &order[..] {
        b"little" => Ok(false),
        b"big" => Ok(true),
        _ => Err(Error::new(
            ErrorKind::ForeignFormat,
            "the archive's byte order is not known",
        )
        .with_bytes(entry.data)),
    }
}

/// All bytes of an entry; its check sum is checked where the writer has made one.
fn contents(builder: &Builder<'_>, entry: &ZipEntry) -> Result<Vec<u8>> {
    if entry.crc32 != 0 || entry.method != Method::Stored {
        return entry.bytes(builder.source, builder.limits);
    }
    Stream::new(builder.source, entry.data)?.take(entry.data.len())
}

struct Archive<'z> {
    zip: &'z Zip,
    folder: &'z str,
    is_big_endian: bool,
}

impl Archive<'_> {
    fn entry(&self, name: &str) -> Option<&ZipEntry> {
        self.zip.entry(&format!("{}{name}", self.folder))
    }

    /// The value of a pickle, and the places of the storages that it names.
    fn pickle(&self, builder: &mut Builder<'_>, name: &str, records: &str) -> Result<NodeId> {
        let entry = self.pickle_entry(builder, name)?;
        let mut storages = Storages {
            prefix: records.to_owned(),
            is_big_endian: self.is_big_endian,
            ..Storages::default()
        };
        let first = builder.storages.len();
        let source = builder.source;
        let (root, end) = match entry.method {
            Method::Stored => {
                check_sum(builder, entry)?;
                run(builder, &mut storages, source, entry.data, Some(0))?
            }
            Method::Deflated => {
                let bytes = contents(builder, entry)?;
                builder.allow_inflated(bytes.len());
                let range = ByteRange::new(0, bytes.len() as u64);
                run(builder, &mut storages, &bytes.as_slice(), range, None)?
            }
        };
        if end > 0 {
            let message = format!("{end} bytes follow the pickle in `{name}`");
            let finding = Finding::new(FindingKind::ExtraBytes, Class::Unknown, message);
            builder.note(finding.with_bytes(entry.data));
        }
        for at in first..builder.storages.len() {
            self.place(builder, at)?;
        }
        Ok(root)
    }

    /// The entry of a pickle.
    fn pickle_entry(&self, builder: &Builder<'_>, name: &str) -> Result<&ZipEntry> {
        let Some(entry) = self.entry(name) else {
            let message = format!("the archive has no `{name}`");
            return Err(Error::new(ErrorKind::ForeignFormat, message));
        };
        let (size, limit) = (entry.size_bytes, builder.limits.pickle_bytes);
        if size > limit {
            let message = format!("`{name}` has {size} bytes, over the limit of {limit}");
            return Err(Error::new(ErrorKind::Overflow, message).with_bytes(entry.data));
        }
        Ok(entry)
    }

    /// Finds the record of a storage.
    fn place(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let storage = &mut builder.storages[at];
        if !matches!(storage.place, Place::Missing) {
            return Ok(());
        }
        let Some(entry) = self.entry(&storage.name) else {
            return Ok(());
        };
        match fit(storage, entry) {
            None => Ok(()),
            Some(finding) => {
                builder.note(finding.with_bytes(entry.data));
                Ok(())
            }
        }
    }

    /// Tells the code that `torch.jit.load` would compile.
    fn tell_code(&self, builder: &mut Builder<'_>) {
        let prefix = format!("{}code/", self.folder);
        let is_code =
            |entry: &&ZipEntry| entry.name.starts_with(&prefix) && entry.name.ends_with(".py");
        let n_files = self.zip.entries().iter().filter(is_code).count();
        let message = format!("{n_files} files of TorchScript code, which are left out");
        builder.note(Finding::new(FindingKind::Code, Class::Unknown, message));
    }

    /// Tells entries that `torch.save` does not write, and the names that they ask for where they are pickles.
    fn tell_others(&self, builder: &mut Builder<'_>) -> Result<()> {
        for entry in self.zip.entries() {
            let name = entry.name.strip_prefix(self.folder);
            if name.is_some_and(is_known_record) {
                continue;
            }
            let message = format!("the archive has an entry `{}` besides", entry.name);
            let finding = Finding::new(FindingKind::Container, Class::Unknown, message);
            builder.note(finding.with_bytes(entry.data));
            if entry.size_bytes <= MOST_OTHER_BYTES
                && let Ok(bytes) = contents(builder, entry)
            {
                nested::look_into(builder, &bytes, &entry.name, 2)?;
            }
        }
        Ok(())
    }
}

/// Bytes of an entry beyond which it is not looked into.
const MOST_OTHER_BYTES: u64 = 16 << 20;

/// Whether `torch.save` writes an entry of this name.
fn is_known_record(name: &str) -> bool {
    let known = [
        "data.pkl",
        "version",
        "byteorder",
        ".format_version",
        ".storage_alignment",
    ];
    let folders = ["data/", ".data/"];
    known.contains(&name) || folders.iter().any(|folder| name.starts_with(folder))
}

/// Runs the pickle in a range of a source; gives its value, and how many bytes follow it.
fn run(
    builder: &mut Builder<'_>,
    storages: &mut Storages,
    source: &dyn Source,
    range: ByteRange,
    in_file: Option<u64>,
) -> Result<(NodeId, u64)> {
    let mut stream = Stream::new(source, range)?;
    let root = Machine::new(builder, storages, in_file).run(&mut stream)?;
    let n_left = stream.left();
    follow_rest(builder, &mut stream, in_file);
    Ok((root, n_left))
}

/// Holds a stored entry to its check sum, if its writer has made one.
fn check_sum(builder: &mut Builder<'_>, entry: &ZipEntry) -> Result<()> {
    if entry.crc32 == 0 {
        return Ok(());
    }
    let mut reader = entry.reader(builder.source);
    let mut window = vec![0; 64 << 10];
    while reader.read(&mut window)? > 0 {}
    reader.finish()
}

/// Gives a storage the bytes of its record; a finding where they are not as many.
fn fit(storage: &mut Storage, entry: &ZipEntry) -> Option<Finding> {
    let (size, expected) = (entry.size_bytes, storage.size_bytes);
    if size < expected {
        let message = format!("storage `{}` has {size} of {expected} bytes", storage.name);
        return Some(Finding::new(FindingKind::Missing, Class::Unknown, message));
    }
    storage.place = match entry.method {
        Method::Stored => Place::InFile(entry.data),
        Method::Deflated => Place::Deflated(entry.data),
    };
    storage.size_bytes = size;
    storage.crc32 = (entry.crc32 != 0).then_some(entry.crc32);
    if size == expected {
        return None;
    }
    let message = format!(
        "storage `{}` has {size} bytes, {expected} of them used",
        storage.name
    );
    Some(Finding::new(
        FindingKind::ExtraBytes,
        Class::Harmless,
        message,
    ))
}
