//! What a person sees who quantizes a checkpoint.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use std::fs;
use std::path::Path;

use common::{model, run, save, tensorhold};
use tensorhold::Dtype;

/// A folder with weights, and where the result goes.
fn source(folder: &Path) -> (String, String) {
    let source = folder.join("source");
    fs::create_dir(&source).unwrap();
    let tensors: &[(&str, Dtype, &[u64])] = &[
        ("a.up.weight", Dtype::BF16, &[64, 256]),
        ("a.up.bias", Dtype::BF16, &[64]),
        ("embed.weight", Dtype::BF16, &[100, 256]),
    ];
    save(
        &source.join("model.safetensors"),
        tensors,
        &[("format", "pt")],
        60,
    );
    fs::write(source.join("config.json"), "{\"hidden_size\": 256}").unwrap();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    (text(&source), text(&folder.join("out")))
}

#[test]
fn quantize_says_what_became_of_each_weight() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = source(folder.path());
    let (code, shown) = run(&[
        "quantize",
        &source,
        &target,
        "--scheme",
        "fp8-block",
        "--verify",
    ]);
    assert_eq!(code, 0, "{shown}");
    assert_eq!(
        shown.replace(&target, "OUT"),
        "\
a.up.weight  BF16 -> fp8-block  32.8 kB -> 16.4 kB  off by 7.629e-6 at most, 0.07% in all
1 tensor as before, 128 B: no `.weight`
1 tensor as before, 51.2 kB: an embedding, output layer, norm or router
1 weight quantized, 39.0 % of 42.0K parameters, 25.7K as before: 84.1 kB -> 67.7 kB in all
OUT/model.safetensors
OUT/config.json
"
    );
    let (code, shown) = run(&["inspect", &target]);
    assert_eq!(code, 0);
    assert!(shown.contains("fp8"), "{shown}");
    assert_eq!(run(&["verify", &target]).0, 0);
}

#[test]
fn quantize_writes_nothing_in_a_dry_run_and_nothing_over_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = source(folder.path());
    let arguments = ["quantize", &source, &target, "--scheme", "int4"];
    let dry: Vec<&str> = arguments
        .iter()
        .copied()
        .chain(["--dry-run", "--json"])
        .collect();
    let (code, shown) = run(&dry);
    assert_eq!(code, 0);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["paths"].as_array().unwrap().len(), 0);
    let weight = shown["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "a.up.weight");
    assert_eq!(weight.unwrap()["quantized"], true);
    assert!(!Path::new(&target).exists());

    assert_eq!(run(&arguments).0, 0);
    let (code, shown) = run(&arguments);
    assert_eq!(code, 2);
    assert!(shown.contains("--force"), "{shown}");
    let forced: Vec<&str> = arguments.iter().copied().chain(["--force"]).collect();
    assert_eq!(run(&forced).0, 0);
}

#[test]
fn quantize_refuses_what_it_cannot_cut_and_says_what_fits() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = source(folder.path());
    let refused = |arguments: &[&str]| {
        let all: Vec<&str> = ["quantize", &source, &target]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let output = tensorhold(&all);
        assert_eq!(output.status.code(), Some(2));
        assert!(!Path::new(&target).exists());
        String::from_utf8(output.stderr).unwrap()
    };
    let shown = refused(&["--scheme", "int4", "--group-size", "96"]);
    assert!(
        shown.contains("256 inputs are no whole groups of 96"),
        "{shown}"
    );
    assert!(shown.contains("groups of 256, 128, 64"), "{shown}");
    assert!(refused(&["--scheme", "fp8"]).contains("there are fp8-tensor"));
    assert!(refused(&["--scheme", "fp8-block", "--block", "128"]).contains("such as 128x128"));
    assert!(refused(&["--scheme", "int4", "--ignore", "b.*"]).contains("no tensor is called so"));
}

#[test]
fn quantize_takes_a_single_file_without_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = model(folder.path());
    let target = folder.path().join("out");
    let arguments = [
        "quantize",
        &file,
        &target.to_string_lossy(),
        "--scheme",
        "fp8-channel",
    ];
    let (code, shown) = run(&arguments);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("4 weights quantized"), "{shown}");
    let config = fs::read_to_string(target.join("config.json")).unwrap();
    assert!(
        config.starts_with("{\n  \"quantization_config\": {"),
        "{config}"
    );
}

