//! The double in a child of the process that has used it. The only test of its file, as `cargo test` runs those of
//! one file in threads of one process, whose locks the child would inherit.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::*;

#[test]
fn a_child_of_the_process_is_refused() {
    let double = Double::cuda("");
    let device = double.malloc(64).unwrap();
    // SAFETY: the child calls functions that take no lock of this process, and ends without running any of its code.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let codes = [
            double.malloc(64).unwrap_err(),
            double.free(device),
            double.set_device(0),
        ];
        let is_refused = codes == [INITIALIZATION; 3];
        let is_told = double.report_text().contains("3 calls after fork");
        // SAFETY: it ends the child at once.
        unsafe { libc::_exit(i32::from(!(is_refused && is_told))) };
    }
    let mut status = -1;
    // SAFETY: the status is written to a local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(double.free(device), 0);
    assert_eq!(double.violations(), [""; 0]);
}
