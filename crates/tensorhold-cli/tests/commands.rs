//! What a person sees who runs the commands.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{model, run, save, tensorhold};
use tensorhold::Dtype;

#[test]
fn inspect_sums_up_modules_and_folds_equal_layers() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let (code, shown) = run(&["inspect", &path]);
    assert_eq!(code, 0);
    let shown = shown.replace(&path, "MODEL");
    assert_eq!(
        shown,
        "\
MODEL: 9 tensors, 1088 parameters, 2.18 kB (2,176 bytes) in 1 file; all BF16
format = pt
module                           tensors  parameters     size  dtype and shape
embed.weight                           1         800  1.60 kB  BF16 [100, 8]
layers.[0-3].q.{bias,weight} ×4        8         288    576 B  BF16
"
    );
}

#[test]
fn inspect_lists_each_tensor_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let (code, shown) = run(&["inspect", "--flat", &path]);
    assert_eq!(code, 0);
    let line = shown
        .lines()
        .find(|line| line.starts_with("embed.weight\t"))
        .unwrap();
    assert_eq!(
        line,
        format!("embed.weight\tBF16\t[100, 8]\t1600\t{path}\t4096")
    );
}

#[test]
fn inspect_prints_json_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let (_, shown) = run(&["inspect", "--json", &path]);
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value["totals"]["parameters"], 1088);
    assert_eq!(value["metadata"]["format"], "pt");
    assert_eq!(value["tensors"].as_array().unwrap().len(), 9);
}

#[test]
fn names_cannot_drive_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let name = "a\u{1b}[31mred\u{202e}";
    let tensors: [(&str, Dtype, &[u64]); 1] = [(name, Dtype::U8, &[1])];
    let path = save(
        &folder.path().join("evil.safetensors"),
        &tensors,
        &[("k", "v\u{1b}]0;title\u{7}")],
        0,
    );
    for arguments in [
        &["inspect", &path][..],
        &["inspect", "--flat", &path],
        &["verify", &path],
    ] {
        let output = tensorhold(arguments);
        let all = [output.stdout, output.stderr].concat();
        assert!(
            !all.contains(&0x1b) && !all.contains(&0x07),
            "{arguments:?}"
        );
        assert!(!String::from_utf8(all).unwrap().contains('\u{202e}'));
    }
}

#[test]
fn inspect_says_what_the_strict_rules_refuse() {
    let path = testdata("malformed/name_nul.safetensors");
    let output = tensorhold(&["inspect", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        notes.starts_with("note: the strict rules refuse this: "),
        "{notes}"
    );
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(name)
}

#[test]
fn verify_tells_good_from_wrong_from_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let good = model(folder.path());
    assert_eq!(
        run(&["verify", &good]),
        (0, format!("ok     {good}: 9 tensors, 2.18 kB\n"))
    );

    let bytes = fs::read(&good).unwrap();
    let cut = folder.path().join("cut.safetensors");
    fs::write(&cut, &bytes[..bytes.len() - 7]).unwrap();
    let cut = cut.to_str().unwrap();
    let (code, shown) = run(&["verify", &good, cut]);
    assert_eq!(code, 1);
    assert!(
        shown.contains("7 fewer than the 6272") && shown.contains("\n       hint: "),
        "{shown}"
    );

    let (code, shown) = run(&["verify", "no/such/file"]);
    assert_eq!(code, 2);
    assert!(
        shown.contains("no/such/file: cannot open: No such file or directory"),
        "{shown}"
    );
}

#[test]
fn verify_is_strict_unless_told_otherwise() {
    let file = testdata("valid/bool_bytes.safetensors");
    let file = file.to_str().unwrap();
    assert_eq!(run(&["verify", file]).0, 1);
    assert_eq!(run(&["verify", "--compatible", file]).0, 0);
    let (_, shown) = run(&["verify", "--json", file]);
    let verdicts: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(verdicts[0]["error"]["kind"], "Forbidden");
    assert_eq!(verdicts[0]["error"]["tensor"], "a");
}

