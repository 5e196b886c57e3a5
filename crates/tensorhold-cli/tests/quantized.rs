//! What a person sees of quantized checkpoints.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::fs;
use std::path::Path;

use common::{run, save, tensorhold};
use serde_json::Value;
use tensorhold::Dtype::{self, BF16, F8_E4M3, F32, I32};

const BLOCKS: &str = r#"{"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#;

/// Two layers in blocks of FP8, each with a norm.
fn fp8(folder: &Path, fill: u8) -> String {
    let names: Vec<(String, Dtype, Vec<u64>)> = (0..2)
        .flat_map(|layer| {
            [
                (format!("layers.{layer}.up.weight"), F8_E4M3, vec![256, 256]),
                (
                    format!("layers.{layer}.up.weight_scale_inv"),
                    F32,
                    vec![2, 2],
                ),
                (format!("layers.{layer}.norm.weight"), BF16, vec![256]),
            ]
        })
        .collect();
    let tensors: Vec<(&str, Dtype, &[u64])> = names
        .iter()
        .map(|(name, dtype, shape)| (&**name, *dtype, &shape[..]))
        .collect();
    fs::write(folder.join("config.json"), BLOCKS).unwrap();
    save(&folder.join("model.safetensors"), &tensors, &[], fill)
}

fn shown(arguments: &[&str]) -> (i32, String, String) {
    let output = tensorhold(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn inspect_shows_weights_as_they_are_without_quantization() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let (code, shown) = run(&["inspect", &path]);
    assert_eq!(code, 0);
    assert_eq!(
        shown.replace(&path, "MODEL"),
        "\
MODEL: 6 tensors, 132K parameters, 132 kB (132,128 bytes) in 1 file; F8_E4M3 99.2 %, BF16 0.8 %, F32 0.0 %
fp8: 2 weights, 131K parameters in 131 kB, 8.00 bits per weight
module           tensors  parameters     size  dtype and shape
layers.[0,1] ×2        6        132K   132 kB  fp8 BF16
  norm.weight          2         512  1.02 kB  BF16 [256]
  up.weight            4        131K   131 kB  fp8 for BF16 [256, 256]
"
    );
}

#[test]
fn inspect_gives_machines_each_weight_with_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let (_, shown) = run(&["inspect", "--json", &path]);
    let value: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(value["totals"]["parameters"], 2 * (256 * 256 + 256));
    let quantization = &value["quantization"];
    assert_eq!(quantization["config"], "config.json, `quantization_config`");
    let weight = &quantization["weights"][1];
    assert_eq!(weight["name"], "layers.1.up.weight");
    assert_eq!(weight["dtype"], "BF16");
    assert_eq!(weight["shape"], serde_json::json!([256, 256]));
    assert_eq!(
        weight["parts"]["weight_scale_inv"],
        "layers.1.up.weight_scale_inv"
    );
    assert!((weight["bits_per_weight"].as_f64().unwrap() - 8.001953125).abs() < 1e-9);
}

#[test]
fn verify_looks_for_scales_that_are_no_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let (code, shown) = run(&["verify", &path]);
    assert_eq!(
        (code, shown.lines().nth(1).unwrap()),
        (0, &*format!("ok     {path}: 2 quantized weights: 2 fp8"))
    );

    let path = fp8(folder.path(), 0xff);
    let (code, shown) = run(&["verify", &path]);
    assert_eq!(code, 1);
    let line = shown.lines().nth(1).unwrap();
    let message = "element 0 of these numbers is NaN: scales must be finite (tensor `layers.0.up.weight_scale_inv`, bytes ";
    assert!(
        line.starts_with(&format!("wrong  {path}: {message}")),
        "{line}"
    );
}

