//! What opens, and what is refused in which words.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use tensorhold_core::{Error, ErrorKind};
use tensorhold_io::{identity, is_network, open_regular};

fn refusal(path: &Path) -> Error {
    open_regular(path).unwrap_err()
}

#[track_caller]
fn check(path: &Path, kind: ErrorKind, os_error: i32, message: &str) {
    let error = refusal(path);
    assert_eq!(error.message(), message);
    assert_eq!(error.kind(), kind);
    assert_eq!(error.os_error(), Some(os_error));
    assert_eq!(error.file(), Some(path.to_str().unwrap()));
}

#[test]
fn a_regular_file_opens_also_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, b"bytes").unwrap();
    symlink("a", folder.path().join("link")).unwrap();
    for name in ["a", "link"] {
        let file = open_regular(&folder.path().join(name)).unwrap();
        assert_eq!(std::io::read_to_string(file).unwrap(), "bytes");
    }
}

#[test]
fn a_missing_file_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let message = "cannot open: No such file or directory";
    check(&folder.path().join("none"), ErrorKind::NotFound, 2, message);
    symlink("none", folder.path().join("dangling")).unwrap();
    check(
        &folder.path().join("dangling"),
        ErrorKind::NotFound,
        2,
        message,
    );
}

#[test]
fn a_directory_is_named_and_its_weights_pointed_to() {
    let folder = tempfile::tempdir().unwrap();
    let message = "is a directory, where a regular file is needed";
    check(folder.path(), ErrorKind::NotRegularFile, 21, message);
    assert_eq!(refusal(folder.path()).hint(), None);
    fs::write(folder.path().join("model.safetensors"), b"").unwrap();
    assert_eq!(
        refusal(folder.path()).hint(),
        Some("to read all weights of a folder, open it as a checkpoint")
    );
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        check(
            &path,
            ErrorKind::NotRegularFile,
            19,
            "is a FIFO, where a regular file is needed",
        );
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn sockets_and_devices_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let kind = ErrorKind::NotRegularFile;
    check(
        &socket,
        kind,
        19,
        "is a socket, where a regular file is needed",
    );
    let message = "is a character device, where a regular file is needed";
    for device in ["/dev/null", "/dev/zero", "/dev/full"] {
        check(Path::new(device), kind, 19, message);
    }
}

#[test]
fn other_refusals_keep_the_systems_words() {
    let folder = tempfile::tempdir().unwrap();
    let circle = folder.path().join("circle");
    symlink("circle", &circle).unwrap();
    let message = "cannot open: Too many levels of symbolic links";
    check(&circle, ErrorKind::Io, 40, message);
    let long = folder.path().join("n".repeat(300));
    check(&long, ErrorKind::Io, 36, "cannot open: File name too long");
    fs::write(folder.path().join("file"), b"").unwrap();
    let below = folder.path().join("file/below");
    check(&below, ErrorKind::Io, 20, "cannot open: Not a directory");
    assert_eq!(refusal(Path::new("")).kind(), ErrorKind::NotFound);
    assert_eq!(
        refusal(Path::new("a\0b")).message(),
        "cannot open: file name contained an unexpected NUL byte"
    );
}

#[test]
fn a_refusal_for_lack_of_rights_names_the_mode_that_refuses() {
    if let Some(folder) = common::child_folder() {
        let error = refusal(&folder.join("secret"));
        assert_eq!(error.message(), "cannot open: Permission denied");
        assert_eq!(
            (error.kind(), error.os_error()),
            (ErrorKind::PermissionDenied, Some(13))
        );
        let hint = error.hint().unwrap();
        assert!(hint.contains("secret` has mode 0000"), "{hint}");
        let hint = refusal(&folder.join("closed/file"));
        let hint = hint.hint().unwrap();
        assert!(hint.contains("closed` has mode 0000"), "{hint}");
        return;
    }
    let folder = common::public_folder();
    let secret = folder.path().join("secret");
    fs::write(&secret, b"").unwrap();
    common::chmod(&secret, 0o000);
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    common::chmod(&closed, 0o000);
    common::as_nobody(
        "a_refusal_for_lack_of_rights_names_the_mode_that_refuses",
        folder.path(),
    );
}

#[test]
fn identities_tell_files_and_their_changes_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    fs::write(&a, b"one").unwrap();
    fs::write(&b, b"one").unwrap();
    let of = |path: &Path| identity(&open_regular(path).unwrap()).unwrap();
    let before = of(&a);
    assert_eq!(before, of(&a));
    assert_ne!(before, of(&b));
    assert_eq!(before.size_bytes, 3);
    let modified = fs::metadata(&a).unwrap().modified().unwrap();
    thread::sleep(Duration::from_millis(20));
    fs::write(&a, b"two").unwrap();
    File::options()
        .write(true)
        .open(&a)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    let after = of(&a);
    assert_eq!(after.modified_ns, before.modified_ns);
    assert_ne!(after, before, "an edit with its time set back is seen");
}

#[test]
fn a_disk_in_memory_is_no_network() {
    let Some(disk) = common::SmallDisk::mount("size=1m") else {
        return;
    };
    let path = disk.path().join("a");
    fs::write(&path, b"").unwrap();
    assert!(!is_network(&open_regular(&path).unwrap()));
}
