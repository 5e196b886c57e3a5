//! Which library is taken for a runtime.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use tensorhold_core::ErrorKind;
use tensorhold_device::{Runtime, Vendor};

const VARIABLE: &str = "TENSORHOLD_RUNTIME";

/// Runs `body` in a process of its own.
fn alone(name: &str, body: impl FnOnce()) {
    const MARK: &str = "TENSORHOLD_TEST_ALONE";
    if env::var_os(MARK).is_some() {
        return body();
    }
    let run = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(MARK, "1")
        .env_remove(VARIABLE)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let has_passed = run.status.success() && text(&run.stdout).contains("1 passed");
    assert!(has_passed, "{}{}", text(&run.stdout), text(&run.stderr));
}

fn set(path: &Path) {
    // SAFETY: no other thread of this process reads or writes the environment now.
    unsafe { env::set_var(VARIABLE, path) };
}

fn load(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string; the double has no initializers.
    assert!(!unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) }.is_null());
}

#[test]
fn a_library_that_was_named_wrongly_is_an_error_and_no_other_is_taken() {
    alone(
        "a_library_that_was_named_wrongly_is_an_error_and_no_other_is_taken",
        || {
            load(&tensorhold_double::library());
            set(Path::new("/nowhere/libcudart.so"));
            let error = Runtime::find().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Device);
            let text = error.to_string();
            assert!(
                text.starts_with(
                    "`TENSORHOLD_RUNTIME` names `/nowhere/libcudart.so`, which cannot be used: "
                ),
                "{text}"
            );
            assert!(
                text.ends_with(
                    "hint: give the path of a CUDA or HIP runtime, or unset `TENSORHOLD_RUNTIME`"
                ),
                "{text}"
            );
            set(Path::new("libc.so.6"));
            let error = Runtime::find().unwrap_err();
            assert!(
                error.message().ends_with("it is no CUDA or HIP runtime"),
                "{error}"
            );
            // A failure is not kept.
            set(&tensorhold_double::hip_library());
            let found = Runtime::find().unwrap();
            assert_eq!((found.vendor(), found.is_double()), (Vendor::Hip, true));
            assert!(found.version() > 0);
            // What was found is.
            set(Path::new("libc.so.6"));
            assert_eq!(Runtime::find().unwrap(), found);
        },
    );
}

#[test]
fn a_runtime_that_the_process_has_loaded_is_taken() {
    alone("a_runtime_that_the_process_has_loaded_is_taken", || {
        let folder = tempfile::tempdir().unwrap();
        // As packages rename what they bring along.
        let path = folder.path().join("libcudart-d0da41ae.so.13.0.1");
        fs::copy(tensorhold_double::library(), &path).unwrap();
        load(&path);
        let found = Runtime::find().unwrap();
        assert_eq!(Path::new(found.path()), path);
        assert_eq!((found.vendor(), found.is_double()), (Vendor::Cuda, true));
        assert_eq!(found.n_devices().unwrap(), 2);
    });
}

#[test]
fn who_has_no_runtime_is_told_what_was_tried() {
    alone("who_has_no_runtime_is_told_what_was_tried", || {
        // A machine may have one: then there is nothing to see.
        if let Err(error) = Runtime::find() {
            assert_eq!(error.kind(), ErrorKind::Device);
            for name in ["libcudart.so.13", "libcudart.so.12", "libamdhip64.so.7"] {
                assert!(error.message().contains(&format!("`{name}` (")), "{error}");
            }
            assert!(error.hint().unwrap().contains("TENSORHOLD_RUNTIME"));
        }
    });
}
