//! Saves that are killed, or whose system calls fail one by one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tensorhold::{
    Checkpoint, Dtype, Durability, OpenOptions, SaveOptions, TensorSpec, TensorView, save_views,
};

/// Tells a test that it runs as the child of itself, and where.
const CHILD: &str = "TENSORHOLD_TEST_CHILD";

/// How many saves are killed; 60 where it is not set.
const KILLS: &str = "TENSORHOLD_TEST_KILLS";

const N_TENSORS: usize = 6;

fn child(test: &str, folder: &Path) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let words = [
        program.to_str().unwrap(),
        "--exact",
        test,
        "--nocapture",
        "--test-threads=1",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.splice(
        0..0,
        ["env".to_owned(), format!("{CHILD}={}", folder.display())],
    );
    words
}

fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Saves tensors of nothing but `value`, of sizes that make use of every way to write.
fn save(path: &Path, value: u8, durability: Durability, large: usize) -> tensorhold::Result<()> {
    let sizes = [1000, 0, large, 70_000, 13, 300_000];
    let bytes: Vec<Vec<u8>> = sizes.map(|size| vec![value; size]).into();
    let names: Vec<String> = (0..N_TENSORS).map(|n| format!("{n}")).collect();
    let shapes = sizes.map(|size| [size as u64]);
    let views: Vec<TensorView<'_>> = (0..N_TENSORS)
        .map(|n| TensorView {
            spec: TensorSpec {
                name: &names[n],
                dtype: Dtype::U8,
                shape: &shapes[n],
            },
            data: (&bytes[n]).into(),
        })
        .collect();
    let options = SaveOptions {
        align: Some(4096),
        durability,
    };
    save_views(path, &views, None, &options, &mut |_| Ok(()))
}

/// What the file is full of; fails for a mixture, and for anything that is no whole file.
fn value_of(path: &Path, case: &str) -> u8 {
    let checkpoint = Checkpoint::open(path, &OpenOptions::default());
    let checkpoint = checkpoint.unwrap_or_else(|error| panic!("{case}: {error}"));
    let mut all: Vec<u8> = Vec::new();
    let tensors: Vec<_> = checkpoint.tensors().collect();
    assert_eq!(tensors.len(), N_TENSORS, "{case}");
    for tensor in tensors {
        all.extend(tensor.read().unwrap());
    }
    assert!(all.iter().all(|byte| *byte == all[0]), "{case}: a mixture");
    all[0]
}

fn others(folder: &Path, target: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path != target).collect()
}

/// Random enough, and the same each time.
fn scatter(round: u64) -> u64 {
    round
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
        >> 33
}

#[test]
fn a_save_that_is_killed_leaves_the_old_file_or_the_new_one() {
    let name = "a_save_that_is_killed_leaves_the_old_file_or_the_new_one";
    if let Some(folder) = child_folder() {
        let path = folder.join("a.safetensors");
        for value in (1..=u8::MAX).cycle() {
            // Every eighth one is large enough to go past the page cache.
            let (durability, large) = match value % 8 {
                0 => (Durability::Data, 34 << 20),
                n => (
                    [Durability::None, Durability::Full][usize::from(n) % 2],
                    200_000,
                ),
            };
            save(&path, value, durability, large).unwrap();
            println!("saved");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    // What somebody else has there looks like ours.
    let foreign = folder.path().join(".a.safetensors.0123456789.tmp");
    fs::write(&foreign, b"theirs").unwrap();
    let n_kills = std::env::var(KILLS).map_or(60, |number| number.parse().unwrap());
    for round in 0..n_kills {
        let words = child(name, folder.path());
        let mut command = Command::new(&words[0]);
        let command = command.args(&words[1..]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        while !seen.windows(5).any(|word| word == b"saved") {
            let mut piece = [0; 64];
            let n = stdout.read(&mut piece).unwrap();
            assert!(n > 0, "round {round}: the child ended");
            seen.extend_from_slice(&piece[..n]);
        }
        thread::sleep(Duration::from_micros(scatter(round) % 40_000));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "round {round}: {status}");
        value_of(&path, &format!("round {round}"));
        // A killed save cannot tidy up, and a later one must not: the file may be that of a save that goes on.
        let left = others(folder.path(), &path);
        assert!(left.len() <= 2, "round {round}: {left:?}");
        left.iter()
            .filter(|other| **other != foreign)
            .for_each(|other| fs::remove_file(other).unwrap());
    }
    assert_eq!(fs::read(&foreign).unwrap(), b"theirs");
}

/// The calls that a save makes, and the errors that they are made to end with.
const CALLS: [(&str, &[&str]); 10] = [
    ("fallocate", &["EIO", "ENOSPC", "EINTR", "EAGAIN"]),
    ("pwrite64", &["EIO", "ENOSPC", "EINTR", "EAGAIN"]),
    ("fsync", &["EIO", "ENOSPC", "EINTR", "EAGAIN"]),
    ("rename", &["EIO", "ENOSPC", "EINTR", "EAGAIN"]),
    ("fchmod", &["EIO", "EINTR"]),
    ("ftruncate", &["EIO", "EINTR"]),
    ("fdatasync", &["EIO", "EINTR"]),
    ("close", &["EIO"]),
    ("openat", &["EIO"]),
    ("statx", &["EIO"]),
];

/// Where `strace` may look into processes.
fn has_strace() -> bool {
    let tried = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

#[test]
fn whatever_system_call_fails_the_file_is_the_old_one_or_the_new_one() {
    let name = "whatever_system_call_fails_the_file_is_the_old_one_or_the_new_one";
    if let Some(folder) = child_folder() {
        let path = folder.join("a.safetensors");
        let saved = save(&path, 2, Durability::Full, 200_000);
        println!(
            "{}",
            if saved.is_ok() {
                "it was saved"
            } else {
                "it was not saved"
            }
        );
        std::process::exit(0);
    }
    if !has_strace() {
        eprintln!("not run: `strace` is not installed, or may not trace");
        return;
    }
    let mut n_injected = 0;
    for (call, errors) in CALLS {
        for error in errors {
            n_injected += (1..=40)
                .take_while(|n| fails_cleanly(name, call, error, *n))
                .count();
        }
    }
    assert!(n_injected > 40, "{n_injected} injected");
    eprintln!("{n_injected} system calls made to fail");
}

/// Lets the `n`-th `call` of a save fail; `false` if there is no such call.
fn fails_cleanly(name: &str, call: &str, error: &str, n: usize) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    save(&path, 1, Durability::None, 200_000).unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(log.path());
    command.arg(format!("--trace={call}"));
    command.arg(format!("--inject={call}:error={error}:when={n}"));
    let output = command.args(child(name, folder.path())).output().unwrap();
    let log = fs::read_to_string(log.path()).unwrap();
    let case = format!("{call} {n}: {error}\n{log}");
    let said = String::from_utf8_lossy(&output.stdout);
    let value = value_of(&path, &case);
    let injected = log.lines().find(|line| line.contains("(INJECTED)"));
    let left = others(folder.path(), &path);
    // A rename that fails, or the look at the target before it, leaves the complete file, and says where.
    let may_stay = usize::from(matches!(call, "rename" | "statx"));
    assert!(left.len() <= may_stay, "{case}\n{left:?}");
    match (
        said.contains("it was saved"),
        said.contains("it was not saved"),
    ) {
        (true, _) => assert_eq!(value, 2, "{case}"),
        // The folder is synced after the rename.
        (_, true) => assert!(value == 1 || matches!(call, "fsync" | "openat"), "{case}"),
        _ => assert_eq!(value, 1, "{case}"),
    }
    injected.is_some()
}