#[test]
fn repack_writes_the_same_weights_in_another_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (source, packed) = source(folder.path());
    assert_eq!(
        run(&["quantize", &source, &packed, "--scheme", "int4"]).0,
        0
    );
    let target = folder.path().join("awq").to_string_lossy().into_owned();
    let output = tensorhold(&["repack", &packed, &target, "--to", "awq"]);
    assert_eq!(output.status.code(), Some(0));
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        notes.contains("1 weight repacked to awq, the same as before"),
        "{notes}"
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        shown.replace(&target, "OUT"),
        "OUT/model.safetensors\nOUT/config.json\n"
    );
    let (code, shown) = run(&["repack", &packed, &target, "--to", "awq"]);
    assert_eq!(code, 2);
    assert!(shown.contains("--force"), "{shown}");
    let (code, shown) = run(&["repack", &packed, "nowhere", "--to", "modelopt-nvfp4"]);
    assert_eq!(code, 2);
    assert!(shown.contains("cannot hold integers"), "{shown}");
}

#[test]
fn files_beside_the_tensors_are_copied_and_told_and_code_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = source(folder.path());
    fs::write(Path::new(&source).join("tokenizer.json"), "{ }").unwrap();
    fs::write(Path::new(&source).join("modeling_own.py"), "1").unwrap();
    let steps: [(&str, &[&str]); 3] = [
        ("quantize", &["--scheme", "int4"]),
        ("repack", &["--to", "gptq"]),
        ("dequantize", &[]),
    ];
    let mut before = source;
    for (command, options) in steps {
        let after = format!("{target}-{command}");
        let output = tensorhold(&[&[command, &before, &after], options].concat());
        let [shown, notes] =
            [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap());
        assert_eq!(output.status.code(), Some(0), "{notes}");
        assert!(
            notes.contains("note: copied beside the tensors: tokenizer.json\n"),
            "{notes}"
        );
        let is_told = notes.contains("note: code is not copied: modeling_own.py\n");
        assert_eq!(is_told, command == "quantize", "{notes}");
        assert!(
            shown.ends_with(&format!("{after}/tokenizer.json\n")),
            "{shown}"
        );
        let copied = fs::read_to_string(Path::new(&after).join("tokenizer.json")).unwrap();
        assert_eq!(copied, "{ }");
        before = after;
    }
}

#[test]
fn files_beside_the_target_are_not_replaced_without_force() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = source(folder.path());
    fs::write(Path::new(&source).join("tokenizer.json"), "{}").unwrap();
    fs::create_dir(&target).unwrap();
    let arguments = ["quantize", &source, &target, "--scheme", "int4"];
    for name in ["config.json", "tokenizer.json"] {
        let path = Path::new(&target).join(name);
        fs::write(&path, "mine").unwrap();
        let (code, shown) = run(&arguments);
        assert_eq!(code, 2);
        assert!(
            shown.contains(&format!("{}: is there already", path.display())),
            "{shown}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
    }
    fs::write(Path::new(&target).join("tokenizer.json"), "mine").unwrap();
    assert_eq!(run(&[&arguments[..], &["--force"]].concat()).0, 0);
    let copied = fs::read_to_string(Path::new(&target).join("tokenizer.json")).unwrap();
    assert_eq!(copied, "{}");
}

#[test]
fn weights_of_experts_that_stay_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: &[(&str, Dtype, &[u64])] = &[
        (
            "layers.0.mlp.experts.gate_up_proj",
            Dtype::BF16,
            &[8, 64, 32],
        ),
        ("layers.0.mlp.experts.down_proj", Dtype::BF16, &[8, 32, 32]),
        ("layers.0.self_attn.q_proj.weight", Dtype::BF16, &[32, 32]),
    ];
    let file = save(&folder.path().join("model.safetensors"), tensors, &[], 60);
    let target = folder.path().join("out").to_string_lossy().into_owned();
    let output = tensorhold(&["quantize", &file, &target, "--scheme", "fp8-block"]);
    let [shown, notes] = [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap());
    assert!(
        shown.contains("1 weight quantized, 4.0 % of 25.6K parameters, 24.6K as before: "),
        "{shown}"
    );
    assert!(
        shown
            .contains("2 tensors as before, 49.2 kB: the weights of several experts in one tensor"),
        "{shown}"
    );
    assert!(
        notes.contains(
            "note: 96.0 % of the parameters stay as they are, since fp8-block does not hold "
        ) && notes.contains("`layers.0.mlp.experts.gate_up_proj`"),
        "{notes}"
    );
}
