//! Where the library of a vendor is looked for.

use std::path::Path;

use tensorhold_core::{Error, ErrorKind, Result};

use super::sys::Functions;
use crate::platform::{self, Library};
use crate::runtime::{Runtime, Vendor};

/// What the system's libraries are called, the newest first.
const CUDA: [&str; 2] = ["libcufile.so.0", "libcufile.so"];
const HIP: [&str; 2] = ["libhipfile.so.0", "libhipfile.so"];

/// The functions of the vendor's library: of the runtime's own, as the test double has them, or else of one that the process
/// has loaded already, or else of the system's.
pub(super) fn find(runtime: &Runtime) -> Result<Functions> {
    let vendor = runtime.vendor();
    // SAFETY: what a runtime exports under these names stands for the library's functions; it is never unloaded.
    if let Ok(own) = unsafe { Functions::load(vendor, &|name| runtime.symbol(name)) } {
        return Ok(own);
    }
    let mut tried = Vec::new();
    let stem = vendor.choose("libcufile", "libhipfile");
    for path in platform::loaded_libraries() {
        if is_named(&path, stem) {
            match functions(vendor, Library::open_loaded(&path)) {
                Ok(functions) => return Ok(functions),
                Err(why) => tried.push(format!("`{path}` ({why})")),
            }
        }
    }
    for name in vendor.choose(CUDA, HIP) {
        // SAFETY: the initializers of a vendor's library are made to be run so.
        match functions(vendor, unsafe { Library::open(name) }) {
            Ok(functions) => return Ok(functions),
            Err(why) => tried.push(format!("`{name}` ({why})")),
        }
    }
    Err(Error::new(
        ErrorKind::Device,
        format!(
            "no {} was found; tried {}",
            name_of(vendor),
            tried.join(", ")
        ),
    ))
}

/// How a vendor calls its library.
pub(super) fn name_of(vendor: Vendor) -> &'static str {
    vendor.choose("cuFile", "hipFile")
}

/// Whether the file at `path` is the library: its name may have a hash in it, but `libcufile_rdma.so` is another one.
fn is_named(path: &str, stem: &str) -> bool {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    let rest = name.and_then(|name| name.strip_prefix(stem));
    rest.is_some_and(|rest| rest.starts_with(['.', '-']) && rest.contains(".so"))
}

fn functions(vendor: Vendor, library: Result<Library, String>) -> Result<Functions, String> {
    let library = library?;
    // SAFETY: a library of this name that exports the library's names is that library; it is never unloaded.
    let functions = unsafe { Functions::load(vendor, &|name| library.symbol(name)) };
    functions.map_err(|name| format!("it has no `{name}`"))
}
