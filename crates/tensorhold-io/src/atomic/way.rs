//! How the bytes reach the target.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use tensorhold_core::{Error, Result};

use super::calls::{Calls, is_unsupported};
use super::in_place::InPlace;
use super::target::Target;
use super::temporary::Temporary;
use crate::error::io_error;
use crate::platform::{self, Attributes, Privacy};

#[derive(Debug)]
pub(super) enum Way {
    /// By a temporary file that takes the target's name in the end, and the attributes of the old one.
    Rename {
        temporary: Temporary,
        old: Option<Attributes>,
    },
    /// Onto the target itself.
    InPlace(InPlace),
    /// Into something that is no regular file.
    Stream,
}

/// Where the file called `name` really lies, how its bytes get there, and what they are written to.
pub(super) fn open(name: &Path, calls: &'static Calls) -> Result<(PathBuf, Way, File)> {
    let refused = |error| io_error(error, name, "open for writing");
    match Target::resolve(name)? {
        Target::Other { path, metadata } => {
            let file = platform::open_for_writing(&path, &metadata).map_err(refused)?;
            Ok((path, Way::Stream, file))
        }
        Target::Nameless { path, metadata } => {
            let (in_place, file) = InPlace::open(&path, &metadata, calls).map_err(refused)?;
            Ok((path, Way::InPlace(in_place), file))
        }
        Target::File { path, old } => {
            let (way, file) = open_beside(&path, old.as_ref(), calls)
                .map_err(|error| cannot_create(error, name, &path))?;
            Ok((path, way, file))
        }
    }
}

/// A new file in the target's folder or, where the file system cannot have it, the target itself.
fn open_beside(
    target: &Path,
    old: Option<&Metadata>,
    calls: &'static Calls,
) -> io::Result<(Way, File)> {
    // Without an old file to be as private as, the system itself gives the right mode.
    let privacy = match old {
        Some(_) => Privacy::Private,
        None => Privacy::Ordinary,
    };
    match Temporary::create(target, privacy, calls) {
        Ok((temporary, file)) => {
            let old = old.map(|old| platform::attributes(target, old));
            Ok((Way::Rename { temporary, old }, file))
        }
        Err(error) if is_unsupported(&error) => {
            let (in_place, file) = match old {
                Some(old) => InPlace::open(target, old, calls),
                None => InPlace::create(target, calls),
            }
            .map_err(|_| error)?;
            Ok((Way::InPlace(in_place), file))
        }
        Err(error) => Err(error),
    }
}

fn cannot_create(error: io::Error, name: &Path, target: &Path) -> Error {
    let folder = target.parent().unwrap_or(target);
    let hint = match error.kind() {
        io::ErrorKind::NotFound => Some(format!("the folder `{}` is not there", folder.display())),
        io::ErrorKind::PermissionDenied => {
            platform::permission_hint(folder, &error).or_else(|| {
                Some(format!(
                    "the folder `{}` takes no new files",
                    folder.display()
                ))
            })
        }
        _ => None,
    };
    let error = io_error(error, name, "create");
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
