//! Where a runtime is looked for.

use std::env;
use std::path::Path;
use std::sync::OnceLock;

use tensorhold_core::{Error, ErrorKind, Result};

use super::{Runtime, Vendor};
use crate::platform::{self, HAS_DEVICES, Library};
use crate::sys::Functions;

/// The variable that names a library to be used in the place of any other.
const VARIABLE: &str = "TENSORHOLD_RUNTIME";

/// How a runtime's library is called, but for its version.
const STEMS: [&str; 2] = ["libcudart", "libamdhip64"];

/// What the system's runtimes are called, the newest first.
const SYSTEM: [&str; 6] = [
    "libcudart.so.13",
    "libcudart.so.12",
    "libcudart.so",
    "libamdhip64.so.7",
    "libamdhip64.so.6",
    "libamdhip64.so",
];

pub(super) fn find() -> Result<Runtime> {
    if !HAS_DEVICES {
        return Err(Error::new(
            ErrorKind::Device,
            "devices can be used on Linux only",
        ));
    }
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = path.to_string_lossy();
        // SAFETY: whoever set the variable vouches for the library.
        let library = unsafe { Library::open(&path) };
        return runtime(library, &path).map_err(|why| not_named(&path, &why));
    }
    let mut tried = Vec::new();
    for path in platform::loaded_libraries().iter().filter(is_runtime) {
        match runtime(Library::open_loaded(path), path) {
            Ok(runtime) => return Ok(runtime),
            Err(why) => tried.push(format!("`{path}` ({why})")),
        }
    }
    for name in SYSTEM {
        // SAFETY: the initializers of a vendor's runtime are made to be run so.
        match runtime(unsafe { Library::open(name) }, name) {
            Ok(runtime) => return Ok(runtime),
            Err(why) => tried.push(format!("`{name}` ({why})")),
        }
    }
    Err(nowhere(&tried))
}

/// Whether the file at `path` is a runtime by its name, which may have a hash in it: `libcudart-d0da41ae.so.11.0`.
fn is_runtime(path: &&String) -> bool {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| STEMS.iter().any(|stem| name.starts_with(stem)) && name.contains(".so"))
}

fn runtime(library: Result<Library, String>, path: &str) -> Result<Runtime, String> {
    let library = library?;
    let vendor = vendor(&library, path).ok_or("it is no CUDA or HIP runtime")?;
    // SAFETY: a library that exports a runtime's names is that runtime, or one that stands in for it; it is never unloaded.
    let functions = unsafe { Functions::load(vendor, &|name| library.symbol(name)) };
    let functions = functions.map_err(|name| format!("it has no `{name}`"))?;
    Ok(Runtime {
        functions,
        library,
        path: path.to_owned(),
        context_state: OnceLock::new(),
    })
}

/// Whose the library is, by what it exports; for one that exports both, as the test double does, by its name.
fn vendor(library: &Library, path: &str) -> Option<Vendor> {
    let is_hip = library.symbol("hipGetDeviceCount").is_some();
    let is_cuda = library.symbol("cudaGetDeviceCount").is_some();
    let name = Path::new(path).file_name().unwrap_or_default();
    match (is_cuda, is_hip) {
        (true, true) if name.to_string_lossy().contains("hip") => Some(Vendor::Hip),
        (true, _) => Some(Vendor::Cuda),
        (false, true) => Some(Vendor::Hip),
        (false, false) => None,
    }
}

fn not_named(path: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::Device,
        format!("`{VARIABLE}` names `{path}`, which cannot be used: {why}"),
    )
    .with_hint(format!(
        "give the path of a CUDA or HIP runtime, or unset `{VARIABLE}`"
    ))
}

fn nowhere(tried: &[String]) -> Error {
    Error::new(
        ErrorKind::Device,
        format!(
            "no CUDA or HIP runtime was found; tried {}",
            tried.join(", ")
        ),
    )
    .with_hint(format!(
        "import a framework that brings one first, such as a CUDA build of torch, install one, or set `{VARIABLE}` to its path"
    ))
}
