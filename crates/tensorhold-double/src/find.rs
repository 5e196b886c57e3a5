//! Where tests find the shared library.

use std::env::{self, consts};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

/// The path of the shared library, for tests of crates that name this one among their `dev-dependencies`: cargo
/// then puts it beside the tests' executables. `TENSORHOLD_DOUBLE_LIBRARY` names another one.
///
/// # Panics
///
/// If it is not there.
#[must_use]
pub fn library() -> PathBuf {
    if let Some(path) = env::var_os("TENSORHOLD_DOUBLE_LIBRARY") {
        return path.into();
    }
    let executable = env::current_exe().expect("a program knows its own path");
    let name = format!(
        "{}tensorhold_double{}",
        consts::DLL_PREFIX,
        consts::DLL_SUFFIX
    );
    let folders = executable.ancestors().skip(1).take(2);
    let places = folders.flat_map(|folder| [folder.join(&name), folder.join("deps").join(&name)]);
    let found = places.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| {
        let executable = executable.display();
        panic!("`{name}` is not beside {executable}: run `cargo build -p tensorhold-double`")
    })
}

/// The path of a copy of [`library`] whose name says that it stands for HIP's runtime.
///
/// # Panics
///
/// If the library is not there, or cannot be copied to its own folder.
#[must_use]
pub fn hip_library() -> PathBuf {
    let library = library();
    let name = |end: &str| format!("{}tensorhold_double_hip{end}", consts::DLL_PREFIX);
    let copy = library.with_file_name(name(consts::DLL_SUFFIX));
    // Other tests may look at the same time: each puts a whole file in the place of another.
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let own = library.with_file_name(name(&format!(".{}-{number}", process::id())));
    let copied = fs::copy(&library, &own).and_then(|_| fs::rename(&own, &copy));
    copied.expect("the folder of the library can be written");
    copy
}