#[test]
fn verify_names_missing_parts_orphans_and_groups_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: [(&str, Dtype, &[u64]); 7] = [
        ("a.weight", F8_E4M3, &[4, 4]),
        ("b.weight", F8_E4M3, &[4, 4]),
        ("b.weight_scale", F32, &[]),
        ("c.qzeros", I32, &[1, 1]),
        ("d.qweight", I32, &[4, 32]),
        ("d.scales", F32, &[1, 32]),
        ("d.g_idx", I32, &[32]),
    ];
    let path = save(&folder.path().join("model.safetensors"), &tensors, &[], 1);
    let (code, shown) = run(&["verify", "--json", &path]);
    assert_eq!(code, 1);
    let value: Value = serde_json::from_str(&shown).unwrap();
    let errors = value[1]["errors"].as_array().unwrap();
    let told: Vec<String> = errors
        .iter()
        .map(|error| {
            format!(
                "{}: {}",
                error["tensor"].as_str().unwrap(),
                error["message"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "c.qzeros: `c.qzeros` is a part of a quantized weight, but there is no `c.qweight`",
            "a.weight: its scale is missing: there is none of `weight_scale_inv`, `weight_scale`, `scale`, `qscale_weight`, `scale_weight`",
            "d.g_idx: element 0 is group 16843009, but there are 1 groups",
        ]
    );
}

#[test]
fn inspect_counts_no_parameters_of_weights_that_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: [(&str, Dtype, &[u64]); 4] = [
        ("a.B", I32, &[6, 128]),
        ("a.s", BF16, &[1, 64]),
        ("b.weight", BF16, &[4]),
        ("b.self_attn.k_scale", F32, &[]),
    ];
    let path = save(&folder.path().join("model.safetensors"), &tensors, &[], 1);
    let (code, out, err) = shown(&["inspect", &path]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].contains(": 4 tensors, 4 parameters, "), "{out}");
    assert_eq!(
        lines[1],
        "marlin: 1 weight, 0 parameters in 3.20 kB; 1 without a known shape"
    );
    assert!(lines[3].ends_with("marlin, of unknown shape"), "{out}");
    assert_eq!(
        err,
        "note: `a.weight`: a weight in marlin is not read: its codes are permuted for the tiles of a kernel\n"
    );
    assert_eq!(run(&["verify", &path]).0, 0);
}

#[test]
fn parts_in_other_files_are_found_and_one_shard_alone_is_not_blamed() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |number: u32, tensor: (&str, Dtype, &[u64])| {
        let path = folder
            .path()
            .join(format!("model-0000{number}-of-00002.safetensors"));
        save(&path, &[tensor], &[], 0x38)
    };
    let first = shard(1, ("a.weight", F8_E4M3, &[200, 300]));
    shard(2, ("a.weight_scale_inv", F32, &[2, 3]));
    fs::write(folder.path().join("config.json"), BLOCKS).unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, out, _) = shown(&["verify", path]);
    assert_eq!(code, 0, "{out}");
    assert!(out.ends_with(": 1 quantized weight: 1 fp8\n"), "{out}");
    assert_eq!(run(&["verify", &first]).0, 0);
}

#[test]
fn a_configuration_that_is_too_large_or_too_deep_is_told_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let config = folder.path().join("config.json");
    for (text, message) in [
        (
            " ".repeat(17 << 20),
            "a configuration of 17825792 bytes is over the limit of 16777216",
        ),
        (
            "[".repeat(1 << 20),
            "this is no JSON: recursion limit exceeded",
        ),
    ] {
        fs::write(&config, text).unwrap();
        let (code, out, err) = shown(&["inspect", &path]);
        assert_eq!(code, 0);
        assert!(out.contains("weight_scale_inv"), "{out}");
        assert!(
            err.starts_with("note: what is quantized cannot be said: config.json: "),
            "{err}"
        );
        assert!(err.contains(message), "{err}");
        assert_eq!(run(&["verify", &path]).0, 1);
    }
}

#[test]
fn texts_of_a_configuration_cannot_drive_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let config = BLOCKS.replace(r#""fp8""#, r#""fp8\u001b[2J""#);
    fs::write(folder.path().join("config.json"), config).unwrap();
    for command in ["inspect", "verify"] {
        let output = tensorhold(&[command, &path]);
        let all = [output.stdout, output.stderr].concat();
        assert!(!all.contains(&0x1b));
        assert!(
            String::from_utf8(all)
                .unwrap()
                .contains("which is not known")
        );
    }
}

