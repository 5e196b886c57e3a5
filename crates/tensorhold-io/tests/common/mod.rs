//! What several tests need: other users, small disks, and a process of its own.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A user that owns nothing.
const NOBODY: u32 = 65534;

/// Tells a test that it runs as the child of itself, and where.
pub const CHILD: &str = "TENSORHOLD_IO_TEST_CHILD";

/// The folder the test was given by [`in_child`] or [`as_nobody`], if it is a child.
pub fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// The command that runs the test `name` of this binary with `folder` in its hands.
pub fn child(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(CHILD, folder);
    command
}

/// Runs the test `name` once more, in a process whose user has no special rights.
pub fn as_nobody(name: &str, folder: &Path) {
    let mut command = child(name, folder);
    let copy = folder.join("test-binary");
    if rustix::process::geteuid().is_root() {
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let mut other = Command::new(&copy);
        other.args(command.get_args());
        other.env(CHILD, folder);
        command = other;
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    succeeds(&command.output().unwrap());
    let _ = fs::remove_file(copy);
}

/// Fails unless the child ran its test, and the test passed.
pub fn succeeds(output: &Output) {
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(
        output.status.success() && ran,
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A folder that everybody may write to.
pub fn public_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    chmod(folder.path(), 0o777);
    folder
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A file system in memory, taken down when it is dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with a word on stderr, where only root may mount and we are not root.
    pub fn mount(options: &str) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(folder)),
            _ => {
                eprintln!("not run: mounting a tmpfs needs root");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