#[test]
fn shards_and_their_file_are_the_same_and_merge_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let shards = folder.path().join("shards");
    let shards = shards.to_str().unwrap();
    let (code, written) = run(&["shard", &file, shards, "--max-size", "600B"]);
    assert_eq!(code, 0, "{written}");
    assert!(
        written.ends_with("model.safetensors.index.json\n"),
        "{written}"
    );
    assert_eq!(
        run(&["diff", &file, shards]),
        (0, "the same: 9 tensors, 2,176 bytes\n".to_owned())
    );

    let merged = folder.path().join("merged.safetensors");
    let merged = merged.to_str().unwrap();
    assert_eq!(run(&["merge", shards, merged]), (0, format!("{merged}\n")));
    assert_eq!(run(&["diff", &file, merged]).0, 0);
}

#[test]
fn nothing_is_replaced_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let target = folder.path().join("out.safetensors");
    fs::write(&target, "precious").unwrap();
    let target = target.to_str().unwrap();
    let (code, shown) = run(&["merge", &file, target]);
    assert_eq!(code, 2);
    assert!(
        shown.ends_with("is there already\nhint: give `--force` to replace it\n"),
        "{shown}"
    );
    assert_eq!(fs::read(target).unwrap(), b"precious");
    assert_eq!(run(&["merge", "--force", &file, target]).0, 0);

    let (code, shown) = run(&["merge", "--force", &file, &file]);
    assert_eq!(code, 2);
    assert!(
        shown.contains("this is a file of the checkpoint that is read"),
        "{shown}"
    );
    let own = folder.path().to_str().unwrap();
    let (code, shown) = run(&["shard", "--force", &file, own, "--max-size", "600"]);
    assert_eq!(code, 2);
    assert!(
        shown.contains("would lie in the folder of the checkpoint"),
        "{shown}"
    );
}

#[test]
fn shards_without_an_index_are_not_replaced_either() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let shards = folder.path().join("shards");
    fs::create_dir(&shards).unwrap();
    let precious = shards.join("model-00001-of-00002.safetensors");
    fs::write(&precious, "precious").unwrap();
    let arguments = [
        "shard",
        &file,
        shards.to_str().unwrap(),
        "--max-size",
        "1600",
    ];
    let (code, shown) = run(&arguments);
    assert_eq!(code, 2);
    assert_eq!(
        shown,
        format!(
            "error: {}: is there already\nhint: give `--force` to replace it\n",
            precious.display()
        )
    );
    assert_eq!(fs::read(&precious).unwrap(), b"precious");

    let other = shards.join("other.safetensors");
    let other = other.to_str().unwrap();
    assert_eq!(run(&["shard", &file, other, "--max-size", "1600"]).0, 0);
    assert_eq!(run(&[&arguments[..], &["--force"]].concat()).0, 0);
}

#[test]
fn metadata_that_cannot_be_kept_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("parts");
    fs::create_dir(&parts).unwrap();
    for (name, step) in [("a", "1"), ("b", "2")] {
        let tensors: [(&str, Dtype, &[u64]); 1] = [(name, Dtype::U8, &[1])];
        let metadata = [("format", "pt"), ("step\u{1b}", step)];
        save(
            &parts.join(format!("{name}.safetensors")),
            &tensors,
            &metadata,
            0,
        );
    }
    let parts = parts.to_str().unwrap();
    let merged = folder.path().join("merged.safetensors");
    let output = tensorhold(&["merge", parts, merged.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "note: {parts}: the files differ in the metadata `step\\u{{1b}}`; the first file's counts\n"
        )
    );
}

