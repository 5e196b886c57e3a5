//! What belongs to the whole process: the umask, the working directory, and its sudden end.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use rustix::fs::Mode;
use tensorhold_core::Sink;
use tensorhold_io::{AtomicFile, Durability};

fn save(path: &Path, bytes: &[u8]) -> tensorhold_core::Result<()> {
    let mut file = AtomicFile::create(path, Some(bytes.len() as u64), Durability::None)?;
    for piece in bytes.chunks(10_000) {
        file.write(piece)?;
    }
    file.commit()
}

#[test]
fn a_new_files_mode_comes_from_the_umask() {
    let Some(folder) = common::child_folder() else {
        let folder = tempfile::tempdir().unwrap();
        let name = "a_new_files_mode_comes_from_the_umask";
        common::succeeds(&common::child(name, folder.path()).output().unwrap());
        return;
    };
    for (umask, expected) in [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0, 0o666)] {
        rustix::process::umask(Mode::from_raw_mode(umask));
        let path = folder.join(format!("{umask:o}"));
        save(&path, b"new").unwrap();
        assert_eq!(common::mode(&path), expected);
        rustix::process::umask(Mode::from_raw_mode(0o077));
        save(&path, b"newer").unwrap();
        assert_eq!(common::mode(&path), expected, "the old mode stays");
    }
}

#[test]
fn a_change_of_working_directory_does_not_move_the_target() {
    let Some(folder) = common::child_folder() else {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("other")).unwrap();
        let name = "a_change_of_working_directory_does_not_move_the_target";
        common::succeeds(&common::child(name, folder.path()).output().unwrap());
        assert_eq!(common::names(folder.path()), ["a", "other"]);
        return;
    };
    std::env::set_current_dir(&folder).unwrap();
    let mut file = AtomicFile::create(Path::new("a"), None, Durability::Full).unwrap();
    file.write(b"new").unwrap();
    std::env::set_current_dir(folder.join("other")).unwrap();
    file.commit().unwrap();
}

#[test]
fn a_killed_save_leaves_the_old_file_or_the_new_one() {
    const SIZE: usize = 200_000;
    let name = "a_killed_save_leaves_the_old_file_or_the_new_one";
    if let Some(folder) = common::child_folder() {
        for value in (0..=u8::MAX).cycle() {
            save(&folder.join("a"), &vec![value; SIZE]).unwrap();
            println!("saved");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for round in 0..100 {
        let mut child = common::child(name, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It lives on to the end of the round, lest the child ends of a closed pipe.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let has_begun = lines.by_ref().any(|line| line.unwrap().contains("saved"));
        assert!(has_begun, "round {round}");
        thread::sleep(Duration::from_micros(37 * round));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "round {round}: {status}");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), SIZE, "round {round}");
        assert!(
            bytes.iter().all(|byte| *byte == bytes[0]),
            "round {round}: a mixture of two files"
        );
    }
}
