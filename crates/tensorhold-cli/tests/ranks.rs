//! What a person sees who divides checkpoints among ranks.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use std::fs;
use std::path::Path;

use common::{model, run};

#[test]
fn plan_says_what_each_rank_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let mesh = ["plan", &path, "--mesh", "pp=2,tp=2"];
    let rules = ["--rule", "layers=stages", "--rule", "layers.*.q=colwise"];
    let (code, shown) = run(&[&mesh[..], &rules].concat());
    assert_eq!(code, 0, "{shown}");
    assert!(
        shown.contains("9 tensors, 2.18 kB in 1 file; 4 ranks in pp=2,tp=2"),
        "{shown}"
    );
    let last = "  rank    3  pp 1, tp 1                      5 tensors  holds    1.74 kB  reads    2.18 kB of 1 file";
    assert!(shown.contains(last), "{shown}");

    let (code, shown) = run(&[&mesh[..], &rules, &["--rank", "3", "--json"]].concat());
    assert_eq!(code, 0);
    let tensors: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(tensors[1]["name"], "layers.2.q.bias");
    assert_eq!(tensors[1]["ranges"], serde_json::json!([[[4, 8]]]));
    assert_eq!(
        tensors[1]["placements"],
        serde_json::json!(["Replicate()", "Shard(-1)"])
    );

    let file = folder.path().join("rules.json");
    fs::write(
        &file,
        r#"{"layers": "stages", "layers.*.q": {"tp": "Shard(0)"}}"#,
    )
    .unwrap();
    let by_file = run(&[&mesh[..], &["--rules", file.to_str().unwrap()]].concat());
    assert_eq!(by_file.0, 0);
    assert!(by_file.1.contains(last));
}

#[test]
fn plan_refuses_rules_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    for (arguments, message) in [
        (
            ["tp=2", "layer.*.q=colwise"],
            "rule `layer.*.q` names no tensor",
        ),
        (
            ["tp=2", "layers.*.q=sideways"],
            "`sideways` is no style of parallelism and no placement",
        ),
        (["tp=2", "layers.*.q"], "rule `layers.*.q` has no `=`"),
        (
            ["tp=2", "embed@cp=colwise"],
            "rule `embed` is for axis `cp`, which the mesh has not",
        ),
        (
            ["tp=3", "layers.*.q=Heads(0, 4)"],
            "4 heads can neither be divided by 3 ranks",
        ),
        (["tp", "layers=stages"], "`tp` is no mesh"),
    ] {
        let (code, shown) = run(&[
            "plan",
            &path,
            "--mesh",
            arguments[0],
            "--rule",
            arguments[1],
        ]);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(shown.contains(message), "{shown}");
    }
}

#[test]
fn a_checkpoint_is_resharded_and_consolidated_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (tp4, tp2, whole) = (at("tp4"), at("tp2"), at("whole"));
    let by = ["--rule", "layers.*.q=colwise"];
    let reshard = |from: &str, to: &str, mesh: &str| {
        run(&[&["reshard", from, to, "--mesh", mesh], &by[..]].concat())
    };
    let (code, shown) = reshard(&path, &tp4, "tp=4");
    assert_eq!(code, 0, "{shown}");
    let names: Vec<&str> = shown.lines().map(|line| &line[tp4.len() + 1..]).collect();
    let expected = (1..5).map(|rank| format!("shard-{rank:05}-model-00001-of-00001.safetensors"));
    assert_eq!(names, expected.collect::<Vec<_>>());
    assert_eq!(reshard(&tp4, &tp2, "tp=2").0, 0);
    assert_eq!(fs::read_dir(&tp2).unwrap().count(), 2);
    let (code, shown) = run(&["consolidate", &tp2, &whole, "--max-shard-size", "1kB"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.ends_with("model.safetensors.index.json\n"), "{shown}");
    let (code, shown) = run(&["diff", &path, &whole]);
    assert_eq!(
        (code, shown.starts_with("the same: 9 tensors")),
        (0, true),
        "{shown}"
    );

    let (code, shown) = reshard(&path, &tp2, "tp=4");
    assert_eq!(
        (code, shown.contains("is there already")),
        (2, true),
        "{shown}"
    );
    let force = ["reshard", &path, &tp2, "--mesh", "tp=1", "--force"];
    assert_eq!(run(&force).0, 0);
    assert_eq!(fs::read_dir(&tp2).unwrap().count(), 1);
    let (code, shown) = run(&["consolidate", &tp4, &whole]);
    assert_eq!(
        (code, shown.contains("is there already")),
        (2, true),
        "{shown}"
    );
}

#[test]
fn a_hole_is_not_consolidated() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (torn, whole) = (at("torn"), at("whole"));
    let by = ["--mesh", "tp=2", "--rule", "embed=embedding_rowwise"];
    assert_eq!(run(&[&["reshard", &path, &torn], &by[..]].concat()).0, 0);
    let second = "shard-00002-model-00001-of-00001.safetensors";
    fs::remove_file(Path::new(&torn).join(second)).unwrap();
    let (code, shown) = run(&["consolidate", &torn, &whole]);
    assert_eq!(code, 2);
    let hole =
        "a tensor has 400 of 800 elements in the files of the folder (tensor `embed.weight`)";
    assert!(shown.contains(hole), "{shown}");
    assert!(
        shown.contains("hint: a file of the save is missing"),
        "{shown}"
    );
    assert!(!Path::new(&whole).exists());
}