#[test]
fn diff_names_every_difference() {
    let folder = tempfile::tempdir().unwrap();
    let shape: &[u64] = &[2, 3];
    let left = [
        ("gone", Dtype::U8, shape),
        ("kind", Dtype::U8, shape),
        ("same", Dtype::U8, shape),
    ];
    let right = [
        ("kind", Dtype::I16, shape),
        ("new", Dtype::U8, shape),
        ("same", Dtype::U8, shape),
    ];
    let a = save(
        &folder.path().join("a.safetensors"),
        &left,
        &[("by", "me"), ("old", "1")],
        7,
    );
    let b = save(
        &folder.path().join("b.safetensors"),
        &right,
        &[("by", "you"), ("young", "1")],
        7,
    );
    let (code, shown) = run(&["diff", &a, &b]);
    assert_eq!(code, 1);
    assert_eq!(
        shown,
        "\
removed  gone
changed  kind: U8 [2, 3] became I16 [2, 3]
added    new
changed  metadata `by`: `me` became `you`
removed  metadata `old`
added    metadata `young`
"
    );

    let c = save(
        &folder.path().join("c.safetensors"),
        &left,
        &[("by", "me"), ("old", "1")],
        8,
    );
    let (code, shown) = run(&["diff", "--json", &a, &c]);
    assert_eq!(code, 1);
    let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value["differences"].as_array().unwrap().len(), 3);
    assert_eq!(value["differences"][0]["first_byte"], 0);

    let d = save(&folder.path().join("d.safetensors"), &left, &[], 7);
    assert_eq!(run(&["diff", &a, &d]).0, 1);
    assert_eq!(run(&["diff", "--ignore-metadata", &a, &d]).0, 0);
}

#[test]
fn wrong_use_is_two_and_says_how() {
    for arguments in [
        &[][..],
        &["inspect"],
        &["inspect", "--no-such-flag", "x"],
        &["shard", "a", "b"],
    ] {
        let output = tensorhold(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            String::from_utf8(output.stderr).unwrap().contains("Usage:"),
            "{arguments:?}"
        );
    }
    let (code, shown) = run(&["shard", "a", "b", "--max-size", "5 parsecs"]);
    assert_eq!(code, 2);
    assert!(shown.contains("`5 parsecs` is no size in bytes"), "{shown}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..20_000).map(|i| format!("tensor.{i}")).collect();
    let tensors: Vec<(&str, Dtype, &[u64])> = names
        .iter()
        .map(|name| (name.as_str(), Dtype::U8, &[1u64][..]))
        .collect();
    let path = save(&folder.path().join("many.safetensors"), &tensors, &[], 0);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tensorhold"))
        .args(["inspect", "--flat", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn colour_is_for_terminals() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let output = tensorhold(&["inspect", &path]);
    assert!(!output.stdout.contains(&0x1b));
}

/// What `arguments` print on a terminal.
#[cfg(target_os = "linux")]
fn on_terminal(arguments: &str, no_colour: bool) -> String {
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_tensorhold"));
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    script.env("TERM", "xterm").env_remove("NO_COLOR");
    if no_colour {
        script.env("NO_COLOR", "1");
    }
    let output = script.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_gets_colour_unless_no_color_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    assert!(on_terminal(&format!("verify {path}"), false).contains('\u{1b}'));
    assert_eq!(
        on_terminal(&format!("verify {path}"), true),
        format!("ok     {path}: 9 tensors, 2.18 kB\n")
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_screen_of_modules_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let check = |names: Vec<String>, last: &str| {
        let tensors: Vec<(&str, Dtype, &[u64])> = names
            .iter()
            .map(|name| (name.as_str(), Dtype::U8, &[1u64][..]))
            .collect();
        let path = save(&folder.path().join("x.safetensors"), &tensors, &[], 0);
        let shown = on_terminal(&format!("inspect {path}"), true);
        assert_eq!(shown.lines().last(), Some(last), "{shown}");
        let whole = on_terminal(&format!("inspect --all {path}"), true);
        assert!(!whole.contains('…'), "{whole}");
    };
    check(
        (0..60).map(|n| format!("block_{n}.weight")).collect(),
        "… 20 modules more: `--all` shows all",
    );
    check(
        (0..60).map(|n| format!("{}.block_{n}", n / 30)).collect(),
        "… 1 module closed: `--all` shows all",
    );
}
