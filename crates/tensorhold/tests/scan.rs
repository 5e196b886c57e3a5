//! What a scan says of files that cannot be read.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use tensorhold::{Class, Limits};

#[test]
fn a_pickle_that_goes_wrong_after_a_call_is_told_by_the_name_of_what_it_calls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let file = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R0K\x01K\x02a.";
    std::fs::write(&path, file).unwrap();
    let scan = tensorhold::scan(&path, &Limits::default()).unwrap();
    assert_eq!(scan.class(), Class::Dangerous);
    assert_eq!(scan.globals[0].dotted(), "posix.system");
}