#[test]
fn plan_counts_the_pieces_of_quantized_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let plan = ["plan", &path, "--rule", "layers.*.up=rowwise"];
    let (code, shown) = run(&[&plan[..], &["--mesh", "tp=2", "--json"]].concat());
    assert_eq!(code, 0, "{shown}");
    let plan_of_all: Value = serde_json::from_str(&shown).unwrap();
    // Half of the codes and of the scales, and the norms whole.
    let held = 2 * (256 * 256 / 2 + 4 * 4 / 2 + 256 * 2);
    assert_eq!(plan_of_all["ranks"][1]["held_bytes"], held);
    let one = ["--mesh", "tp=2", "--rank", "1", "--json"];
    let (_, shown) = run(&[&plan[..], &one].concat());
    let tensors: Vec<Value> = serde_json::from_str(&shown).unwrap();
    let find = |name: &str| {
        tensors
            .iter()
            .find(|tensor| tensor["name"] == name)
            .unwrap()
    };
    let ranges = |name: &str| find(name)["ranges"].clone();
    let scales = ranges("layers.0.up.weight_scale_inv");
    assert_eq!(scales, serde_json::json!([[[0, 2]], [[1, 2]]]));
    let codes = ranges("layers.0.up.weight");
    assert_eq!(codes, serde_json::json!([[[0, 256]], [[128, 256]]]));
}

#[test]
fn plan_refuses_cuts_inside_of_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let plan = ["plan", &path, "--mesh", "tp=4", "--rule"];
    let (code, _, errors) = shown(&[&plan[..], &["layers.*.up=colwise"]].concat());
    assert_eq!(code, 2);
    let expected = "dimension 0 of size 256 would be cut at 64, inside a unit of 128: the nearest cuts are at 0 and 128";
    assert!(errors.contains(expected), "{errors}");
    assert!(errors.contains("layers.0.up.weight"), "{errors}");
    let (code, _) = run(&[&plan[..], &["layers.*.up=Blocks(0, 128)"]].concat());
    assert_eq!(code, 0);
}

#[test]
fn a_configuration_from_elsewhere_counts_in_place_of_those_beside_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: [(&str, Dtype, &[u64]); 2] = [
        ("a.qweight", I32, &[9, 64]),
        ("a.scales", Dtype::F16, &[1, 64]),
    ];
    let path = save(&folder.path().join("model.safetensors"), &tensors, &[], 1);
    let text = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let [config, target] = ["three.json", "out"].map(text);
    let said = r#"{"bits": 3, "group_size": -1, "desc_act": false, "quant_method": "gptq", "checkpoint_format": "gptq_v2"}"#;
    fs::write(&config, said).unwrap();
    assert_eq!(run(&["verify", &path]).0, 1);
    let given = ["--quantization-config", &config];
    let (code, out, err) = shown(&[&["verify", &path][..], &given].concat());
    assert_eq!(code, 0, "{out}{err}");
    let (_, out, _) = shown(&[&["inspect", &path][..], &given].concat());
    assert!(out.contains("gptq for F16 [64, 96]"), "{out}");
    let (code, _, err) = shown(&[&["dequantize", &path, &target][..], &given].concat());
    assert_eq!(
        (code, err.contains("1 weight as numbers")),
        (0, true),
        "{err}"
    );
    let repack = ["repack", &path, &target, "--to", "gptq", "--force"];
    let (code, _, err) = shown(&[&repack[..], &given].concat());
    assert_eq!(code, 0, "{err}");
}

#[test]
fn a_file_that_is_no_configuration_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = fp8(folder.path(), 0x38);
    let config = folder
        .path()
        .join("wrong.json")
        .to_string_lossy()
        .into_owned();
    let cases = [
        (r#"{"model_type": "llama"}"#, "says nothing of quantization"),
        ("{", "this is no JSON"),
        ("[1]", "is an object of JSON"),
    ];
    for (text, message) in cases {
        fs::write(&config, text).unwrap();
        for command in ["inspect", "verify"] {
            let arguments = [command, &path, "--quantization-config", &config];
            let (code, _, err) = shown(&arguments);
            assert_eq!(code, 2);
            assert!(
                err.starts_with(&format!("error: {config}: ")) && err.contains(message),
                "{err}"
            );
        }
    }
    let (code, _, err) = shown(&["inspect", &path, "--quantization-config", "nowhere.json"]);
    assert_eq!((code, err.contains("nowhere.json")), (2, true), "{err}");
}
