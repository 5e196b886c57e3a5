//! The dynamic linker.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::NonNull;

/// A shared library, which stays loaded for ever.
pub(crate) struct Library(NonNull<c_void>);

// SAFETY: the linker's handle of a library may be used by any thread.
unsafe impl Send for Library {}
// SAFETY: as above; the linker takes its own lock.
unsafe impl Sync for Library {}

impl Library {
    /// Loads the library at `path`, or of that name where the system looks for such.
    ///
    /// # Errors
    /// What the linker says.
    ///
    /// # Safety
    /// The library's initializers may run here.
    pub(crate) unsafe fn open(path: &str) -> Result<Library, String> {
        // SAFETY: as the caller vouches.
        unsafe { open(path, libc::RTLD_NOW | libc::RTLD_LOCAL) }
    }

    /// The library of this path that the process has loaded already.
    pub(crate) fn open_loaded(path: &str) -> Result<Library, String> {
        // SAFETY: nothing is loaded, so that no initializer runs.
        unsafe { open(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) }
    }

    /// The address of what the library exports as `name`.
    pub(crate) fn symbol(&self, name: &str) -> Option<*mut c_void> {
        let name = CString::new(name).ok()?;
        // SAFETY: the library is loaded, and the name ends with a zero.
        let address = unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
}

/// # Safety
/// As for `Library::open`, unless the flags say that nothing is to be loaded.
unsafe fn open(path: &str, flags: c_int) -> Result<Library, String> {
    let name = CString::new(path).map_err(|_| "the path has a zero in it".to_owned())?;
    // SAFETY: the name ends with a zero; the caller vouches for the initializers.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    NonNull::new(handle).map(Library).ok_or_else(linker_error)
}

/// What the linker has to say of the failure before this call.
fn linker_error() -> String {
    // SAFETY: it takes nothing.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "it is not loaded".to_owned();
    }
    // SAFETY: the text ends with a zero, and this thread calls the linker next after it was copied.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// The paths of the libraries that this process has loaded.
pub(crate) fn loaded_libraries() -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    // SAFETY: the callback gets `paths` back, which lives until the call is over, and is called by this thread alone.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut paths).cast()) };
    paths
}

/// # Safety
/// `info` is the linker's, `paths` the vector that `loaded_libraries` gave.
unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    paths: *mut c_void,
) -> c_int {
    // SAFETY: the linker gives a whole `info` for the time of the call.
    let name = unsafe { (*info).dlpi_name };
    if !name.is_null() {
        // SAFETY: the linker's names end with a zero, and live for the time of the call.
        let name = unsafe { CStr::from_ptr(name) };
        // SAFETY: it is the vector of `loaded_libraries`, which nobody else uses during the call.
        let paths = unsafe { &mut *paths.cast::<Vec<String>>() };
        if let Ok(name) = name.to_str() {
            paths.push(name.to_owned());
        }
    }
    0
}
